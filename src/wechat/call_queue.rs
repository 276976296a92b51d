//! The global limits: calls in flight and calls per second, for all accounts together.
//!
//! The call whose token ends first goes next, so that a queue after an outage or at a cold start is worked
//! off in the order of need. A few more than may be in flight are admitted: what they must write to disk
//! before they call is there by the time a slot is free.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use metrics::gauge;
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore, oneshot};
use tokio::task::AbortHandle;
use tokio::time::{Instant, sleep_until};
use wxtokend_core::reference::metrics::UPSTREAM_IN_FLIGHT;

/// The urgency of a check that nobody asked for. It goes behind everything else, and such checks take at most a
/// quarter of the calls per second and of those in flight.
pub(crate) const UNASKED: i64 = i64::MAX;
/// The share of the limits for checks that nobody asked for, as a divisor.
const UNASKED_SHARE: u32 = 4;

/// How much lost time is caught up with, since timers cannot pace more finely.
const CATCH_UP: Duration = Duration::from_millis(10);
/// As many calls are admitted early as may start within this time, which is longer than most disks take.
const ADMITTED_AHEAD: Duration = Duration::from_millis(10);

/// Admits calls, the most urgent first.
pub(super) struct CallQueue {
    queue: Arc<QueueShared>,
    admission: AbortHandle,
}

/// The right to prepare one call and, with a slot, to make it. Dropping it admits the next.
pub(crate) struct Permit {
    queue: Arc<QueueShared>,
    in_flight: Option<OwnedSemaphorePermit>,
    others_waiting: usize,
    is_unasked: bool,
}

struct QueueShared {
    state: Mutex<QueueState>,
    changed: Notify,
    period: Duration,
    slots: Arc<Semaphore>,
}

struct QueueState {
    waiting: BinaryHeap<Reverse<QueuedCall>>,
    arrivals: u64,
    /// How many more calls may be admitted.
    free: u32,
    /// How many of these may be checks that nobody asked for.
    free_unasked: u32,
    next_slot: Instant,
    next_unasked: Instant,
}

/// What is to be admitted next.
enum NextCall {
    /// This call, while so many others wait.
    Now(QueuedCall, usize),
    /// A call, but not before this instant.
    Later(Instant),
    /// None waits, or none may be admitted.
    None,
}

struct QueuedCall {
    urgency_ms: i64,
    arrival: u64,
    admit: oneshot::Sender<Permit>,
}

impl CallQueue {
    /// A queue for `max_in_flight` concurrent calls and `max_per_second` starts a second, both at least 1.
    /// Needs a runtime.
    #[must_use]
    pub(super) fn new(max_in_flight: u32, max_per_second: u32) -> Self {
        let (max_in_flight, period) = (max_in_flight.max(1), Duration::from_secs(1) / max_per_second.max(1));
        let ahead = ADMITTED_AHEAD.div_duration_f64(period.max(Duration::from_nanos(1))) as u32;
        let state = QueueState {
            waiting: BinaryHeap::new(),
            arrivals: 0,
            free: max_in_flight.saturating_add(ahead.clamp(1, max_in_flight)),
            free_unasked: max_in_flight.div_ceil(UNASKED_SHARE),
            next_slot: Instant::now(),
            next_unasked: Instant::now(),
        };
        let room = usize::try_from(max_in_flight).unwrap_or(usize::MAX).min(Semaphore::MAX_PERMITS);
        let queue = Arc::new(QueueShared {
            state: Mutex::new(state),
            changed: Notify::new(),
            period,
            slots: Arc::new(Semaphore::new(room)),
        });
        let admission = tokio::spawn(admit_in_turn(Arc::clone(&queue))).abort_handle();
        Self { queue, admission }
    }

    /// Waits for a permit. Smaller `urgency_ms` goes first; equals go in the order of arrival.
    pub(super) async fn admit(&self, urgency_ms: i64) -> Permit {
        let (admit, admitted) = oneshot::channel();
        {
            let mut state = self.queue.lock();
            let arrival = state.arrivals;
            state.arrivals += 1;
            state.waiting.push(Reverse(QueuedCall { urgency_ms, arrival, admit }));
        }
        self.queue.changed.notify_one();
        match admitted.await {
            Ok(permit) => permit,
            // The admission task ends only with the queue, which `self` keeps alive.
            Err(_) => std::future::pending().await,
        }
    }
}

impl Drop for CallQueue {
    fn drop(&mut self) {
        self.admission.abort();
    }
}

impl Permit {
    /// How many others were waiting when the permit was given.
    #[must_use]
    pub(crate) fn others_waiting(&self) -> usize {
        self.others_waiting
    }

    /// Whether it holds a concurrency slot.
    #[must_use]
    pub(crate) fn is_in_flight(&self) -> bool {
        self.in_flight.is_some()
    }

    /// Waits for a concurrency slot, unless the permit has one.
    pub(crate) async fn acquire_slot(&mut self) {
        if self.in_flight.is_none() {
            // An error means that the semaphore is closed, which never happens.
            self.in_flight = Arc::clone(&self.queue.slots).acquire_owned().await.ok();
            gauge!(UPSTREAM_IN_FLIGHT.name).increment(1.0);
        }
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        if let Some(room) = self.in_flight.take() {
            gauge!(UPSTREAM_IN_FLIGHT.name).decrement(1.0);
            drop(room);
        }
        let mut state = self.queue.lock();
        state.free += 1;
        state.free_unasked += u32::from(self.is_unasked);
        drop(state);
        self.queue.changed.notify_one();
    }
}

impl QueueShared {
    fn lock(&self) -> MutexGuard<'_, QueueState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The next call, if there is one and it may be admitted.
    fn next(&self) -> NextCall {
        let mut state = self.lock();
        while state.free > 0 {
            let Some(Reverse(next)) = state.waiting.peek() else { return NextCall::None };
            let (is_unasked, now) = (next.urgency_ms == UNASKED, Instant::now());
            // Only such checks are left, since everything else goes first.
            if is_unasked && !next.admit.is_closed() {
                if state.free_unasked == 0 {
                    return NextCall::None;
                }
                if state.next_unasked > now {
                    return NextCall::Later(state.next_unasked);
                }
            }
            let Some(Reverse(next)) = state.waiting.pop() else { return NextCall::None };
            if next.admit.is_closed() {
                continue;
            }
            state.free -= 1;
            state.next_slot = state.next_slot.max(now - CATCH_UP) + self.period;
            if is_unasked {
                state.free_unasked -= 1;
                state.next_unasked = state.next_unasked.max(now - CATCH_UP) + self.period * UNASKED_SHARE;
            }
            let others_waiting = state.waiting.len();
            return NextCall::Now(next, others_waiting);
        }
        NextCall::None
    }
}

async fn admit_in_turn(queue: Arc<QueueShared>) {
    loop {
        // Paced before choosing, so that a more urgent call that arrives meanwhile goes first.
        let slot = queue.lock().next_slot;
        sleep_until(slot).await;
        match queue.next() {
            NextCall::Now(next, others_waiting) => {
                let is_unasked = next.urgency_ms == UNASKED;
                let permit =
                    Permit { queue: Arc::clone(&queue), in_flight: None, others_waiting, is_unasked };
                // If the caller has just given up, dropping the permit returns it.
                let _ = next.admit.send(permit);
            }
            NextCall::Later(at) => {
                tokio::select! {
                    () = sleep_until(at) => {}
                    () = queue.changed.notified() => {}
                }
            }
            NextCall::None => queue.changed.notified().await,
        }
    }
}

impl PartialEq for QueuedCall {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other).is_eq()
    }
}
impl Eq for QueuedCall {}
impl PartialOrd for QueuedCall {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}
impl Ord for QueuedCall {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        (self.urgency_ms, self.arrival).cmp(&(other.urgency_ms, other.arrival))
    }
}

#[cfg(test)]
mod tests {
    use tokio::time::timeout;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn calls_start_no_faster_than_allowed() {
        let queue = CallQueue::new(1000, 100);
        let start = Instant::now();
        for _ in 0..200 {
            drop(queue.admit(0).await);
        }
        let took = start.elapsed();
        assert!((Duration::from_millis(1970)..Duration::from_millis(2100)).contains(&took), "{took:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn no_more_calls_are_in_flight_than_allowed() {
        let queue = CallQueue::new(2, 1_000_000);
        let admit = async || timeout(Duration::from_secs(60), queue.admit(0)).await.unwrap();
        let (mut first, mut second, mut third) = (admit().await, admit().await, admit().await);
        first.acquire_slot().await;
        second.acquire_slot().await;
        {
            let third = third.acquire_slot();
            tokio::pin!(third);
            assert!(timeout(Duration::from_secs(60), &mut third).await.is_err());
            drop(first);
            third.await;
        }
        // It already holds one of the two slots.
        third.acquire_slot().await;
    }

    #[tokio::test(start_paused = true)]
    async fn so_many_get_ready_ahead_as_may_start_within_10_ms_and_as_may_be_in_flight() {
        for (max_in_flight, max_per_second, ahead) in
            [(64, 1_000, 10), (64, 1_000_000, 64), (64, 1, 1), (1, 100, 1)]
        {
            let queue = CallQueue::new(max_in_flight, max_per_second);
            let mut ready = Vec::new();
            for _ in 0..max_in_flight + ahead {
                ready.push(timeout(Duration::from_secs(60), queue.admit(0)).await.unwrap());
            }
            assert!(timeout(Duration::from_secs(60), queue.admit(0)).await.is_err(), "{max_per_second}");
            drop(ready.pop());
            drop(queue.admit(0).await);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn the_most_urgent_goes_first_and_equals_in_turn() {
        let queue = Arc::new(CallQueue::new(1, 100));
        let held = (queue.admit(0).await, queue.admit(0).await);
        let order = Arc::new(Mutex::new(Vec::new()));
        let mut tasks = tokio::task::JoinSet::new();
        for (name, urgency) in [("c", 30), ("a", 10), ("d", 30), ("b", 20)] {
            let (queue, order) = (Arc::clone(&queue), Arc::clone(&order));
            tasks.spawn(async move {
                let _permit = queue.admit(urgency).await;
                order.lock().unwrap().push(name);
            });
            tokio::task::yield_now().await;
        }
        drop(held);
        while tasks.join_next().await.is_some() {}
        assert_eq!(*order.lock().unwrap(), ["a", "b", "c", "d"]);
    }

    #[tokio::test(start_paused = true)]
    async fn checks_that_nobody_asked_for_go_last_and_take_a_quarter() {
        let queue = CallQueue::new(8, 100);
        let start = Instant::now();
        for _ in 0..50 {
            drop(queue.admit(UNASKED).await);
        }
        let took = start.elapsed();
        assert!((Duration::from_millis(1940)..Duration::from_millis(2100)).contains(&took), "{took:?}");
        // Whatever of them is waiting or in flight, another call goes first, and at once.
        let (mut held, mut waiting) = (Vec::new(), tokio::task::JoinSet::new());
        let queue = Arc::new(queue);
        for _ in 0..2 {
            held.push(timeout(Duration::from_secs(60), queue.admit(UNASKED)).await.unwrap());
        }
        let again = Arc::clone(&queue);
        waiting.spawn(async move { drop(again.admit(UNASKED).await) });
        assert!(timeout(Duration::from_secs(60), waiting.join_next()).await.is_err(), "two of eight");
        let start = Instant::now();
        drop(timeout(Duration::from_secs(60), queue.admit(i64::MAX - 1)).await.unwrap());
        assert!(start.elapsed() <= Duration::from_millis(20), "{:?}", start.elapsed());
        held.pop();
        waiting.join_next().await.unwrap().unwrap();
    }

    #[tokio::test(start_paused = true)]
    async fn a_call_that_gives_up_leaves_the_queue_and_takes_no_permit() {
        let queue = CallQueue::new(1, 100);
        let held = (queue.admit(0).await, queue.admit(0).await);
        for _ in 0..3 {
            assert!(timeout(Duration::from_millis(5), queue.admit(0)).await.is_err());
        }
        drop(held);
        drop(queue.admit(0).await);
        drop(queue.admit(0).await);
    }
}
