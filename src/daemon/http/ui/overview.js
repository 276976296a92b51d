// The fleet: how it is doing as a whole, and the list with its search, filters and order.

import * as api from "./api.js";
import { el, setAttribute, setText } from "./dom.js";
import { ORDERS, STATES } from "./fleet.js";
import { number, t, tn, word } from "./language.js";
import { List } from "./list.js";
import { clockTime, now, span } from "./time.js";

/** The order that each column stands for. */
const COLUMNS = [
  ["state", "trouble"],
  ["account", "name"],
  ["token", "expires"],
  ["version", "version"],
  ["budget", "budget"],
  ["fault", "fault"],
];

/** What the address says of the view: `#/?q=flower&state=parked,degraded&sort=name&reverse`. */
function asked() {
  const query = new URLSearchParams(location.hash.split("?")[1] ?? "");
  const states = (query.get("state") ?? "").split(",").filter((state) => STATES.includes(state));
  const sort = query.get("sort");
  return {
    search: query.get("q") ?? "",
    states: new Set(states),
    sort: Object.hasOwn(ORDERS, sort) ? sort : "trouble",
    reverse: query.has("reverse"),
  };
}

export class Overview {
  #fleet;
  #query = asked();
  #list = new List();
  #dirty = true;
  #soonest = null;
  #scroll = 0;
  /** The account that was opened last, to come back to. */
  opened = null;

  #share = el("div", { class: "share" });
  /** What clients feel, or will feel soon; each is hidden while there is nothing to tell. */
  #unreachable = el("div", { class: "alarm unreachable" });
  #without = el("div", { class: "alarm without" });
  #ending = el("div", { class: "alarm ending" });
  #failing = el("div", { class: "alarm failing" });
  #strip = el("div", { class: "strip", role: "img" });
  #person = el("button", { type: "button", class: "person", onclick: () => this.#only("parked") });
  #next = el("div", { class: "soonest" });
  #nextName = el("a", {});
  #nextSpan = el("span", {});
  #chips = new Map();
  #search = el("input", { type: "search", autocomplete: "off", spellcheck: "false" });
  #sort = el("select", { onchange: () => this.#change({ sort: this.#sort.value, reverse: false }) });
  #heads = new Map();
  #shown = el("span", { class: "shown", role: "status" });
  #empty = el("p", { class: "empty", hidden: true });

  constructor(fleet) {
    this.#fleet = fleet;
    this.node = el("section", { class: "overview" }, this.#summary(), this.#toolbar(), this.#table());
    this.#next.append(el("span", {}, `${t("soonest")} `), this.#nextSpan, " ", this.#nextName);
  }

  /** To be called when it stands in the page. */
  show() {
    // Coming back by a link without a query shows what was shown before.
    if (location.hash.includes("?")) this.#query = asked();
    else this.#remember();
    this.#list.measure();
    this.#update();
    scrollTo(0, this.#scroll);
    if (this.opened) this.#list.focus(this.opened);
    this.opened = null;
  }

  /** To be called before it is taken out. */
  leave() {
    this.#scroll = scrollY;
  }

  end() {
    this.#list.end();
  }

  /** Something has changed: `appid`, or everything. Rows show it at once, sums and the order twice a second. */
  changed(appid) {
    this.#dirty = true;
    if (appid === null) this.#update();
    else this.#list.redraw(appid);
  }

  /** Twice a second. */
  settle() {
    if (this.#dirty) this.#update();
  }

  /** Once a second: time has passed. */
  tick() {
    this.#list.redraw(null);
    this.#dirty = true;
    this.#readBudget();
  }

  key(event) {
    const typing = event.target === this.#search;
    if (event.key === "/" && !typing) {
      this.#search.focus();
      this.#search.select();
    } else if (event.key === "Escape" && typing) {
      if (this.#search.value) this.#change({ search: "" });
      else this.#search.blur();
    } else if (event.key === "ArrowDown" && event.target !== this.#sort) {
      this.#list.move(1);
    } else if (event.key === "ArrowUp" && event.target !== this.#sort && !typing) {
      this.#list.move(-1);
    } else {
      return;
    }
    event.preventDefault();
  }

  /** Of those in sight, one whose budget has been drawn on since it was read. */
  async #readBudget() {
    if (document.hidden || this.#fleet.refused) return;
    const spent = this.#list.inSight().find((account) => account.spent);
    if (!spent) return;
    spent.spent = false;
    const read = await api.account(spent.appid).catch(() => null);
    if (read) this.#fleet.setBudget(spent.appid, read.budget);
    this.#list.redraw(spent.appid);
  }

  #only(state) {
    this.#change({ states: new Set([state]) });
  }

  #change(part) {
    Object.assign(this.#query, part);
    this.#remember();
    this.#update();
  }

  /** Puts the view into the address, to be shared or come back to. */
  #remember() {
    const { search, states, sort, reverse } = this.#query;
    const query = new URLSearchParams();
    if (search) query.set("q", search);
    if (states.size) query.set("state", [...states].join(","));
    if (sort !== "trouble") query.set("sort", sort);
    const text = query.toString().replaceAll("%2C", ",") + (reverse ? `${query.size ? "&" : ""}reverse` : "");
    history.replaceState(null, "", text ? `#/?${text}` : "#/");
  }

  #update() {
    if (!this.node.isConnected) return;
    this.#dirty = false;
    const sums = this.#fleet.count();
    const { all } = sums;
    this.#showSums(sums);
    const found = this.#fleet.select(this.#query);
    this.#list.set(found);
    this.#showQuery();
    const told = found.length === all ? "shown.all" : "shown";
    setText(this.#shown, tn(told, all, { n: number(found.length), all: number(all) }));
    this.#showEmpty(found.length, all);
  }

  #showSums({ counts, soonest, all, without, ending, tickets, isWell }) {
    const fresh = counts.fresh + counts.refreshing;
    setText(this.#share, this.#fleet.isRead ? t("fresh-share", { n: number(fresh), all: number(all) }) : "");
    const since = this.#fleet.unreachableSince();
    this.#alarm(this.#unreachable, since === null ? "" : t("unreachable.since", { at: clockTime(since) }));
    this.#alarm(this.#without, without === 0 ? "" : tn("without", without));
    this.#alarm(this.#ending, ending === 0 ? "" : tn("ending", ending));
    this.#alarm(this.#failing, tickets === 0 ? "" : tn("failing", tickets));
    const people = counts.parked;
    this.#alarm(this.#person, people > 0 ? tn("person", people) : isWell && all > 0 ? t("person-none") : "");
    this.#person.disabled = people === 0;
    STATES.forEach((state, index) => {
      this.#strip.children[index].style.flexGrow = String(counts[state]);
      this.#strip.children[index].hidden = counts[state] === 0;
      setText(this.#chips.get(state).lastChild, number(counts[state]));
    });
    setText(this.#chips.get("all").lastChild, number(all));
    setAttribute(this.#strip, "aria-label", STATES.map((state) => `${word("state", state)} ${counts[state]}`).join(", "));
    this.#next.hidden = !this.#fleet.isRead;
    setText(this.#nextSpan, soonest ? span(soonest.expires - now()) : t("soonest-none"));
    setText(this.#nextName, soonest ? soonest.name : "");
    setAttribute(this.#nextName, "href", soonest && `#/accounts/${encodeURIComponent(soonest.appid)}`);
  }

  #alarm(node, text) {
    node.hidden = text === "";
    setText(node, text);
  }

  #showQuery() {
    const { search, states, sort, reverse } = this.#query;
    if (this.#search.value !== search) this.#search.value = search;
    this.#sort.value = sort;
    for (const [state, chip] of this.#chips) {
      setAttribute(chip, "aria-pressed", String(state === "all" ? states.size === 0 : states.has(state)));
    }
    for (const [order, head] of this.#heads) {
      setAttribute(head, "aria-sort", order !== sort ? null : reverse ? "descending" : "ascending");
    }
  }

  #showEmpty(found, all) {
    this.#empty.hidden = found > 0;
    if (found > 0) return;
    const clear = () => this.#change({ search: "", states: new Set() });
    const { refused, isRead } = this.#fleet;
    const detail = refused?.status === 0 ? t("unreachable") : refused?.message;
    const why = refused ? t("failed", { detail }) : !isRead ? t("loading") : t(all ? "none-found" : "none-yours");
    const way = all ? el("button", { type: "button", onclick: clear }, t("none-found.clear")) : null;
    this.#empty.replaceChildren(...[why, " ", way].filter(Boolean));
  }

  #summary() {
    this.#strip.append(...STATES.map((state) => el("i", { "data-state": state })));
    const told = el("div", { class: "told" }, this.#share, this.#unreachable, this.#without, this.#ending, this.#person, this.#failing, this.#next);
    return el("div", { class: "summary" }, told, this.#strip);
  }

  #toolbar() {
    this.#search.oninput = () => this.#change({ search: this.#search.value });
    setAttribute(this.#search, "placeholder", t("search"));
    setAttribute(this.#search, "aria-label", t("search"));
    setAttribute(this.#sort, "aria-label", t("sort"));
    this.#sort.append(...Object.keys(ORDERS).map((order) => el("option", { value: order }, t(`sort.${order}`))));
    const chips = ["all", ...STATES].map((state) => {
      const name = state === "all" ? t("all") : word("state", state);
      const onclick = () => this.#toggle(state);
      const dot = state === "all" ? null : el("i", { class: "dot", "data-state": state });
      const chip = el("button", { type: "button", class: "chip", onclick }, dot, el("span", {}, name), el("b", {}));
      this.#chips.set(state, chip);
      return chip;
    });
    const filters = el("div", { class: "chips", role: "group", "aria-label": t("filter.about") }, ...chips);
    const search = el("label", { class: "search" }, this.#search, el("kbd", {}, t("search.hint")));
    return el("div", { class: "toolbar" }, search, filters, this.#sort);
  }

  /** States that are chosen are shown together; without any, all are. */
  #toggle(state) {
    const states = new Set(this.#query.states);
    if (state === "all") states.clear();
    else if (!states.delete(state)) states.add(state);
    this.#change({ states });
  }

  #table() {
    const heads = COLUMNS.map(([column, order]) => {
      const onclick = () => this.#change({ sort: order, reverse: this.#query.sort === order && !this.#query.reverse });
      const head = el("div", { role: "columnheader", class: column }, el("button", { type: "button", onclick }, t(column)));
      this.#heads.set(order, head);
      return head;
    });
    const head = el("div", { role: "rowgroup", class: "head" }, el("div", { role: "row", class: "columns" }, ...heads));
    const table = el("div", { role: "table", class: "table", "aria-label": t("title") }, head, this.#list.node);
    const foot = el("p", { class: "foot" }, this.#shown, el("span", { class: "keys" }, t("keys")));
    return el("div", {}, table, this.#empty, foot);
  }
}
