//! Re-checks a request's authorization after every wait.
//!
//! Long polls, reads of a first token, reports, refreshes and slow bodies wait, and a reload may remove,
//! narrow or re-key the client meanwhile. [`Access::while_authorized`] wraps every handler and checks again
//! whenever the handler resumes after a wait, so that no handler has to remember to. A request that is
//! answered without a wait costs nothing extra.

use std::future::poll_fn;
use std::pin::pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::Poll;

use axum::http::Extensions;

use super::app_state::AppState;
use super::problem::ApiProblem;
use super::rights::{Permission, Rights};

/// What one request has been authorized for. Clones share the state.
#[derive(Clone, Default)]
pub(super) struct Access(Arc<Mutex<Granted>>);

#[derive(Default)]
struct Granted {
    /// The caller's rights when it was let in; `None` until a key has been checked.
    rights: Option<Rights>,
    needs: Vec<Need>,
}

/// A permission that the request relies on.
pub(super) enum Need {
    Permission(Permission),
    Account(String, Permission),
    Page(String),
    Path(String),
}

impl Access {
    /// The access of the request with these extensions.
    pub(super) fn of(extensions: &Extensions) -> Self {
        extensions.get().cloned().unwrap_or_default()
    }

    pub(super) fn authorize(&self, rights: &Rights) {
        self.granted().rights = Some(rights.clone());
    }

    pub(super) fn note(&self, need: Need) {
        self.granted().needs.push(need);
    }

    /// Resolves to the output of `answer`, unless the caller loses its access while `answer` waits.
    ///
    /// Access is checked again each time `answer` resumes after a wait, once more when it completes after a
    /// wait, and as soon as the list of clients is replaced.
    ///
    /// # Errors
    /// The refusal that the request would get now.
    pub(super) async fn while_authorized<T>(
        &self,
        app: &AppState,
        answer: impl Future<Output = T>,
    ) -> Result<T, ApiProblem> {
        let mut answer = pin!(answer);
        let mut exchanged = pin!(app.clients.exchanged());
        let mut has_waited = false;
        poll_fn(|cx| {
            loop {
                if has_waited {
                    self.recheck(app)?;
                }
                if let Poll::Ready(answer) = answer.as_mut().poll(cx) {
                    if has_waited {
                        self.recheck(app)?;
                    }
                    return Poll::Ready(Ok(answer));
                }
                has_waited = true;
                if exchanged.as_mut().poll(cx).is_pending() {
                    return Poll::Pending;
                }
                exchanged.set(app.clients.exchanged());
            }
        })
        .await
    }

    fn recheck(&self, app: &AppState) -> Result<(), ApiProblem> {
        let granted = self.granted();
        let Some(rights) = &granted.rights else { return Ok(()) };
        let rights = app.clients.recheck(rights)?;
        granted.needs.iter().try_for_each(|need| match need {
            Need::Permission(permission) => rights.require(*permission),
            Need::Account(appid, permission) => rights.require_account(appid, &app.fleet, *permission),
            Need::Page(url) => rights.require_signable(url),
            Need::Path(path) => rights.require_path(path),
        })
    }

    fn granted(&self) -> MutexGuard<'_, Granted> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
