// The order to refresh, for keys with `admin`, and what came of it.

import * as api from "./api.js";
import { el } from "./dom.js";
import { advice, t } from "./language.js";
import { faultName } from "./row.js";

function told(fault) {
  return fault ? el("span", {}, el("strong", {}, faultName(fault)), ` ${fault.message} `, el("span", { class: "advice" }, advice(fault.advice))) : null;
}

/** The buttons for an account on `endpoint`; `done` is told when an order has ended, which is history then. */
export function refreshPanel(appid, endpoint, done) {
  const said = el("p", { class: "said", role: "status" });
  const buttons = [];

  async function order(force) {
    for (const button of buttons) button.disabled = true;
    said.replaceChildren(t("refresh.busy"));
    try {
      const came = await api.refresh(appid, force);
      const outcome = t(`outcome.${came.outcome}`, { version: came.version });
      said.replaceChildren(...[outcome, told(came.last_fault)].filter(Boolean));
    } catch (refused) {
      const fault = told(refused.problem?.last_fault);
      const detail = refused.status === 0 ? t("unreachable") : refused.message;
      said.replaceChildren(fault ?? t("failed", { detail }));
    } finally {
      for (const button of buttons) button.disabled = false;
      done();
    }
  }

  const plain = el("button", { type: "button", class: "main", title: t("refresh.about"), onclick: () => order(false) }, t("refresh"));
  buttons.push(plain);
  const panel = el("div", { class: "refresh" }, plain);
  // On `token` every call mints; only `stable_token` has a refresh to be forced.
  if (endpoint === "stable_token") {
    const yes = el("button", { type: "submit", value: "yes", class: "danger" }, t("force.yes"));
    const no = el("button", { type: "submit", value: "no", autofocus: true }, t("cancel"));
    const form = el("form", { method: "dialog" }, el("h2", {}, t("force.title")), el("p", {}, t("force.about")), el("div", { class: "answers" }, no, yes));
    const dialog = el("dialog", {}, form);
    dialog.addEventListener("close", () => dialog.returnValue === "yes" && order(true));
    const ask = () => {
      dialog.returnValue = "";
      dialog.showModal();
    };
    const force = el("button", { type: "button", onclick: ask }, t("force"));
    buttons.push(force);
    panel.append(force, dialog);
  }
  panel.append(said);
  return panel;
}
