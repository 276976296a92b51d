// One account: everything that may be known of it, its tickets, its history, and the order to refresh.

import * as api from "./api.js";
import { Bar } from "./bar.js";
import { el } from "./dom.js";
import { facts, fields, Trouble } from "./facts.js";
import { known, shownState } from "./fleet.js";
import { historyTable } from "./history.js";
import { t } from "./language.js";
import { refreshPanel } from "./refresh.js";
import { StateMark } from "./row.js";
import { Tickets } from "./tickets.js";
import { now } from "./time.js";

/** An account's events come in clusters: they are read together, and no more often than this. */
const READ_AGAIN_MS = 400;

export class AccountView {
  node = el("section", { class: "account-view" });
  #appid;
  #mayRefresh;
  #account = null;
  #state = new StateMark();
  #bar = new Bar();
  #fields = el("dl", {});
  #trouble = new Trouble();
  #tickets = new Tickets();
  #history = el("div", {});
  #timer = null;

  constructor(appid, mayRefresh) {
    this.#appid = appid;
    this.#mayRefresh = mayRefresh;
  }

  show() {
    scrollTo(0, 0);
    this.#read();
  }

  end() {
    clearTimeout(this.#timer);
  }

  changed(appid) {
    if (appid !== null && appid !== this.#appid) return;
    this.#timer ??= setTimeout(() => {
      this.#timer = null;
      this.#read();
    }, READ_AGAIN_MS);
  }

  settle() {}

  tick() {
    if (this.#account) this.#showWhatTicks();
  }

  key(event) {
    if (event.key !== "Escape" || document.querySelector("dialog[open]")) return;
    event.preventDefault();
    location.hash = "#/";
  }

  async #read() {
    const appid = this.#appid;
    const [view, past] = await Promise.allSettled([api.account(appid), api.history(appid)]);
    if (!this.node.isConnected) return;
    if (view.status === "rejected") {
      this.#showRefusal(view.reason);
      return;
    }
    const isFirst = this.#account === null;
    this.#account = known(view.value);
    if (isFirst) this.#build();
    this.#showWhatTicks();
    this.#trouble.show(this.#account);
    if (past.status === "fulfilled") this.#history.replaceChildren(historyTable(past.value.events));
    else this.#history.replaceChildren(el("p", { class: "empty" }, t("history.failed", { detail: past.reason.message })));
  }

  #back() {
    return el("a", { class: "back", href: "#/" }, `← ${t("back")}`);
  }

  #showRefusal(refused) {
    this.#account = null;
    const gone = refused.status === 403 || refused.status === 404;
    const detail = refused.status === 0 ? t("unreachable") : refused.message;
    const why = gone ? t("account.unknown", { appid: this.#appid }) : t("failed", { detail });
    this.node.replaceChildren(this.#back(), el("p", { class: "empty" }, why));
  }

  #build() {
    const { appid, name, endpoint } = this.#account;
    const title = el("div", { class: "title" }, el("h1", {}, name), this.#state.node);
    const parts = [
      this.#back(),
      title,
      this.#trouble.node,
      el("div", { class: "panel" }, this.#bar.node, this.#fields),
      this.#mayRefresh ? refreshPanel(appid, endpoint, () => this.changed(appid)) : null,
      this.#tickets.node,
      el("h2", {}, t("history")),
      this.#history,
    ];
    this.node.replaceChildren(...parts.filter(Boolean));
  }

  #showWhatTicks() {
    const account = this.#account;
    account.shown = shownState(account, now());
    this.#state.show(account.shown);
    this.#bar.update(account);
    const all = [
      ["appid", account.appid],
      ...facts(account),
      ["endpoint", account.endpoint],
      ["tags", account.tags.join(", ") || t("none")],
    ];
    this.#fields.replaceChildren(...fields(all));
    this.#tickets.show(account.tickets);
  }
}
