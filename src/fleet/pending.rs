//! A task that ends with whoever holds it.

use std::time::Duration;

use kameo::prelude::*;
use tokio::task::JoinHandle;
use tokio::time::sleep;

use super::messages::{HostIsBack, Wake};

/// A wake-up or a place in a queue. Dropped, it is cancelled.
pub(super) struct Pending(JoinHandle<()>);

impl Pending {
    pub(super) fn spawn(task: impl Future<Output = ()> + Send + 'static) -> Self {
        Self(tokio::spawn(task))
    }
}

/// Wakes an actor after `wait`, and, where the host is to blame for its trouble, when that is back.
pub(super) fn alarm<A>(
    me: ActorRef<A>,
    wait: Option<Duration>,
    recovery: Option<impl Future<Output = ()> + Send + 'static>,
) -> Pending
where
    A: Message<Wake> + Message<HostIsBack>,
{
    if let (Some(wait), None) = (wait, &recovery) {
        // Nearly all alarms are of this kind, one for each account: what they take is most of an account's share.
        return Pending::spawn(async move {
            sleep(wait).await;
            // A stopped actor needs no waking, and no mailbox is ever full.
            let _ = me.tell(Wake).try_send();
        });
    }
    Pending::spawn(async move {
        let time = async {
            match wait {
                Some(wait) => sleep(wait).await,
                None => std::future::pending().await,
            }
        };
        let recovery = async {
            match recovery {
                Some(recovery) => recovery.await,
                None => std::future::pending().await,
            }
        };
        // A stopped actor needs no waking.
        tokio::select! {
            () = time => { let _ = me.tell(Wake).await; }
            () = recovery => { let _ = me.tell(HostIsBack).await; }
        }
    })
}

impl Drop for Pending {
    fn drop(&mut self) {
        self.0.abort();
    }
}
