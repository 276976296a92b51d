//! A simulated WeChat that reproduces the real one's failures as well.
//!
//! Developers run it instead of WeChat, the tests hold the daemon against it, and simulations use it as their
//! oracle: unlike WeChat, it can be asked which tokens are alive. It has three layers:
//!
//! - [`World`] is the pure state machine: a [`Request`] and an instant go in, a [`Reaction`] comes out.
//! - [`Sandbox`] shares a world among tasks and gives it tokio's time, so that paused time drives it; it can be
//!   moved ahead as well.
//! - [`Sandbox::serve`] puts it on a socket, together with the control API under `/_sandbox/` (described in
//!   [`control`]), which injects faults and reads the truth.
//!
//! Control answers contain tokens, so serve it on loopback. `docs/sandbox.md` says how an application's tests use it.

mod account_record;
mod answers;
mod call;
mod canned;
pub mod control;
mod faults;
mod handle;
mod known_calls;
mod late;
mod limits;
mod outage;
mod raw;
mod request_log;
mod server;
mod settings;
mod switches;
#[cfg(feature = "tls")]
mod tls;
mod tokens;
mod users;
mod whitelist;
mod wire;
mod world;

pub use account_record::Counters;
pub use call::Call;
pub use canned::{CannedAnswer, CannedBody, Gzip};
pub use faults::{Fault, FaultKind, LostAs};
pub use handle::Sandbox;
pub use limits::CallLimit;
pub use outage::Outage;
pub use raw::RawAnswer;
pub use request_log::LoggedRequest;
pub use settings::Settings;
pub use switches::Switches;
#[cfg(feature = "tls")]
pub use tls::Tls;
pub use tokens::TokenTruth;
pub use whitelist::{Covered, IpRange, Whitelist};
pub use wire::{Answer, Reaction, Request, Wire};
pub use world::{AccountTruth, World};
