// Instants and spans. Ages are told by the server's clock: this machine's may be off.

import { language, t } from "./language.js";

let ahead = 0;

/** Takes over the server's clock, as it has just told it. */
export function setClock(iso) {
  ahead = Date.parse(iso) - Date.now();
}

/** Now, in ms since 1970, by the server's clock. */
export function now() {
  return Date.now() + ahead;
}

/** An instant of the API as ms; null stays null. */
export function instant(iso) {
  return iso ? Date.parse(iso) : null;
}

/** A span as people say it, in at most two units. */
export function span(ms) {
  const seconds = Math.max(0, Math.round(ms / 1000));
  if (seconds < 100) return t("seconds", { n: seconds });
  const minutes = Math.floor(seconds / 60);
  if (minutes < 60) return t("minutes", { n: minutes });
  const hours = Math.floor(minutes / 60);
  if (hours < 24) {
    const rest = minutes % 60;
    const told = t("hours", { n: hours });
    return rest ? told + t("between-units") + t("minutes", { n: rest }) : told;
  }
  return t("days", { n: Math.floor(hours / 24) });
}

/** "in 5 s" or "5 s ago". */
export function relative(at) {
  const ms = at - now();
  return t(ms >= 0 ? "in" : "ago", { span: span(Math.abs(ms)) });
}

/** The time of day in the browser's zone, with the date unless it is today's. */
export function clockTime(at) {
  const date = new Date(at);
  const today = new Date(now()).toDateString() === date.toDateString();
  const day = today ? {} : { month: "short", day: "numeric" };
  const format = { ...day, hour: "2-digit", minute: "2-digit", second: "2-digit", hourCycle: "h23" };
  return new Intl.DateTimeFormat(language(), format).format(date);
}
