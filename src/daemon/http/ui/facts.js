// What the page of an account tells of its token and of a ticket alike.

import { el } from "./dom.js";
import { advice, number, t, tn } from "./language.js";
import { faultName } from "./row.js";
import { clockTime, relative } from "./time.js";

function told(instant) {
  return instant === null ? "–" : `${clockTime(instant)} (${relative(instant)})`;
}

/** Names and texts of whatever is kept fresh, as it is now. */
export function facts({ version, issued, expires, next, budget, failures }) {
  const { remaining, limit } = budget;
  return [
    ["version", String(version || "–")],
    ["issued", told(issued)],
    ["expires", told(expires)],
    ["next-refresh", told(next)],
    ["budget", tn("budget.about", remaining, { limit: number(limit) })],
    ["failures", number(failures)],
  ];
}

/** Names and texts as the children of a `dl`. */
export function fields(all) {
  return all.map(([key, text]) => el("div", { "data-field": key }, el("dt", {}, t(key)), el("dd", {}, text)));
}

/** Why the last call failed and what to do; hidden when it did not. */
export class Trouble {
  node = el("div", { class: "trouble", hidden: true });

  show({ fault, obstacle, shown }) {
    this.node.hidden = fault === null;
    if (fault === null) return;
    this.node.dataset.state = shown;
    const rid = fault.rid && !fault.message.includes(fault.rid) ? el("p", { class: "below" }, `${t("rid")}: ${fault.rid}`) : null;
    this.node.replaceChildren(
      ...[
        el("p", {}, el("strong", {}, faultName(fault)), ` · ${clockTime(fault.at)}`),
        el("p", { class: "message" }, fault.message),
        el("p", { class: "to-do" }, el("b", {}, `${t("what-to-do")}: `), el("span", { class: "advice" }, advice(fault.advice))),
        obstacle && el("p", { class: "obstacle" }, el("b", {}, `${t("obstacle")}: `), `${obstacle.message} · ${clockTime(obstacle.at)}`),
        rid,
      ].filter(Boolean),
    );
  }
}
