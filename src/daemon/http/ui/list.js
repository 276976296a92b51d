// The rows in sight, of however many there are. All are equally high, so that it is known without asking which.

import { el, inNextFrame, setAttribute } from "./dom.js";
import { Row } from "./row.js";

/** So many more than are seen, above and below: a short scroll shows no gaps. */
const MARGIN = 6;

export class List {
  node = el("div", { class: "rows", role: "rowgroup" });
  #accounts = [];
  /** Rows in use by appid, and those to be had. */
  #rows = new Map();
  #spare = [];
  #height = 0;
  #draw = inNextFrame(() => this.#drawNow());

  #end = new AbortController();

  constructor() {
    const signal = this.#end.signal;
    addEventListener("scroll", this.#draw, { passive: true, signal });
    addEventListener("resize", () => this.measure(), { signal });
    this.node.addEventListener("click", (event) => this.#clicked(event));
  }

  /** Lets go of the window. */
  end() {
    this.#end.abort();
  }

  /** Takes other accounts, or another order of them. */
  set(accounts) {
    this.#accounts = accounts;
    this.#stretch();
    this.#draw();
  }

  /** To be drawn again in the next frame, when one of these accounts is in sight; null: whichever. */
  redraw(appid) {
    if (appid === null || this.#rows.has(appid)) this.#draw();
  }

  /** How high rows are is said by the style sheet. */
  measure() {
    this.#height = parseFloat(getComputedStyle(this.node).getPropertyValue("--row-height")) || 60;
    this.#stretch();
    this.#draw();
  }

  /** The accounts in sight. */
  inSight() {
    const [first, last] = this.#range(0);
    return this.#accounts.slice(first, last);
  }

  /** Moves the focus `by` rows from the row that has it; from outside, to the first in sight. */
  move(by) {
    const focused = this.#focused();
    const from = this.#accounts.findIndex((account) => account.appid === focused);
    const to = from < 0 ? this.#range(0)[0] : Math.min(this.#accounts.length - 1, Math.max(0, from + by));
    const account = this.#accounts[to];
    if (!account) return;
    this.#scrollTo(to);
    this.focus(account.appid);
  }

  /** Focuses the row of `appid`, where it is in the list. */
  focus(appid) {
    this.#drawNow(appid);
    this.#rows.get(appid)?.focus();
  }

  #focused() {
    return document.activeElement?.closest(".row")?.dataset.appid ?? null;
  }

  /** A click anywhere in a row opens its account, unless it ends the marking of some text. */
  #clicked(event) {
    const row = event.target.closest(".row");
    if (!row || event.target.closest("a") || !getSelection().isCollapsed) return;
    row.querySelector("a").click();
  }

  #stretch() {
    this.node.style.height = `${this.#accounts.length * this.#height}px`;
  }

  #range(margin) {
    if (this.#height === 0) return [0, 0];
    const top = -this.node.getBoundingClientRect().top;
    const first = Math.floor(top / this.#height) - margin;
    const last = Math.ceil((top + innerHeight) / this.#height) + margin;
    const within = (index) => Math.min(this.#accounts.length, Math.max(0, index));
    return [within(first), within(last)];
  }

  #scrollTo(index) {
    const row = this.node.getBoundingClientRect().top + index * this.#height;
    const above = [...document.querySelectorAll(".toolbar, .head")];
    const head = Math.max(0, ...above.map((part) => part.getBoundingClientRect().bottom));
    if (row < head) scrollBy(0, row - head);
    else if (row + this.#height > innerHeight) scrollBy(0, row + this.#height - innerHeight);
  }

  #drawNow(wanted = null) {
    if (!this.node.isConnected || this.#height === 0) return;
    const [first, last] = this.#range(MARGIN);
    const focused = wanted ?? this.#focused();
    const places = new Map();
    for (let index = first; index < last; index++) places.set(this.#accounts[index].appid, index);
    if (focused !== null && !places.has(focused)) {
      // A row keeps the focus when it is scrolled out of sight.
      const index = this.#accounts.findIndex((account) => account.appid === focused);
      if (index >= 0) places.set(focused, index);
    }
    for (const [appid, row] of this.#rows) {
      if (places.has(appid)) continue;
      this.#rows.delete(appid);
      this.#spare.push(row);
    }
    // In the order of the list, for those who go through them by Tab or have them read out.
    let next = this.node.firstChild;
    for (const [appid, index] of [...places].sort((a, b) => a[1] - b[1])) {
      let row = this.#rows.get(appid);
      if (!row) {
        row = this.#spare.pop() ?? new Row();
        this.#rows.set(appid, row);
      }
      row.place(index, this.#height);
      row.show(this.#accounts[index]);
      row.node.hidden = false;
      if (row.node === next) next = next.nextSibling;
      else this.node.insertBefore(row.node, next);
    }
    for (const row of this.#spare) row.node.hidden = true;
    // An element that is moved loses the focus.
    if (focused !== null && this.#focused() === null && wanted === null) this.#rows.get(focused)?.focus();
    setAttribute(this.node.parentElement, "aria-rowcount", String(this.#accounts.length + 1));
  }
}
