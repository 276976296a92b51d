//! Settings of the operator, with every default filled in and every rule checked.
//!
//! `checked` has the settings that the program uses. They are built in Rust, or read from `accounts.yaml` by
//! `yaml`, which returns either a complete [`Config`] or every problem of the file. No problem contains a
//! secret.

mod checked;
pub mod duration;
mod grants;
mod invisible;
mod problem;
#[cfg(test)]
#[cfg(feature = "yaml")]
mod properties;
mod rules;
mod sink;
#[cfg(test)]
#[cfg(feature = "yaml")]
mod tests;
#[cfg(feature = "yaml")]
mod yaml;

pub use checked::{
    ApiConfig, Config, Defaults, MetricsConfig, PerAccount, ProxyConfig, StoreConfig, Transparent,
    UpstreamConfig,
};
pub use grants::{Allow, Client, Grants, InvalidGrant};
pub use problem::{ConfigError, InvalidSetting, Position, Problem};
pub use sink::Sink;
pub use wxtokend_core::sdk::layout::{InvalidTemplate, Layout, Template};
