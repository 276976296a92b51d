//! Starts one actor per account, restarts the one that crashes, applies a reload, ends them in order.

use std::collections::{BTreeMap, HashMap};
use std::ops::ControlFlow;
use std::sync::Arc;
use std::time::Duration;

use kameo::error::Infallible;
use kameo::mailbox;
use kameo::prelude::*;
use metrics::counter;
use tokio::time::{Instant, sleep};
use tracing::error;

use super::cell::AccountCell;
use super::messages::{Configure, Wake};
use super::pending::Pending;
use super::shared::{Directory, Shared};
use super::token_actor::TokenActor;
use crate::account::{Account, Appid};

/// The wait before a crashed actor is started again grows from this,
const FIRST_RESTART: Duration = Duration::from_millis(100);
/// to this,
const LAST_RESTART: Duration = Duration::from_secs(30);
/// and starts anew once it has run this long.
const STABLE_AFTER: Duration = Duration::from_secs(300);
/// So many actors are started before other messages have their turn.
const STARTED_AT_ONCE: usize = 500;

/// Owns the actors.
pub(super) struct Supervisor {
    me: ActorRef<Self>,
    shared: Arc<Shared>,
    /// In order, so that whoever acts on all of them does so in the same order each time.
    children: BTreeMap<Appid, Child>,
    by_actor: HashMap<ActorId, Appid>,
}

/// One account's actor, or the wait for its restart.
#[derive(Default)]
struct Child {
    actor: Option<ActorRef<TokenActor>>,
    crashes: u32,
    started: Option<Instant>,
    restart: Option<Pending>,
}

impl Actor for Supervisor {
    type Args = Arc<Shared>;
    type Error = Infallible;

    fn name() -> &'static str {
        "supervisor"
    }

    async fn on_start(shared: Arc<Shared>, me: ActorRef<Self>) -> Result<Self, Infallible> {
        let accounts = shared.directory.load().in_order.clone();
        let _ = me.tell(Start(accounts)).try_send();
        Ok(Self { me, shared, children: BTreeMap::new(), by_actor: HashMap::new() })
    }

    async fn on_link_died(
        &mut self,
        _: WeakActorRef<Self>,
        id: ActorId,
        reason: ActorStopReason,
    ) -> Result<ControlFlow<ActorStopReason>, Infallible> {
        if let Some(appid) = self.by_actor.remove(&id) {
            if reason.is_normal() { drop(self.children.remove(&appid)) } else { self.crashed(appid) }
        }
        Ok(ControlFlow::Continue(()))
    }
}

/// Start the actors of these accounts.
struct Start(Vec<Appid>);
/// Start a crashed actor again.
struct Restart(Appid);
/// Make the fleet consist of these accounts.
pub(super) struct Apply {
    pub(super) accounts: Vec<Arc<Account>>,
    /// The upstream is another one now, whose tokens the stored ones are not.
    pub(super) forget_tokens: bool,
}
/// A clock has jumped, or the machine has slept: everybody looks again.
pub(super) struct WakeAll;

/// What a reload has changed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Applied {
    pub(super) added: usize,
    pub(super) removed: usize,
    pub(super) changed: usize,
}

impl Message<Start> for Supervisor {
    type Reply = ();
    async fn handle(&mut self, Start(mut accounts): Start, _: &mut Context<Self, ()>) {
        let later = accounts.split_off(accounts.len().min(STARTED_AT_ONCE));
        for appid in accounts {
            self.start(appid).await;
        }
        if !later.is_empty() {
            let _ = self.me.tell(Start(later)).try_send();
        }
    }
}

impl Message<Restart> for Supervisor {
    type Reply = ();
    async fn handle(&mut self, Restart(appid): Restart, _: &mut Context<Self, ()>) {
        self.start(appid).await;
    }
}

impl Message<WakeAll> for Supervisor {
    type Reply = ();
    async fn handle(&mut self, _: WakeAll, _: &mut Context<Self, ()>) {
        for actor in self.children.values().filter_map(|child| child.actor.as_ref()) {
            let _ = actor.tell(Wake).await;
        }
    }
}

impl Message<Apply> for Supervisor {
    type Reply = Result<Applied, Infallible>;
    async fn handle(&mut self, new: Apply, _: &mut Context<Self, Self::Reply>) -> Self::Reply {
        let old = self.shared.directory.load_full();
        let mut applied = Applied::default();
        let mut cells = Vec::with_capacity(new.accounts.len());
        let mut added = Vec::new();
        for account in new.accounts {
            let appid = account.appid.clone();
            if let Some(cell) = old.by_appid.get(&appid) {
                let changed = *cell.load().account != *account;
                applied.changed += usize::from(changed);
                if changed || new.forget_tokens {
                    self.configure(&appid, cell, account, new.forget_tokens).await;
                }
                cells.push((appid, Arc::clone(cell)));
            } else {
                cells.push((appid.clone(), self.shared.cell_of_new(account)));
                added.push(appid);
            }
        }
        applied.added = added.len();
        let directory = Directory::new(cells);
        let gone: Vec<_> =
            old.in_order.iter().filter(|appid| !directory.by_appid.contains_key(*appid)).cloned().collect();
        applied.removed = gone.len();
        self.shared.directory.store(Arc::new(directory));
        self.remove(gone.into_iter().filter_map(|appid| old.by_appid.get_key_value(&appid)).collect()).await;
        let _ = self.me.tell(Start(added)).try_send();
        Ok(applied)
    }
}

impl Supervisor {
    async fn start(&mut self, appid: Appid) {
        let cell = self.shared.directory.load().by_appid.get(&appid).cloned();
        let child = self.children.entry(appid.clone()).or_default();
        let (Some(cell), None, false) = (cell, &child.actor, self.shared.is_draining()) else { return };
        let args = (Arc::clone(&cell), Arc::clone(&self.shared));
        let actor = TokenActor::spawn_link_with_mailbox(&self.me, args, mailbox::unbounded()).await;
        cell.set_actor(Some(actor.clone()));
        self.by_actor.insert(actor.id(), appid);
        child.actor = Some(actor);
        child.started = Some(Instant::now());
    }

    fn crashed(&mut self, appid: Appid) {
        counter!("wxtokend_actor_restarts_total").increment(1);
        let Some(child) = self.children.get_mut(&appid) else { return };
        if child.started.is_some_and(|started| started.elapsed() > STABLE_AFTER) {
            child.crashes = 0;
        }
        let wait = FIRST_RESTART.saturating_mul(2_u32.saturating_pow(child.crashes)).min(LAST_RESTART);
        child.crashes = child.crashes.saturating_add(1);
        child.actor = None;
        if let Some(cell) = self.shared.directory.load().by_appid.get(&appid) {
            cell.set_actor(None);
        }
        error!(
            event = "actor_crashed",
            appid = appid.as_str(),
            crashes = child.crashes,
            restart_in_ms = u64::try_from(wait.as_millis()).unwrap_or(u64::MAX),
            "an account's actor crashed, a bug of ours; its token is served on and the actor restarted"
        );
        let me = self.me.clone();
        child.restart = Some(Pending::spawn(async move {
            sleep(wait).await;
            let _ = me.tell(Restart(appid)).await;
        }));
    }

    /// Hands changed settings to an account's actor, or straight to its cell while there is no actor.
    async fn configure(
        &self,
        appid: &Appid,
        cell: &Arc<AccountCell>,
        account: Arc<Account>,
        forget_token: bool,
    ) {
        let actor = self.children.get(appid).and_then(|child| child.actor.clone());
        match actor {
            Some(actor) => drop(actor.tell(Configure { account, forget_token }).await),
            None => {
                let snapshot = cell.load();
                let mut state = snapshot.state.clone();
                state.reconfigured(&snapshot.account, &account, self.shared.now());
                if forget_token {
                    cell.disown();
                    state.upstream_exchanged();
                }
                self.shared.publish(cell, &account, &state);
                if forget_token {
                    let _ = self.shared.store.commit(appid, &state).await;
                }
            }
        }
    }

    /// Ends accounts' actors and erases their tokens, on disk too. Versions and what was spent are kept.
    async fn remove(&mut self, gone: Vec<(&Appid, &Arc<AccountCell>)>) {
        let mut actors = Vec::new();
        for (appid, _) in &gone {
            if let Some(actor) = self.children.remove(*appid).and_then(|child| child.actor) {
                self.by_actor.remove(&actor.id());
                let _ = actor.stop_gracefully().await;
                actors.push(actor);
            }
        }
        for actor in actors {
            actor.wait_for_shutdown().await;
        }
        let mut states = HashMap::with_capacity(gone.len());
        for (appid, cell) in gone {
            cell.set_actor(None);
            cell.disown();
            let snapshot = cell.load();
            let state = snapshot.state.departed();
            self.shared.publish(cell, &snapshot.account, &state);
            cell.set_gone(true);
            self.shared.keep_departed(appid, Arc::clone(cell));
            states.insert(appid.clone(), state);
        }
        // In one go: a sync for each would hold up everybody else's restart for minutes.
        let _ = self.shared.store.commit_all(&states).await;
    }
}
