// One account: everything that may be known of it, its history, and the order to refresh.

import * as api from "./api.js";
import { Bar } from "./bar.js";
import { el } from "./dom.js";
import { known } from "./fleet.js";
import { historyTable } from "./history.js";
import { advice, number, t } from "./language.js";
import { refreshPanel } from "./refresh.js";
import { faultName, StateMark } from "./row.js";
import { clockTime, now, relative } from "./time.js";

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
  #fault = el("div", { class: "trouble", hidden: true });
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
    this.#showFault();
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
      this.#fault,
      el("div", { class: "panel" }, this.#bar.node, this.#fields),
      this.#mayRefresh ? refreshPanel(appid, endpoint, () => this.changed(appid)) : null,
      el("h2", {}, t("history")),
      this.#history,
    ];
    this.node.replaceChildren(...parts.filter(Boolean));
  }

  #showWhatTicks() {
    const account = this.#account;
    const at = now();
    const over = account.expires === null || account.expires <= at;
    account.shown = over && ["fresh", "refreshing", "degraded"].includes(account.state) ? "unavailable" : account.state;
    this.#state.show(account.shown);
    this.#bar.update(account);
    const told = (instant) => (instant === null ? "–" : `${clockTime(instant)} (${relative(instant)})`);
    const { remaining, limit } = account.budget;
    const fields = [
      ["appid", account.appid],
      ["version", String(account.version || "–")],
      ["issued", told(account.issued)],
      ["expires", told(account.expires)],
      ["next-refresh", told(account.next)],
      ["budget", t("budget.about", { n: number(remaining), limit: number(limit) })],
      ["failures", number(account.failures)],
      ["endpoint", account.endpoint],
      ["tags", account.tags.join(", ") || t("none")],
    ];
    this.#fields.replaceChildren(...fields.map(([key, text]) => el("div", { "data-field": key }, el("dt", {}, t(key)), el("dd", {}, text))));
  }

  #showFault() {
    const { fault, shown } = this.#account;
    this.#fault.hidden = fault === null;
    if (fault === null) return;
    this.#fault.dataset.state = shown;
    const rid = fault.rid && !fault.message.includes(fault.rid) ? el("p", { class: "below" }, `${t("rid")}: ${fault.rid}`) : null;
    this.#fault.replaceChildren(
      ...[
        el("p", {}, el("strong", {}, faultName(fault)), ` · ${clockTime(fault.at)}`),
        el("p", { class: "message" }, fault.message),
        el("p", { class: "to-do" }, el("b", {}, `${t("what-to-do")}: `), el("span", { class: "advice" }, advice(fault.advice))),
        rid,
      ].filter(Boolean),
    );
  }
}
