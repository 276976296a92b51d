//! Keeps the WeChat access_token of every account an agency manages fresh, and hands it to whoever may have it.
//!
//! WeChat calls such a service a 中控服务器 (central token server): the only party that fetches tokens, so that no
//! two application servers invalidate each other's. The `wxtokend` program is one, with an HTTP API; this is the
//! library under it, for a program in Rust that would rather hold the tokens itself.
//!
//! A [`Fleet`] runs on the accounts and settings of a [`Config`], which is read from `accounts.yaml` or built in
//! Rust. It fetches each account's token before the last one ends, keeps it on disk, and gives it to readers out of
//! memory as a [`Token`]. Only one process may hold an account: embed the library *or* run the daemon.
//!
//! # Example
//! One account, on the simulated WeChat of [`sandbox`]:
//! ```
//! use wxtokend::sandbox::{Sandbox, Settings};
//! use wxtokend::{Appid, Config, Defaults, Fleet, RejectionOutcome, Secret};
//!
//! #[tokio::main]
//! async fn main() -> Result<(), Box<dyn std::error::Error>> {
//!     let (appid, secret) = (Appid::new("wx0123456789abcdef")?, Secret::new("app-secret"));
//!
//!     let accounts = vec![(appid.clone(), secret.clone())];
//!     let wechat = Sandbox::new(Settings { accounts, ..Settings::default() });
//!     let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
//!     let address = listener.local_addr()?;
//!     tokio::spawn(async move { wechat.serve(listener, std::future::pending()).await });
//!
//!     let folder = tempfile::tempdir()?;
//!     let mut config = Config::new([Defaults::default().account(appid.clone(), secret)]);
//!     config.store.path = folder.path().join("wxtokend.redb");
//!     config.upstream.base_urls = vec![format!("http://{address}/").parse()?]; // default: WeChat itself
//!
//!     let fleet = Fleet::start(config).await?;
//!     let token = fleet.token(&appid).await?;
//!     // Tokens may hold what a URL must not: encode them.
//!     let query = [("access_token", token.access_token())];
//!     println!("{}", reqwest::Url::parse_with_params("https://api.weixin.qq.com/cgi-bin/…", query)?);
//!
//!     // WeChat answered such a call with 40001? Say so; the token is checked, and replaced if it is dead.
//!     let rejected = fleet.reject(&appid, &token).await?;
//!     assert_eq!(rejected.outcome, RejectionOutcome::StillValid);
//!
//!     fleet.shutdown().await;
//!     Ok(())
//! }
//! ```
//! `examples/embedded.rs` shows more: a refresh, a token that has died, an account in trouble.
//!
//! # Contents
//! | for | there is |
//! |---|---|
//! | running accounts | [`Fleet`], [`StartError`], [`Reloaded`], [`ReloadError`] |
//! | tokens | [`Token`], [`TokenError`], [`Unavailable`], [`Watch`] |
//! | tickets, and pages signed with them | [`Ticket`], [`TicketKind`], [`TicketError`], [`JsConfig`] |
//! | a token that WeChat refused | [`Rejected`], [`RejectionOutcome`] |
//! | how accounts are doing | [`AccountView`], [`Phase`], [`FaultView`], [`BudgetView`], [`TicketView`], [`HostView`] |
//! | settings | [`Config`], [`Defaults`], [`Account`], [`Appid`], [`Endpoint`], [`RefreshAhead`], [`Retry`], [`Secret`], [`config`] |
//! | trying and testing | [`sandbox`] |
//!
//! Log lines go to [`tracing`], fleet-wide metrics to the recorder of the `metrics` crate, if the program has them.
//! Ours hold no secrets. In a subscriber of your own keep `reqwest` and `hyper` at `warn`: the classic endpoint carries
//! the AppSecret in its URL, and HTTP libraries may print URLs.

pub mod config;
pub mod sandbox;

// Public for benchmarks and simulations, and no part of the library's face: they change without notice.
#[doc(hidden)]
pub mod account;
#[doc(hidden)]
pub mod budget;
mod certificates;
#[doc(hidden)]
pub mod cli;
#[doc(hidden)]
pub mod clock;
#[doc(hidden)]
pub mod fault;
#[doc(hidden)]
pub mod fleet;
#[doc(hidden)]
pub mod http;
#[doc(hidden)]
pub mod jssdk;
#[doc(hidden)]
pub mod layout;
#[doc(hidden)]
pub mod outcome;
#[doc(hidden)]
pub mod policy;
mod publish;
#[doc(hidden)]
pub mod rejection;
#[doc(hidden)]
pub mod schedule;
#[doc(hidden)]
pub mod secret;
#[doc(hidden)]
pub mod state;
#[doc(hidden)]
pub mod store;
#[doc(hidden)]
pub mod telemetry;
#[doc(hidden)]
pub mod ticket;
#[doc(hidden)]
pub mod token;
#[doc(hidden)]
pub mod wechat;

pub use account::{Account, Appid, Endpoint, InvalidAppid, RefreshAhead, Retry};
pub use certificates::Missing as MissingCertificates;
pub use config::{Config, ConfigError, Defaults};
pub use fleet::{
    AccountView, BudgetView, FaultView, Fleet, HostView, Rejected, RejectionOutcome, ReloadError, Reloaded,
    StartError, TicketError, TicketView, TokenError, Unavailable, Watch,
};
pub use jssdk::JsConfig;
pub use secret::Secret;
pub use state::Phase;
pub use store::StoreError;
pub use ticket::{InvalidTicketKind, Ticket, TicketKind};
pub use token::Token;
pub use wechat::TransportError;

/// What the library and its scenarios have in common with the tests of the program is named as they name it.
#[cfg(test)]
extern crate self as wxtokend;
#[cfg(test)]
#[path = "../tests/scenarios/mod.rs"]
mod scenarios;

/// The Rust examples of the README are compiled with the tests.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
