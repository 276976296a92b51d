//! The global limits: calls in flight and calls per second, for all accounts together.
//!
//! Whoever may go next is the one whose token ends first, so that a queue after an outage or at a cold start is
//! worked off in the order of need.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use metrics::gauge;
use tokio::sync::{Notify, oneshot};
use tokio::task::AbortHandle;
use tokio::time::{Instant, sleep_until};

/// What timers cannot pace more finely is caught up with, up to this much.
const CATCH_UP: Duration = Duration::from_millis(10);

/// Lets calls through, the most urgent first.
pub struct Gate {
    queue: Arc<Queue>,
    turnstile: AbortHandle,
}

/// The right to one call. Dropping it makes room for the next.
pub struct Permit {
    queue: Arc<Queue>,
}

struct Queue {
    state: Mutex<State>,
    changed: Notify,
    period: Duration,
}

struct State {
    waiting: BinaryHeap<Reverse<Waiting>>,
    arrivals: u64,
    free: u32,
    next_slot: Instant,
}

struct Waiting {
    urgency_ms: i64,
    arrival: u64,
    admit: oneshot::Sender<Permit>,
}

impl Gate {
    /// A gate for `max_in_flight` calls at once and `max_per_second` starts a second; both at least 1. Needs a
    /// runtime.
    #[must_use]
    pub fn new(max_in_flight: u32, max_per_second: u32) -> Self {
        let state = State {
            waiting: BinaryHeap::new(),
            arrivals: 0,
            free: max_in_flight.max(1),
            next_slot: Instant::now(),
        };
        let queue = Arc::new(Queue {
            state: Mutex::new(state),
            changed: Notify::new(),
            period: Duration::from_secs(1) / max_per_second.max(1),
        });
        let turnstile = tokio::spawn(admit_in_turn(Arc::clone(&queue))).abort_handle();
        Self { queue, turnstile }
    }

    /// Waits for a turn. Less `urgency_ms` goes first; equals go in the order of arrival.
    pub async fn admit(&self, urgency_ms: i64) -> Permit {
        let (admit, admitted) = oneshot::channel();
        {
            let mut state = self.queue.lock();
            let arrival = state.arrivals;
            state.arrivals += 1;
            state.waiting.push(Reverse(Waiting { urgency_ms, arrival, admit }));
        }
        self.queue.changed.notify_one();
        match admitted.await {
            Ok(permit) => permit,
            // The turnstile ends with the gate only, which `self` keeps alive.
            Err(_) => std::future::pending().await,
        }
    }
}

impl Drop for Gate {
    fn drop(&mut self) {
        self.turnstile.abort();
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        self.queue.lock().free += 1;
        gauge!("wxtokend_upstream_in_flight").decrement(1.0);
        self.queue.changed.notify_one();
    }
}

impl Queue {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The next to go, if there is one and room for it.
    fn next(&self) -> Option<Waiting> {
        let mut state = self.lock();
        while state.free > 0 {
            let Reverse(next) = state.waiting.pop()?;
            if next.admit.is_closed() {
                continue;
            }
            state.free -= 1;
            state.next_slot = state.next_slot.max(Instant::now() - CATCH_UP) + self.period;
            return Some(next);
        }
        None
    }
}

async fn admit_in_turn(queue: Arc<Queue>) {
    loop {
        // Waiting before choosing: who comes meanwhile and is more urgent goes first.
        let slot = queue.lock().next_slot;
        sleep_until(slot).await;
        match queue.next() {
            Some(next) => {
                gauge!("wxtokend_upstream_in_flight").increment(1.0);
                // If the caller has just given up, the permit comes back by being dropped.
                let _ = next.admit.send(Permit { queue: Arc::clone(&queue) });
            }
            None => queue.changed.notified().await,
        }
    }
}

impl PartialEq for Waiting {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other).is_eq()
    }
}
impl Eq for Waiting {}
impl PartialOrd for Waiting {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}
impl Ord for Waiting {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        (self.urgency_ms, self.arrival).cmp(&(other.urgency_ms, other.arrival))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn calls_start_no_faster_than_allowed() {
        let gate = Gate::new(1000, 100);
        let start = Instant::now();
        for _ in 0..200 {
            drop(gate.admit(0).await);
        }
        let took = start.elapsed();
        assert!((Duration::from_millis(1970)..Duration::from_millis(2100)).contains(&took), "{took:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn no_more_calls_are_in_flight_than_allowed() {
        let gate = Gate::new(2, 1_000_000);
        let (first, _second) = (gate.admit(0).await, gate.admit(0).await);
        let third = gate.admit(0);
        tokio::pin!(third);
        let waited = tokio::time::timeout(Duration::from_secs(60), &mut third).await;
        assert!(waited.is_err());
        drop(first);
        let _permit = third.await;
    }

    #[tokio::test(start_paused = true)]
    async fn the_most_urgent_goes_first_and_equals_in_turn() {
        let gate = Arc::new(Gate::new(1, 100));
        let held = gate.admit(0).await;
        let order = Arc::new(Mutex::new(Vec::new()));
        let mut tasks = tokio::task::JoinSet::new();
        for (name, urgency) in [("c", 30), ("a", 10), ("d", 30), ("b", 20)] {
            let (gate, order) = (Arc::clone(&gate), Arc::clone(&order));
            tasks.spawn(async move {
                let _permit = gate.admit(urgency).await;
                order.lock().unwrap().push(name);
            });
            tokio::task::yield_now().await;
        }
        drop(held);
        while tasks.join_next().await.is_some() {}
        assert_eq!(*order.lock().unwrap(), ["a", "b", "c", "d"]);
    }

    #[tokio::test(start_paused = true)]
    async fn who_gives_up_leaves_the_queue_and_takes_no_place() {
        let gate = Gate::new(1, 100);
        let held = gate.admit(0).await;
        for _ in 0..3 {
            assert!(tokio::time::timeout(Duration::from_millis(5), gate.admit(0)).await.is_err());
        }
        drop(held);
        drop(gate.admit(0).await);
        drop(gate.admit(0).await);
    }
}
