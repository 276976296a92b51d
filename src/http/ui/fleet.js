// What is known of the accounts: read as a list, then kept up to date by events. Knows nothing of the page.

import { instant, now } from "./time.js";

/** From what needs a person to what needs nobody. */
export const STATES = ["parked", "unavailable", "degraded", "starting", "refreshing", "fresh"];
/** What has a valid token. */
const HOLDING = new Set(["fresh", "refreshing", "degraded"]);
// A refresh is no trouble: rows must not jump about each time one begins.
const RANK = { parked: 0, unavailable: 1, degraded: 2, starting: 3, refreshing: 4, fresh: 4 };

/** Each gives a number to sort by, least first. What has none stands last. */
const NEVER = Number.MAX_SAFE_INTEGER;
export const ORDERS = {
  trouble: (account) => RANK[account.shown] ?? 0,
  name: (account) => account.ordinal,
  expires: (account) => account.expires ?? NEVER,
  version: (account) => account.version,
  budget: (account) => account.budget.remaining / account.budget.limit,
  fault: (account) => (account.fault ? -account.fault.at : NEVER),
};

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
  };
}

export class Fleet {
  accounts = new Map();
  isRead = false;
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
    // The list shows none; who does reads them.
    if (name === "ticket") return true;
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
    }
    account.next = instant(data.next_refresh_at);
    account.revision += 1;
    account.shown = account.state;
    account.spent = true;
    return true;
  }

  /** Judges every account by the clock, and counts them by state. */
  count() {
    const at = now();
    const counts = Object.fromEntries(STATES.map((state) => [state, 0]));
    let soonest = null;
    for (const account of this.accounts.values()) {
      account.shown = shownState(account, at);
      counts[account.shown] = (counts[account.shown] ?? 0) + 1;
      const lives = account.expires !== null && account.expires > at;
      if (lives && (soonest === null || account.expires < soonest.expires)) soonest = account;
    }
    return { counts, soonest, all: this.accounts.size };
  }

  /** The accounts that a view asks for, in its order. */
  select({ search, states, sort, reverse }) {
    const words = search.toLowerCase().split(/\s+/).filter(Boolean);
    const fits = (account) =>
      (states.size === 0 || states.has(account.shown)) &&
      words.every((word) => account.haystack.includes(word) || String(account.fault?.errcode ?? "") === word);
    const found = [...this.accounts.values()].filter(fits);
    const key = ORDERS[sort] ?? ORDERS.trouble;
    const keyed = found.map((account) => ({ account, key: key(account) }));
    const sign = reverse ? -1 : 1;
    keyed.sort((a, b) => sign * (a.key - b.key) || a.account.ordinal - b.account.ordinal);
    return keyed.map(({ account }) => account);
  }
}
