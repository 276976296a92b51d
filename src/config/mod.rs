//! Settings: what the operator decides, with every default filled in and every rule checked.
//!
//! `checked` holds them as the program uses them. They are built in Rust, or read from `accounts.yaml` by `yaml`, which ends
//! with a whole [`Config`] or with every problem of the file, none of which prints a secret.

mod checked;
pub mod duration;
mod grants;
mod problem;
#[cfg(test)]
#[cfg(feature = "yaml")]
mod properties;
mod show;
mod sink;
#[cfg(test)]
#[cfg(feature = "yaml")]
mod tests;
mod unseen;
#[cfg(feature = "yaml")]
mod yaml;

pub use checked::{ApiConfig, Config, Defaults, MetricsConfig, PerAccount, StoreConfig, UpstreamConfig};
pub use grants::{Allow, Client, Grants, InvalidGrant};
pub use problem::{ConfigError, Position, Problem};
pub use sink::Sink;
