// What is known of the accounts: read as a list, then kept up to date by events. Knows nothing of the page.

import { instant, now } from "./time.js";

/** From what clients feel to what is as it should be. */
export const STATES = ["unavailable", "parked", "degraded", "starting", "refreshing", "fresh"];
/** What has a valid token. */
const HOLDING = new Set(["fresh", "refreshing", "degraded"]);
/** Where nothing is wrong. A refresh is no trouble: rows must not jump about each time one begins. */
const WELL = new Set(["fresh", "refreshing"]);
/** A token that is not refreshed and ends within this is told of at the top. */
const SOON_MS = 300_000;

/** More than any instant in ms: sets what comes first apart, whatever follows. */
const APART = 1e13;
/** From here on nothing is wrong. */
const REST = 3 * APART;

/** Without a token, then in trouble by the time left, then with a failing ticket, then the rest; as `wxtokend status`. */
function urgency(account) {
  if (!account.holds) return Math.max(0, STATES.indexOf(account.shown));
  if (account.atRisk) return APART + account.expires;
  return failing(account).length > 0 ? 2 * APART : REST;
}

/** Each gives a number to sort by, least first. What has none stands last. */
const NEVER = Number.MAX_SAFE_INTEGER;
export const ORDERS = {
  trouble: urgency,
  name: (account) => account.ordinal,
  expires: (account) => account.expires ?? NEVER,
  version: (account) => account.version,
  budget: (account) => account.budget.remaining / account.budget.limit,
  fault: (account) => Math.min(NEVER, ...faults(account).map((fault) => -fault.at)),
};

/** The tickets of an account whose last call failed. */
export function failing(account) {
  return account.tickets.filter((ticket) => ticket.fault !== null);
}

function faults(account) {
  return [account, ...account.tickets].map((kept) => kept.fault).filter(Boolean);
}

function fault(told) {
  return told && { ...told, at: instant(told.at) };
}

/** What an account's token and a ticket have in common. */
function kept(view) {
  return {
    state: view.state,
    shown: view.state,
    version: view.version,
    issued: instant(view.issued_at),
    expires: instant(view.expires_at),
    next: instant(view.next_refresh_at),
    failures: view.consecutive_failures,
    fault: fault(view.last_fault),
    obstacle: fault(view.obstacle),
    budget: view.budget,
  };
}

/** The state by the clock: what has ended meanwhile is there no more. */
export function shownState({ state, expires }, at) {
  const over = expires === null || expires <= at;
  return over && HOLDING.has(state) ? "unavailable" : state;
}

/** An account as the page knows it. `revision` grows with each change, so that a row sees whether it is up to date. */
export function known(view, ordinal = 0) {
  return {
    appid: view.appid,
    name: view.name,
    tags: view.tags,
    endpoint: view.endpoint,
    ...kept(view),
    tickets: view.tickets.map((ticket) => ({ type: ticket.type, ...kept(ticket) })),
    ordinal,
    haystack: [view.name, view.appid, ...view.tags].join("\n").toLowerCase(),
    revision: 0,
    spent: false,
    /** Whether it has a valid token, and whether that is about to end without another; as last judged by the clock. */
    holds: false,
    atRisk: false,
  };
}

export class Fleet {
  accounts = new Map();
  isRead = false;
  /** Whether what happens is heard of. */
  isLive = false;
  /** WeChat's hosts. */
  hosts = [];
  /** When something was last heard, and why the list could not be read. */
  heardAt = null;
  refused = null;

  /** Takes the whole list. */
  replace(views) {
    const order = new Intl.Collator(undefined, { numeric: true }).compare;
    // Names are compared once, here; sorting is by numbers from then on.
    const byName = views.toSorted((a, b) => order(a.name, b.name) || (a.appid < b.appid ? -1 : 1));
    const before = this.accounts;
    this.accounts = new Map();
    byName.forEach((view, ordinal) => {
      const account = known(view, ordinal);
      account.revision = (before.get(view.appid)?.revision ?? 0) + 1;
      this.accounts.set(view.appid, account);
    });
    this.isRead = true;
    this.heardAt = now();
  }

  setHosts(hosts) {
    this.hosts = hosts.map((host) => ({ ...host, since: instant(host.down_since) }));
  }

  /** Since when no host answers; null while one does. */
  unreachableSince() {
    const down = this.hosts.length > 0 && this.hosts.every((host) => !host.up);
    return down ? Math.max(...this.hosts.map((host) => host.since)) : null;
  }

  /** What is left of a budget, which events do not tell, as it was read for one account. */
  setBudget(appid, budget) {
    const account = this.accounts.get(appid);
    if (!account) return;
    account.budget = budget;
    account.spent = false;
    account.revision += 1;
  }

  /** Takes in an event; whether it was about one of these accounts. */
  apply(name, data) {
    this.heardAt = now();
    const account = this.accounts.get(data.appid);
    if (!account) return false;
    if (name.startsWith("ticket")) {
      const ticket = account.tickets.find(({ type }) => type === data.type);
      if (ticket) ticket.fault = name === "ticket_fault" ? fault(data.last_fault ?? data) : null;
      account.revision += 1;
      return true;
    }
    if (name === "token") {
      // One that waited while the list was read may be older than the list.
      if (data.version < account.version) return false;
      account.version = data.version;
      account.issued = instant(data.issued_at);
      account.expires = instant(data.expires_at);
    } else {
      account.state = data.state;
      account.failures = data.consecutive_failures;
      account.fault = fault(data.last_fault);
      account.obstacle = fault(data.obstacle);
    }
    account.next = instant(data.next_refresh_at);
    account.revision += 1;
    account.shown = account.state;
    account.spent = true;
    return true;
  }

  /** Judges every account by the clock, and counts them by state and by what clients feel or will feel soon. */
  count() {
    const at = now();
    const unreachable = this.unreachableSince() !== null;
    const counts = Object.fromEntries(STATES.map((state) => [state, 0]));
    const sums = { counts, all: this.accounts.size, without: 0, ending: 0, tickets: 0, soonest: null };
    let isWell = this.isRead && this.isLive && this.refused === null && this.hosts.every((host) => host.up);
    for (const account of this.accounts.values()) {
      account.shown = shownState(account, at);
      account.holds = account.expires !== null && account.expires > at;
      const endsSoon = account.holds && account.expires - at <= SOON_MS;
      // Nobody can refresh it; where WeChat can be asked, a token that ends soon is about to be refreshed.
      account.atRisk = account.fault !== null || !WELL.has(account.shown) || (unreachable && endsSoon);
      counts[account.shown] = (counts[account.shown] ?? 0) + 1;
      sums.without += account.holds ? 0 : 1;
      sums.ending += account.atRisk && endsSoon ? 1 : 0;
      const tickets = failing(account).length;
      sums.tickets += tickets;
      isWell &&= account.holds && !account.atRisk && tickets === 0;
      if (account.holds && (sums.soonest === null || account.expires < sums.soonest.expires)) sums.soonest = account;
    }
    return { ...sums, isWell };
  }

  /** The accounts that a view asks for, in its order. */
  select({ search, states, sort, reverse }) {
    const words = search.toLowerCase().split(/\s+/).filter(Boolean);
    const fits = (account) =>
      (states.size === 0 || states.has(account.shown)) &&
      words.every((word) => account.haystack.includes(word) || faults(account).some(({ errcode }) => String(errcode) === word));
    const found = [...this.accounts.values()].filter(fits);
    const key = ORDERS[sort] ?? ORDERS.trouble;
    const keyed = found.map((account) => ({ account, key: key(account) }));
    const sign = reverse ? -1 : 1;
    const byAppid = (a, b) => (sort === "trouble" && a.key < REST ? (a.account.appid < b.account.appid ? -1 : 1) : 0);
    keyed.sort((a, b) => sign * (a.key - b.key) || byAppid(a, b) || a.account.ordinal - b.account.ordinal);
    return keyed.map(({ account }) => account);
  }
}
