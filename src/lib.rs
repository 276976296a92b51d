//! Keeps the WeChat access_token of every account an agency manages fresh.
pub mod account;
pub mod budget;
pub mod clock;
pub mod fault;
pub mod outcome;
pub mod policy;
pub mod rejection;
pub mod schedule;
pub mod config;
pub mod sandbox;
pub mod secret;
pub mod state;
pub mod store;
pub mod token;
pub mod wechat;
