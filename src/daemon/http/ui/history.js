// The history of an account. An event that this page does not know is shown by its name.

import { el } from "./dom.js";
import { advice, number, t, word } from "./language.js";
import { faultName, StateMark } from "./row.js";
import { clockTime, instant } from "./time.js";

function took(event) {
  return typeof event.duration_ms === "number" ? t("detail.took", { n: number(event.duration_ms) }) : null;
}

/** Why the call was made. */
function because(event) {
  return event.reason ? word("reason", event.reason) : null;
}

function by(event) {
  return event.by ? t("detail.by", { name: event.by }) : null;
}

function mark(state) {
  const shown = new StateMark();
  shown.show(state);
  return shown.node;
}

/** What each event tells besides its name: texts and elements, of which null says nothing. */
const DETAILS = {
  token: (event) => [
    t("detail.version", { n: event.version }),
    event.expires_at && t("detail.expires", { at: clockTime(instant(event.expires_at)) }),
    because(event),
    took(event),
  ],
  token_unchanged: (event) => [t("detail.version", { n: event.version }), because(event), took(event)],
  ticket: (event) => [event.type, ...DETAILS.token(event)],
  ticket_unchanged: (event) => [event.type, ...DETAILS.token_unchanged(event)],
  ticket_fault: (event) => [event.type, ...DETAILS.fault(event)],
  fault: (event) => [
    el("strong", {}, faultName(event)),
    event.message,
    because(event),
    took(event),
    event.advice && el("span", { class: "advice" }, advice(event.advice)),
  ],
  check: (event) => [word("told", event.told), event.errcode ? String(event.errcode) : null, event.message],
  rejection: (event) => [
    word("ended", event.outcome),
    by(event),
    event.times > 1 ? t("detail.times", { n: number(event.times) }) : null,
  ],
  refresh: (event) => [word("ended", event.outcome), event.force ? t("detail.forced") : null, by(event)],
  state: (event) => [el("span", {}, event.was ? mark(event.was) : null, event.was ? " → " : null, mark(event.state))],
};

function row(event) {
  const details = (DETAILS[event.event]?.(event) ?? []).filter(Boolean);
  const parts = details.flatMap((detail, index) => {
    const block = detail.className === "advice";
    return index === 0 || block ? [detail] : [el("span", { class: "sep" }, " · "), detail];
  });
  return el(
    "tr",
    { "data-event": event.event },
    el("td", {}, el("time", { datetime: event.at }, clockTime(instant(event.at)))),
    el("td", {}, word("event", event.event)),
    el("td", {}, ...parts),
  );
}

/** The table of `events`, newest first. */
export function historyTable(events) {
  if (events.length === 0) return el("p", { class: "empty" }, t("history.empty"));
  const head = ["history.when", "history.what", "history.details"].map((key) => el("th", { scope: "col" }, t(key)));
  return el("table", { class: "history" }, el("thead", {}, el("tr", {}, ...head)), el("tbody", {}, ...events.map(row)));
}
