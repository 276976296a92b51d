//! What an actor waits for apart from its mailbox: an alarm, a turn in the call queue, a call's end.
//!
//! The actor awaits it itself, in [`Actor::next`], instead of receiving a message: a mailbox that has held 32
//! messages takes 3 KiB more from then on, a quarter of an account's memory.

use std::pin::Pin;
use std::time::Duration;

use kameo::mailbox::{MailboxReceiver, Signal};
use kameo::prelude::*;
use tokio::time::{sleep, timeout};
use wxtokend_core::fault::Fault;

use crate::wechat::Permit;

/// What has become ready. `E` is how this actor's kind of call ends.
pub(crate) enum Due<E> {
    /// It is time to check the clock and the hosts, and to do what is due.
    Recheck,
    /// The global limits admit a call, or the host is down.
    Admitted(Result<Permit, Fault>),
    /// The call in flight has ended.
    Ended(E),
}

/// At most one future to wait for. A new one replaces it, and dropping it cancels it.
pub(crate) struct Pending<E>(Option<Pin<Box<dyn Future<Output = Due<E>> + Send>>>);

impl<E> Pending<E> {
    /// Waits for nothing.
    pub(crate) fn nothing() -> Self {
        Self(None)
    }

    pub(crate) fn on(what: impl Future<Output = Due<E>> + Send + 'static) -> Self {
        Self(Some(Box::pin(what)))
    }

    /// Waits for the future and returns its output once; waits forever where there is none. Cancel safe.
    async fn ready(&mut self) -> Due<E> {
        let Some(what) = &mut self.0 else { return std::future::pending().await };
        let due = what.await;
        self.0 = None;
        due
    }
}

/// An actor that waits for something apart from its mailbox.
pub(crate) trait PendingHandler: Actor {
    type End: Send;

    fn pending(&mut self) -> &mut Pending<Self::End>;

    async fn take_in(&mut self, due: Due<Self::End>);
}

/// Returns the next message. What has become ready is handled before any message, so that an actor that is
/// asked to stop first takes in the end of its call.
pub(crate) async fn next<A: PendingHandler>(
    actor: &mut A,
    mailbox: &mut MailboxReceiver<A>,
) -> Option<Signal<A>> {
    loop {
        let due = tokio::select! {
            biased;
            due = actor.pending().ready() => due,
            signal = mailbox.recv() => return signal,
        };
        // Boxed: an actor's task reserves this space for its whole life and needs it only briefly.
        Box::pin(actor.take_in(due)).await;
    }
}

/// Fires after `wait`; where the host caused the failure, also when the host recovers.
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

/// Whichever of the two is ready first; the other is cancelled.
pub(crate) fn either<E: Send + 'static>(mut one: Pending<E>, mut other: Pending<E>) -> Pending<E> {
    Pending::on(async move {
        tokio::select! {
            biased;
            due = one.ready() => due,
            due = other.ready() => due,
        }
    })
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use kameo::error::Infallible;

    use super::*;

    /// Records what it handles, and panics where the end of the call says so.
    struct Recorder {
        pending: Pending<bool>,
        notes: Arc<Mutex<Vec<&'static str>>>,
    }

    struct TestMessage;

    impl Actor for Recorder {
        type Args = Self;
        type Error = Infallible;

        async fn on_start(recorder: Self, _: ActorRef<Self>) -> Result<Self, Infallible> {
            Ok(recorder)
        }

        async fn next(
            &mut self,
            _: WeakActorRef<Self>,
            mailbox: &mut MailboxReceiver<Self>,
        ) -> Result<Option<Signal<Self>>, Infallible> {
            Ok(next(self, mailbox).await)
        }
    }

    impl Message<TestMessage> for Recorder {
        type Reply = ();
        async fn handle(&mut self, _: TestMessage, _: &mut Context<Self, ()>) {
            self.notes.lock().unwrap().push("told");
        }
    }

    impl PendingHandler for Recorder {
        type End = bool;

        fn pending(&mut self) -> &mut Pending<bool> {
            &mut self.pending
        }

        async fn take_in(&mut self, due: Due<bool>) {
            let note = match due {
                Due::Recheck => "woken",
                Due::Ended(succeeds) => {
                    assert!(succeeds, "asked to");
                    "ended"
                }
                Due::Admitted(_) => "admitted",
            };
            self.notes.lock().unwrap().push(note);
        }
    }

    /// Runs a recorder that waits for `pending` and receives a message and a stop before that is ready.
    /// Returns its notes and whether it crashed.
    async fn notes_of_recorder(pending: Pending<bool>) -> (Vec<&'static str>, bool) {
        let notes = Arc::default();
        let recorder = Recorder::spawn(Recorder { pending, notes: Arc::clone(&notes) });
        let _ = recorder.tell(TestMessage).try_send();
        let _ = recorder.stop_gracefully().await;
        recorder.wait_for_shutdown().await;
        let crashed =
            recorder.with_shutdown_result(|result| !result.is_ok_and(ActorStopReason::is_normal)).unwrap();
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
            assert_eq!(notes_of_recorder(pending).await, (notes, false));
        }
    }

    #[tokio::test]
    async fn a_panic_over_what_has_come_is_a_crash_of_the_actor() {
        assert_eq!(notes_of_recorder(Pending::on(async { Due::Ended(false) })).await, (vec![], true));
    }

    #[tokio::test(start_paused = true)]
    async fn an_alarm_rings_by_time_while_the_host_is_away() {
        let mut away = alarm::<()>(Some(Duration::from_secs(1)), Some(std::future::pending()));
        assert!(matches!(away.ready().await, Due::Recheck));
        // It has fired: nothing more becomes ready.
        assert!(timeout(Duration::from_secs(9), away.ready()).await.is_err());
    }
}
