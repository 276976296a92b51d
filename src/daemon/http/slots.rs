//! Allocation of connection slots, and delays for clients that guess keys.
//!
//! Anybody can open connections and say nothing on them, or begin a request and never end it. So most slots
//! are for clients that have shown a key. Other connections are closed when newcomers need room: the oldest
//! first, and those of an address above its share before any others. So a health check or a client with a key
//! always gets through. A load balancer is one address, and shows keys.

use std::collections::{BTreeMap, HashMap};
use std::net::{IpAddr, Ipv6Addr};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, timeout};

use super::connection::{Connection, PendingIo};

/// Time that a newcomer has to send a request before it may be evicted.
const NEWCOMER_GRACE: Duration = Duration::from_millis(500);
/// How often the listener looks for a connection to evict while all slots are taken.
const EVICTION_INTERVAL: Duration = Duration::from_millis(100);
/// Wrong keys that an address may show at once. After that one key per interval is checked.
const GUESSES_AT_ONCE: u32 = 20;
const GUESS_INTERVAL: Duration = Duration::from_millis(250);
/// The intervals of that many guesses together.
const FREE_GUESSES_TIME: Duration = GUESS_INTERVAL.saturating_mul(GUESSES_AT_ONCE);
/// The longest that a key waits to be checked.
pub(super) const LONGEST_DELAY: Duration = Duration::from_secs(5);
/// An address that has shown a right key within this time is not treated as guessing: it may be a load
/// balancer or an office.
const TRUSTED_FOR: Duration = Duration::from_secs(600);
/// Addresses without a connection are forgotten when there are more than this.
const MAX_ADDRESSES: usize = 4096;

/// The connection slots of a listener.
pub(super) struct Slots {
    permits: Arc<Semaphore>,
    max: usize,
    /// Limits for connections that have shown no key: for all of them, and for those of one address.
    max_unproven: usize,
    max_per_address: usize,
    /// Whether any wrong key has ever been shown. Until then a read skips the lookup.
    has_seen_wrong_key: AtomicBool,
    state: Mutex<SlotTable>,
}

#[derive(Default)]
struct SlotTable {
    next: u64,
    /// By arrival.
    unproven: BTreeMap<u64, Unproven>,
    proven: usize,
    addresses: HashMap<IpAddr, AddressUse>,
}

/// A connection that has shown no key and has not been evicted.
struct Unproven {
    address: IpAddr,
    since: Instant,
    connection: Arc<Connection>,
}

#[derive(Default)]
struct AddressUse {
    unproven: usize,
    proven: usize,
    /// When a right key was last shown.
    right: Option<Instant>,
    /// When the intervals of all its guesses end.
    guessed_until: Option<Instant>,
}

/// A connection's slot, held until it is dropped.
pub(super) struct ConnectionSlot {
    pub(super) place: SlotId,
    _permit: OwnedSemaphorePermit,
}

/// Identifies a connection of a listener.
#[derive(Clone)]
pub(super) struct SlotId {
    slots: Arc<Slots>,
    id: u64,
    address: IpAddr,
    pub(super) connection: Arc<Connection>,
}

impl Slots {
    /// `max` connections, nearly all of them reserved for clients that show a key.
    pub(super) fn new(max: usize) -> Arc<Self> {
        Self::with_shares(max, max / 8, max / 16)
    }

    /// `max` connections, for a listener that needs no key. No address may have all of them.
    pub(super) fn without_keys(max: usize) -> Arc<Self> {
        Self::with_shares(max, max, max / 2)
    }

    fn with_shares(max: usize, unproven: usize, of_address: usize) -> Arc<Self> {
        Arc::new(Self {
            permits: Arc::new(Semaphore::new(max)),
            max,
            max_unproven: unproven.max(1),
            max_per_address: of_address.max(1),
            has_seen_wrong_key: AtomicBool::new(false),
            state: Mutex::default(),
        })
    }

    /// Waits for a free slot. While there is none, idle connections are evicted.
    pub(super) async fn acquire(&self) -> OwnedSemaphorePermit {
        loop {
            if let Ok(permit) = Arc::clone(&self.permits).try_acquire_owned() {
                return permit;
            }
            let victims = self.state().make_room(self, Instant::now());
            victims.iter().for_each(|connection| connection.evict());
            if let Ok(Ok(permit)) =
                timeout(EVICTION_INTERVAL, Arc::clone(&self.permits).acquire_owned()).await
            {
                return permit;
            }
        }
    }

    /// Registers a connection that `peer` has opened.
    pub(super) fn register(self: &Arc<Self>, permit: OwnedSemaphorePermit, peer: IpAddr) -> ConnectionSlot {
        let (address, now) = (network(peer), Instant::now());
        let mut state = self.state();
        let connection = Arc::<Connection>::default();
        let place =
            SlotId { slots: Arc::clone(self), id: state.next, address, connection: Arc::clone(&connection) };
        state.next += 1;
        let entry = Unproven { address, since: now, connection };
        state.unproven.insert(place.id, entry);
        state.addresses.entry(address).or_default().unproven += 1;
        let mut victims = state.evict_over_share(address, self.max_per_address, now);
        while state.unproven.len() > self.max_unproven {
            let Some(victim) = state.evict_from_heaviest(now) else { break };
            victims.push(victim);
        }
        drop(state);
        victims.iter().for_each(|connection| connection.evict());
        ConnectionSlot { place, _permit: permit }
    }

    /// Whether there is hardly any room for more connections.
    pub(super) fn is_nearly_full(&self) -> bool {
        self.permits.available_permits() < self.max / 8
    }

    fn state(&self) -> MutexGuard<'_, SlotTable> {
        // The counts stay right if a thread panics while it holds the lock.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl SlotTable {
    /// Removes idle connections of `address` above `share`.
    fn evict_over_share(&mut self, address: IpAddr, share: usize, now: Instant) -> Vec<Arc<Connection>> {
        let mut victims = Vec::new();
        while self.addresses.get(&address).is_some_and(|address| address.unproven > share) {
            let Some(victim) = self.evict_oldest(now, |one, _| one == address) else { break };
            victims.push(victim);
        }
        victims
    }

    /// Removes connections above the shares of all addresses. If there are none, removes some of the
    /// addresses that have the most.
    fn make_room(&mut self, slots: &Slots, now: Instant) -> Vec<Arc<Connection>> {
        let share = slots.max_per_address;
        let over = self.addresses.iter().filter(|(_, address)| address.unproven > share);
        let over: Vec<_> = over.map(|(address, _)| *address).collect();
        let mut victims: Vec<_> =
            over.into_iter().flat_map(|address| self.evict_over_share(address, share, now)).collect();
        if victims.is_empty() {
            let some = 1 + slots.max / 32;
            victims.extend((0..some).map_while(|_| self.evict_from_heaviest(now)));
        }
        victims
    }

    /// Removes the oldest connection of an address that has as many as any.
    fn evict_from_heaviest(&mut self, now: Instant) -> Option<Arc<Connection>> {
        let max = self.addresses.values().map(|address| address.unproven).max()?;
        self.evict_oldest(now, |_, unproven| unproven == max)
    }

    /// Removes the oldest connection that waits for its client to send something; if there is none, the
    /// oldest that waits for its client to receive something. `is_chosen` selects the address, by itself and
    /// by how many connections it has.
    fn evict_oldest(
        &mut self,
        now: Instant,
        is_chosen: impl Fn(IpAddr, usize) -> bool,
    ) -> Option<Arc<Connection>> {
        let addresses = &self.addresses;
        let mut of_age = self
            .unproven
            .iter()
            .take_while(|(_, one)| one.since + NEWCOMER_GRACE <= now)
            .filter(|(_, one)| {
                addresses.get(&one.address).is_some_and(|address| is_chosen(one.address, address.unproven))
            });
        let mut slow = None;
        let found = of_age.find_map(|(id, one)| match one.connection.pending_io() {
            PendingIo::Read => Some(*id),
            PendingIo::Write => {
                slow = slow.or(Some(*id));
                None
            }
            PendingIo::None => None,
        });
        let one = self.unproven.remove(&found.or(slow)?)?;
        if let Some(address) = self.addresses.get_mut(&one.address) {
            address.unproven -= 1;
        }
        Some(one.connection)
    }

    fn forget_old(&mut self, now: Instant) {
        if self.addresses.len() > MAX_ADDRESSES {
            self.addresses.retain(|_, address| address.is_needed(now));
        }
    }
}

impl AddressUse {
    fn is_trusted(&self, now: Instant) -> bool {
        self.proven > 0 || self.right.is_some_and(|right| now < right + TRUSTED_FOR)
    }

    /// When the intervals of all its guesses would end with one more guess now.
    fn with_another_guess(&self, now: Instant) -> Instant {
        self.guessed_until.map_or(now, |until| until.max(now)) + GUESS_INTERVAL
    }

    fn is_needed(&self, now: Instant) -> bool {
        self.unproven > 0 || self.is_trusted(now) || self.guessed_until.is_some_and(|until| now < until)
    }
}

impl SlotId {
    /// Records that a right key was shown on the connection. Returns whether the connection is now proven, so
    /// that it has a reserved slot and is not evicted.
    pub(super) fn prove(&self) -> bool {
        if self.connection.is_proven() {
            return true;
        }
        let mut state = self.slots.state();
        let address = state.addresses.entry(self.address).or_default();
        address.right = Some(Instant::now());
        if state.proven + self.slots.max_unproven.min(self.slots.max / 8) >= self.slots.max
            || state.unproven.remove(&self.id).is_none()
        {
            return false;
        }
        state.proven += 1;
        if let Some(address) = state.addresses.get_mut(&self.address) {
            address.unproven -= 1;
            address.proven += 1;
        }
        drop(state);
        self.connection.set_proven();
        true
    }

    /// Records that a wrong key was shown on the connection.
    pub(super) fn record_guess(&self) {
        let now = Instant::now();
        let mut state = self.slots.state();
        let address = state.addresses.entry(self.address).or_default();
        if !address.is_trusted(now) {
            self.slots.has_seen_wrong_key.store(true, Ordering::Relaxed);
            let until = address.with_another_guess(now);
            address.guessed_until = Some(until.min(now + FREE_GUESSES_TIME + LONGEST_DELAY));
        }
    }

    /// How long a key shown now has to wait before it is checked, given the wrong keys that its address has
    /// shown.
    pub(super) fn key_waits(&self) -> Duration {
        if self.connection.is_proven() || !self.slots.has_seen_wrong_key.load(Ordering::Relaxed) {
            return Duration::ZERO;
        }
        let now = Instant::now();
        let state = self.slots.state();
        let address = state.addresses.get(&self.address).filter(|address| !address.is_trusted(now));
        let delay = address.map_or(Duration::ZERO, |address| address.with_another_guess(now) - now);
        delay.saturating_sub(FREE_GUESSES_TIME).min(LONGEST_DELAY)
    }

    /// The client's address; for IPv6, its network.
    pub(super) fn address(&self) -> IpAddr {
        self.address
    }
}

impl ConnectionSlot {
    /// Whether there is hardly any room for more connections.
    pub(super) fn is_nearly_full(&self) -> bool {
        self.place.slots.is_nearly_full()
    }
}

impl Drop for ConnectionSlot {
    fn drop(&mut self) {
        let now = Instant::now();
        let mut state = self.place.slots.state();
        let is_unproven = state.unproven.remove(&self.place.id).is_some();
        let is_proven = self.place.connection.is_proven();
        if is_proven {
            state.proven -= 1;
        }
        if let Some(address) = state.addresses.get_mut(&self.place.address) {
            address.unproven -= usize::from(is_unproven);
            if is_proven {
                address.proven -= 1;
                address.right = Some(now);
            }
        }
        state.forget_old(now);
    }
}

/// The address to count a peer by. For IPv6 it is the network, since a client with one address has the whole
/// network.
fn network(peer: IpAddr) -> IpAddr {
    match peer.to_canonical() {
        IpAddr::V6(address) => IpAddr::V6(Ipv6Addr::from_bits(address.to_bits() >> 64 << 64)),
        address => address,
    }
}

#[cfg(test)]
mod tests {
    use tokio::time::advance;

    use super::*;

    const ONE: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(10, 0, 0, 1));
    const OTHER: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(10, 0, 0, 2));

    async fn register(slots: &Arc<Slots>, peer: IpAddr) -> ConnectionSlot {
        let slot = slots.register(slots.acquire().await, peer);
        slot.place.connection.set_pending_io(PendingIo::Read);
        slot
    }

    fn ended(slots: &[ConnectionSlot]) -> Vec<bool> {
        slots.iter().map(|slot| slot.place.connection.is_evicted()).collect()
    }

    #[tokio::test(start_paused = true)]
    async fn an_address_without_keys_has_a_share_and_its_oldest_connections_go_first() {
        let slots = Slots::new(64);
        let other = register(&slots, OTHER).await;
        let mut slots_of_one = Vec::new();
        for _ in 0..10 {
            slots_of_one.push(register(&slots, ONE).await);
        }
        assert!(ended(&slots_of_one).iter().all(|ended| !ended), "newcomers have time to say what they want");
        slots_of_one[0].place.connection.set_pending_io(PendingIo::None);
        slots_of_one[1].place.connection.set_pending_io(PendingIo::Write);
        assert!(slots_of_one[2].place.prove() && !slots_of_one[2].place.connection.is_evicted());
        advance(NEWCOMER_GRACE).await;
        slots_of_one.push(register(&slots, ONE).await);
        let gone = [false, false, false, true, true, true, true, true, true, false, false];
        assert_eq!(
            ended(&slots_of_one),
            gone,
            "four are left: who is being answered, who takes in slowly, and two"
        );
        advance(NEWCOMER_GRACE).await;
        slots_of_one.push(register(&slots, ONE).await);
        slots_of_one.push(register(&slots, ONE).await);
        slots_of_one.push(register(&slots, ONE).await);
        assert!(
            slots_of_one[1].place.connection.is_evicted() && !slots_of_one[0].place.connection.is_evicted()
        );
        assert!(!other.place.connection.is_evicted(), "it is not the crowd's");
    }

    #[tokio::test(start_paused = true)]
    async fn while_all_are_taken_those_that_only_wait_make_room() {
        let slots = Slots::new(16);
        let mut all = Vec::new();
        for n in 0..14 {
            let slot = register(&slots, ONE).await;
            assert!(slot.place.prove(), "{n}");
            all.push(slot);
        }
        let late = register(&slots, ONE).await;
        assert!(!late.place.prove(), "two are kept for those that have shown no key yet");
        let last = register(&slots, OTHER).await;
        let newcomer = slots.acquire();
        tokio::pin!(newcomer);
        let ended = async {
            while !late.place.connection.is_evicted() {
                tokio::time::sleep(EVICTION_INTERVAL / 10).await;
            }
        };
        tokio::select! {
            _ = &mut newcomer => panic!("there was none"),
            () = ended => {}
        }
        assert!(
            !last.place.connection.is_evicted() && all.iter().all(|slot| !slot.place.connection.is_evicted())
        );
        drop(late);
        drop(newcomer.await);
        drop((all, last));
        let state = slots.state();
        assert_eq!((state.proven, state.unproven.len()), (0, 0));
        assert_eq!(slots.permits.available_permits(), 16);
    }

    #[tokio::test(start_paused = true)]
    async fn a_client_that_only_guesses_keys_is_slowed_and_one_that_shows_right_ones_too_is_not() {
        let slots = Slots::new(64);
        let (guesser, client) = (register(&slots, ONE).await, register(&slots, OTHER).await);
        assert!(client.place.prove());
        let show_wrong_key = |place: &SlotId| {
            let delay = place.key_waits();
            place.record_guess();
            delay
        };
        for n in 0..GUESSES_AT_ONCE {
            assert_eq!(
                show_wrong_key(&guesser.place),
                Duration::ZERO,
                "number {n}: anybody may mistake a key"
            );
        }
        assert_eq!(show_wrong_key(&guesser.place), GUESS_INTERVAL);
        let another = register(&slots, ONE).await;
        assert_eq!(show_wrong_key(&another.place), GUESS_INTERVAL * 2, "by whichever connection");
        for _ in 0..1_000 {
            assert!(show_wrong_key(&guesser.place) <= LONGEST_DELAY);
            assert_eq!(show_wrong_key(&client.place), Duration::ZERO);
        }
        assert_eq!(show_wrong_key(&guesser.place), LONGEST_DELAY);
        let place = client.place.clone();
        drop(client);
        advance(TRUSTED_FOR / 2).await;
        assert_eq!(show_wrong_key(&place), Duration::ZERO, "it was there a moment ago");
        assert_eq!(show_wrong_key(&guesser.place), Duration::ZERO, "it has had a rest");
    }

    #[test]
    fn an_address_of_ipv6_stands_for_its_network() {
        for (peer, network) in [
            ("10.0.0.1", "10.0.0.1"),
            ("::ffff:10.0.0.1", "10.0.0.1"),
            ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::"),
            ("::1", "::"),
        ] {
            assert_eq!(super::network(peer.parse().unwrap()), network.parse::<IpAddr>().unwrap(), "{peer}");
        }
    }
}
