//! Internals for the project's own simulation, benchmarks, fuzzers and tests. They may change without notice.
//!
//! They run a fleet on another [`Environment`] than the machine, show its accounts' state, and expose the
//! parsers of outside input.

use wxtokend_core::account::Appid;
use wxtokend_core::clock::Moment;
use wxtokend_core::ticket::TicketState;
use wxtokend_core::token::Token;
use wxtokend_core::token::state::AccountState;

use crate::config::Config;
#[cfg(feature = "axum")]
pub use crate::daemon::http::{ApiServer, BindError, Listeners};
use crate::fleet::{Asker, Fleet, StartError};
pub use crate::fleet::{Environment, Jitter, MakeTransport};
pub use crate::store::{Backend, Batch, Contents, RedbBackend, Writing, is_reading, record};
pub use crate::wechat::answers::{FailedFetch, no_answer, read_check, read_token};
pub use crate::wechat::transport::{Lost, Method, Request, Response};
pub use crate::wechat::{HttpTransport, ResponseFuture, Transport};

/// [`Fleet::start`] in the given environment.
///
/// # Errors
/// Those of [`Fleet::start`].
pub async fn start_on(config: Config, on: Environment) -> Result<Fleet, StartError> {
    Fleet::start_on(config, on).await
}

/// The time by the fleet's clock.
#[must_use]
pub fn now(fleet: &Fleet) -> Moment {
    fleet.now()
}

/// The token of an account, if one may be served now.
#[must_use]
pub fn token_at_once(fleet: &Fleet, appid: &str) -> Option<Token> {
    fleet.token_at_once(appid)
}

/// The same for an SDK that takes us for WeChat, which may be a hint that the token is dead.
#[must_use]
pub fn ask(fleet: &Fleet, appid: &str) -> Option<Token> {
    let token = fleet.token_at_once(appid)?;
    let asker = Asker { client: Some("sdk"), address: None, user_agent: b"" };
    fleet.note_ask(appid, &asker, &token);
    Some(token)
}

/// The state of an account.
#[must_use]
pub fn state_of(fleet: &Fleet, appid: &str) -> Option<AccountState> {
    Some(fleet.snapshot(appid)?.state.clone())
}

/// The state of each account, in the order of their appids.
#[must_use]
pub fn states(fleet: &Fleet) -> Vec<AccountState> {
    fleet.cells().iter().map(|cell| cell.load().state.clone()).collect()
}

/// The states of an account's tickets.
#[must_use]
pub fn tickets_of(fleet: &Fleet, appid: &Appid) -> Vec<(wxtokend_core::ticket::TicketKind, TicketState)> {
    let Some(cell) = fleet.cell_of(appid) else { return Vec::new() };
    cell.tickets().map(|ticket| (ticket.kind, TicketState::clone(&ticket.load()))).collect()
}

/// Makes the actor of an account panic in a handler; returns whether it has one.
#[must_use]
pub fn crash(fleet: &Fleet, appid: &Appid) -> bool {
    let Some(actor) = fleet.cell_of(appid).and_then(|cell| cell.mailbox()) else { return false };
    // If it does not receive this, it has crashed already.
    let _ = actor.tell(crate::fleet::Notice::Crash);
    true
}

/// Calls that are passed on: what of them decides, for the fuzzers.
#[cfg(feature = "axum")]
pub mod proxy {
    use crate::daemon::http::proxy;

    /// Whether a path is passed on for those who may call any.
    #[must_use]
    pub fn is_passable(path: &str) -> bool {
        proxy::target::is_passable(path)
    }

    /// A query without its parameters of this name.
    #[must_use]
    pub fn without(query: &str, name: &str) -> String {
        proxy::target::take_out(query, name).rest
    }

    /// Whether an answer refuses the token. `encoding` is its `Content-Encoding`.
    #[must_use]
    pub fn refuses_token(body: &[u8], encoding: Option<&str>, is_whole: bool) -> bool {
        proxy::answer::refuses_token(body, encoding, is_whole)
    }
}
