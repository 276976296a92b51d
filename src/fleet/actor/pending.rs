//! EventKind an actor waits for beside its mailbox: an alarm, a turn at the gate, the end of a call.
//!
//! The actor awaits that itself, in [`Actor::next`], and is not told of it by message: a mailbox that has had 32 messages
//! takes 3 KiB more from then on, a quarter of what an account takes in all.

use std::pin::Pin;
use std::time::Duration;

use kameo::mailbox::{MailboxReceiver, Signal};
use kameo::prelude::*;
use tokio::time::{sleep, timeout};
use wxtokend_core::fault::Fault;

use crate::wechat::Permit;

/// EventKind was waited for and has come; `E` is the end of the actor's own kind of call.
pub(crate) enum Due<E> {
    /// It is time to look at the clock and the hosts, and to do what is due.
    Recheck,
    /// The global limits let a call through, or the host is down.
    Admitted(Result<Permit, Fault>),
    /// The call under way has ended.
    Ended(E),
}

/// At most one thing to wait for; another takes its place, and what is dropped is cancelled.
pub(crate) struct Pending<E>(Option<Pin<Box<dyn Future<Output = Due<E>> + Send>>>);

impl<E> Pending<E> {
    /// Nothing.
    pub(crate) fn nothing() -> Self {
        Self(None)
    }

    pub(crate) fn on(what: impl Future<Output = Due<E>> + Send + 'static) -> Self {
        Self(Some(Box::pin(what)))
    }

    /// AwaitsPending for it, once; for ever where there is nothing. To be dropped at any time, and called again.
    async fn comes(&mut self) -> Due<E> {
        let Some(what) = &mut self.0 else { return std::future::pending().await };
        let due = what.await;
        self.0 = None;
        due
    }
}

/// An actor that waits for something beside its mailbox.
pub(crate) trait AwaitsPending: Actor {
    type End: Send;

    fn pending(&mut self) -> &mut Pending<Self::End>;

    async fn take_in(&mut self, due: Due<Self::End>);
}

/// The next message. EventKind has come is taken in before any message, so that an actor that is told to stop does so with
/// what has landed.
pub(crate) async fn next<A: AwaitsPending>(
    actor: &mut A,
    mailbox: &mut MailboxReceiver<A>,
) -> Option<Signal<A>> {
    loop {
        let due = tokio::select! {
            biased;
            due = actor.pending().comes() => due,
            signal = mailbox.recv() => return signal,
        };
        // Boxed: an actor's task has room for this all its life, and needs it for a moment.
        Box::pin(actor.take_in(due)).await;
    }
}

/// Wakes after `wait`, and, where the host is to blame for the trouble, when that is back.
pub(crate) fn alarm<E>(
    wait: Option<Duration>,
    recovery: Option<impl Future<Output = ()> + Send + 'static>,
) -> Pending<E> {
    match (wait, recovery) {
        (None, None) => Pending::nothing(),
        // Nearly all alarms are of this kind, one for each account.
        (Some(wait), None) => Pending::on(async move {
            sleep(wait).await;
            Due::Recheck
        }),
        (None, Some(recovery)) => Pending::on(async move {
            recovery.await;
            Due::Recheck
        }),
        (Some(wait), Some(recovery)) => Pending::on(async move {
            let _ = timeout(wait, recovery).await;
            Due::Recheck
        }),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use kameo::error::Infallible;

    use super::*;

    /// Notes what it takes in, and panics over the end of a call that is not to be.
    struct Clerk {
        pending: Pending<bool>,
        notes: Arc<Mutex<Vec<&'static str>>>,
    }

    struct TestMessage;

    impl Actor for Clerk {
        type Args = Self;
        type Error = Infallible;

        async fn on_start(clerk: Self, _: ActorRef<Self>) -> Result<Self, Infallible> {
            Ok(clerk)
        }

        async fn next(
            &mut self,
            _: WeakActorRef<Self>,
            mailbox: &mut MailboxReceiver<Self>,
        ) -> Result<Option<Signal<Self>>, Infallible> {
            Ok(next(self, mailbox).await)
        }
    }

    impl Message<TestMessage> for Clerk {
        type Reply = ();
        async fn handle(&mut self, _: TestMessage, _: &mut Context<Self, ()>) {
            self.notes.lock().unwrap().push("told");
        }
    }

    impl AwaitsPending for Clerk {
        type End = bool;

        fn pending(&mut self) -> &mut Pending<bool> {
            &mut self.pending
        }

        async fn take_in(&mut self, due: Due<bool>) {
            let note = match due {
                Due::Recheck => "woken",
                Due::Ended(is_to_be) => {
                    assert!(is_to_be, "asked to");
                    "ended"
                }
                Due::Admitted(_) => "admitted",
            };
            self.notes.lock().unwrap().push(note);
        }
    }

    /// EventKind a clerk notes that waits for `pending` and is told something and to stop before it has come to anything,
    /// and whether it crashed.
    async fn notes_of(pending: Pending<bool>) -> (Vec<&'static str>, bool) {
        let notes = Arc::default();
        let clerk = Clerk::spawn(Clerk { pending, notes: Arc::clone(&notes) });
        let _ = clerk.tell(TestMessage).try_send();
        let _ = clerk.stop_gracefully().await;
        clerk.wait_for_shutdown().await;
        let crashed =
            clerk.with_shutdown_result(|result| !result.is_ok_and(ActorStopReason::is_normal)).unwrap();
        let notes = notes.lock().unwrap().clone();
        (notes, crashed)
    }

    #[tokio::test(start_paused = true)]
    async fn what_has_come_is_taken_in_once_and_before_any_message() {
        for (pending, notes) in [
            (Pending::nothing(), vec!["told"]),
            (Pending::on(async { Due::Ended(true) }), vec!["ended", "told"]),
            (alarm(Some(Duration::from_secs(1)), None::<std::future::Ready<()>>), vec!["told"]),
            (alarm(None, Some(async {})), vec!["woken", "told"]),
            (alarm(Some(Duration::from_secs(1)), Some(async {})), vec!["woken", "told"]),
        ] {
            assert_eq!(notes_of(pending).await, (notes, false));
        }
    }

    #[tokio::test]
    async fn a_panic_over_what_has_come_is_a_crash_of_the_actor() {
        assert_eq!(notes_of(Pending::on(async { Due::Ended(false) })).await, (vec![], true));
    }

    #[tokio::test(start_paused = true)]
    async fn an_alarm_rings_by_time_while_the_host_is_away() {
        let mut away = alarm::<()>(Some(Duration::from_secs(1)), Some(std::future::pending()));
        assert!(matches!(away.comes().await, Due::Recheck));
        // It has rung: there is nothing more to come.
        assert!(timeout(Duration::from_secs(9), away.comes()).await.is_err());
    }
}
