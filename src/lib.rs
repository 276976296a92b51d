//! Keeps the WeChat access_token of every account an agency manages fresh.
pub mod account;
pub mod budget;
#[doc(hidden)]
pub mod cli;
pub mod clock;
pub mod config;
pub mod fault;
pub mod fleet;
pub mod http;
pub mod outcome;
pub mod policy;
pub mod rejection;
pub mod sandbox;
pub mod schedule;
pub mod secret;
pub mod state;
pub mod store;
pub mod telemetry;
pub mod token;
pub mod wechat;
