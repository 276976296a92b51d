//! Keeps the WeChat access_tokens of an agency's accounts fresh, and serves them to authorised clients.
//!
//! WeChat calls such a service a 中控服务器 (central token server): the only party that fetches tokens, so that no
//! two application servers invalidate each other's. The `wxtokend` program is one, with an HTTP API; this is the
//! library under it, for a program in Rust that would rather hold the tokens itself.
//!
//! A [`Fleet`] runs on accounts that are given to its [builder](Fleet::builder), or on a [`Config`] that is read from
//! `accounts.yaml`. It fetches each account's token before the last one ends, keeps it on disk, and gives it to readers out of
//! memory as a [`Token`]. Only one process may hold an account: embed the library *or* run the daemon.
//!
//! # Example
//! One account, on the simulated WeChat of [`sandbox`]:
//! ```
//! use wxtokend::sandbox::{Sandbox, Settings};
//! use wxtokend::config::UpstreamConfig;
//! use wxtokend::{Account, Appid, Fleet, RejectionOutcome, Secret, Store};
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
//!     let base_urls = vec![format!("http://{address}/").parse()?]; // default: WeChat itself
//!     let upstream = UpstreamConfig { base_urls, ..UpstreamConfig::default() };
//!     let fleet = Fleet::builder()
//!         .account(Account::new(appid.clone(), secret))
//!         .upstream(upstream)
//!         .store(Store::in_memory()) // with real accounts: Store::file("tokens.redb")
//!         .start()
//!         .await?;
//!     let token = fleet.token(&appid).await?;
//!     // Tokens may contain characters that a URL must not: encode them.
//!     let query = [("access_token", token.access_token())];
//!     println!("{}", wxtokend::Url::parse_with_params("https://api.weixin.qq.com/cgi-bin/…", query)?);
//!
//!     // WeChat answered such a call with 40001? Report it; the token is checked, and replaced if it is dead.
//!     let rejected = fleet.reject(&appid, &token).await?;
//!     assert_eq!(rejected.outcome, RejectionOutcome::StillValid);
//!
//!     fleet.shutdown().await;
//!     Ok(())
//! }
//! ```
//! [`Fleet::call`] does both in one: it calls WeChat with a token, reports it if WeChat refuses it, and calls once more.
//! `examples/embedded.rs` shows more: a refresh, a token that has died, an account in trouble; docs/library.md tells
//! what to mind.
//!
//! # Contents
//! | for | there is |
//! |---|---|
//! | running accounts | [`Fleet`], [`FleetBuilder`], [`Store`], [`StartError`], [`Reloaded`], [`ReloadError`] |
//! | tokens | [`Token`], [`TokenError`], [`Unavailable`] |
//! | tickets, and pages signed with them | [`Ticket`], [`TicketKind`], [`TicketError`], [`JsConfig`] |
//! | a token that WeChat refused, or a refresh | [`RefreshResponse`], [`RejectionOutcome`] |
//! | how accounts are doing | [`AccountView`], [`Phase`], [`FaultView`], [`BudgetView`], [`TicketView`], [`HostView`] |
//! | what happens to them | [`EventView`], [`EventDetails`] |
//! | following tokens or events | [`Subscription`] |
//! | settings | [`Config`], [`Defaults`], [`Account`], [`AccountSettings`], [`Appid`], [`Endpoint`], [`RefreshAhead`], [`Retry`], [`Secret`], [`config`] |
//! | trying and testing | [`sandbox`] |
//!
//! # Features
//! | feature | brings |
//! |---|---|
//! | `daemon` (default) | the program: its command line and logs; and the four below |
//! | `axum` | [`http`]: the HTTP API, metrics and status page as a router for a program that has axum |
//! | `yaml` | [`Config::load`]: settings from `accounts.yaml` |
//! | `redis` | tokens in Redis, for SDKs that read them there |
//! | `sandbox` | [`sandbox`], the simulated WeChat |
//! | `internals` | what the project's own simulation and benchmarks need; it changes without notice |
//!
//! Log lines go to [`tracing`], fleet-wide metrics to the recorder of the `metrics` crate, if the program has them.
//! They contain no secrets. In a subscriber of your own keep `reqwest` and `hyper` at `warn`: the classic
//! endpoint carries the AppSecret in its URL, and HTTP libraries may print URLs.

#![cfg_attr(
    not(feature = "daemon"),
    expect(dead_code, reason = "the program asks more of a fleet than those who embed it")
)]
#![cfg_attr(
    not(feature = "internals"),
    expect(unreachable_pub, reason = "the project's own simulation and benchmarks reach it")
)]

mod certificates;
pub mod config;
#[cfg(feature = "axum")]
mod daemon;
mod fleet;
#[cfg(feature = "axum")]
pub mod http {
    //! The HTTP API, metrics and the status page, to be mounted in an axum program.

    pub use crate::daemon::http::{Clients, metrics_router, router};
    pub use crate::daemon::telemetry::metrics::{InstallError, Metrics};
}
#[cfg(feature = "internals")]
pub mod internals;
mod store;
mod wechat;

pub use certificates::Missing as MissingCertificates;
pub use config::{Config, ConfigError, Defaults};
#[cfg(feature = "daemon")]
pub use daemon::main;
pub use fleet::{
    AccountView, BudgetView, EventDetails, EventView, FaultView, Fleet, FleetBuilder, HostView,
    RefreshResponse, RejectionOutcome, ReloadError, Reloaded, StartError, Store, Subscription, TicketError,
    TicketView, TokenError, Unavailable,
};
pub use jiff::Timestamp;
pub use reqwest::Url;
pub use store::StoreError;
pub use wechat::TransportError;
pub use wxtokend_core::account::{
    Account, AccountSettings, Appid, Endpoint, InvalidAppid, RefreshAhead, Retry,
};
pub use wxtokend_core::fault::FaultKind;
pub use wxtokend_core::phase::Phase;
pub use wxtokend_core::sdk::jssdk::JsConfig;
pub use wxtokend_core::secret::Secret;
pub use wxtokend_core::ticket::{InvalidTicketKind, Ticket, TicketKind, TicketKinds};
pub use wxtokend_core::token::Token;
pub use wxtokend_core::token::state::Reason;
#[cfg(feature = "sandbox")]
pub use wxtokend_sandbox as sandbox;

/// The Rust examples of the documents are compiled with the tests.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;

/// As above.
#[cfg(doctest)]
#[doc = include_str!("../docs/library.md")]
struct LibraryDocument;
