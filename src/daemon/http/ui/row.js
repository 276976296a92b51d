// One row of the list. Rows are few and are lent to whichever account is in sight.

import { Bar } from "./bar.js";
import { el, setAttribute, setText } from "./dom.js";
import { failing } from "./fleet.js";
import { advice, language, number, t, tn, word } from "./language.js";

/** What went wrong, in a few words: "parked 40164". */
export function faultName(fault) {
  return fault.errcode === null ? word("kind", fault.kind) : `${word("kind", fault.kind)} ${fault.errcode}`;
}

/** A state as a dot and a word; `show` changes it. */
export class StateMark {
  #word = el("span", {});
  node = el("span", { class: "mark-state" }, el("i", { class: "dot" }), this.#word);

  show(state) {
    this.node.dataset.state = state;
    setText(this.#word, word("state", state));
  }
}

export class Row {
  #state = new StateMark();
  #ticket = el("span", { class: "mark-ticket", hidden: true });
  #link = el("a", { class: "name" });
  #below = el("span", { class: "below" });
  #bar = new Bar();
  #version = el("span", { class: "number" });
  #budget = el("span", { class: "number" });
  #fault = el("strong", {});
  #advice = el("span", { class: "advice" });
  #faultCell = el("div", { role: "cell", class: "fault" }, el("p", {}, this.#fault, " ", this.#advice));
  node = el(
    "div",
    { role: "row", class: "row" },
    el("div", { role: "cell", class: "state" }, this.#state.node, this.#ticket),
    el("div", { role: "cell", class: "account" }, this.#link, this.#below),
    el("div", { role: "cell", class: "token" }, this.#bar.node),
    el("div", { role: "cell", class: "version" }, this.#version),
    el("div", { role: "cell", class: "budget" }, this.#budget),
    this.#faultCell,
  );
  appid = null;
  #index = -1;
  #seen = "";

  /** Puts it in its place. */
  place(index, height) {
    if (index === this.#index && height === this.height) return;
    this.#index = index;
    this.height = height;
    this.node.style.transform = `translateY(${index * height}px)`;
    // The head is the first.
    setAttribute(this.node, "aria-rowindex", String(index + 2));
  }

  /** Shows `account` as it is now. */
  show(account) {
    this.#state.show(account.shown);
    this.#bar.update(account);
    // The rest changes with the account alone; the above with the clock, too.
    const seen = `${account.appid} ${account.revision} ${language()}`;
    if (seen === this.#seen) return;
    this.#seen = seen;
    this.appid = account.appid;
    this.node.dataset.appid = account.appid;
    setText(this.#link, account.name);
    setAttribute(this.#link, "href", `#/accounts/${encodeURIComponent(account.appid)}`);
    setText(this.#below, [account.appid, ...account.tags].join(" · "));
    // As it is written everywhere else, to be found by a search.
    setText(this.#version, String(account.version || "–"));
    const { remaining, limit } = account.budget;
    setText(this.#budget, `${number(remaining)} / ${number(limit)}`);
    setAttribute(this.#budget, "title", tn("budget.about", remaining, { limit: number(limit) }));
    this.#showFault(account.fault, failing(account));
  }

  focus() {
    this.#link.focus({ preventScroll: true });
  }

  /** The account's fault first; those of its tickets by their types. */
  #showFault(own, tickets) {
    const faults = [...(own ? [own] : []), ...tickets.map((ticket) => ticket.fault)];
    const names = [...(own ? [faultName(own)] : []), ...tickets.map(({ type, fault }) => `${type}: ${faultName(fault)}`)];
    const told = faults.map((fault) => `${fault.message}\n→ ${advice(fault.advice)}`);
    this.node.classList.toggle("has-fault", faults.length > 0);
    setText(this.#fault, names.join(", ") || "–");
    setText(this.#advice, faults.length > 0 ? advice(faults[0].advice) : "");
    setAttribute(this.#faultCell, "title", told.join("\n") || null);
    this.#ticket.hidden = tickets.length === 0;
    setText(this.#ticket, tn("ticket-fails", tickets.length));
  }
}
