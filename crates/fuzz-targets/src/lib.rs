//! Fuzz targets: code that is fed arbitrary bytes, and what must hold whatever they are.
//!
//! Each module has one function `run`. The fuzzer calls it millions of times, and the project's tests call it
//! on every stored input. It panics if something does not hold.

pub mod accounts_yaml;
pub mod http_request;
pub mod passed_on;
pub mod store_file;
pub mod store_record;
pub mod wechat_answer;
