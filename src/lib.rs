//! Keeps the WeChat access_token of every account an agency manages fresh.
pub mod account;
pub mod clock;
pub mod secret;
