// English or Chinese: by the browser's preference, unless the reader has said otherwise.

import { ADVICE } from "./advice.js";
import { WORDS } from "./words.js";

const KEPT_AS = "wxtokend-language";

// Where storage is forbidden the choice lasts until the page is left.
function kept() {
  try {
    return localStorage.getItem(KEPT_AS);
  } catch {
    return null;
  }
}

let chosen = kept() ?? (navigator.languages?.[0] ?? navigator.language ?? "en");
chosen = chosen.toLowerCase().startsWith("zh") ? "zh-CN" : "en";
document.documentElement.lang = chosen;

/** `en` or `zh-CN`. */
export function language() {
  return chosen;
}

export function toggleLanguage() {
  chosen = chosen === "en" ? "zh-CN" : "en";
  document.documentElement.lang = chosen;
  try {
    localStorage.setItem(KEPT_AS, chosen);
  } catch {
    // It lasts until the page is left.
  }
}

/** The words for `key` with `{name}` filled in; a key that nobody has words for stands for itself. */
export function t(key, values) {
  const words = WORDS[chosen][key] ?? WORDS.en[key] ?? key;
  return values ? words.replace(/\{(\w+)\}/g, (_, name) => values[name] ?? "") : words;
}

/** The same of `n` things: one has words of its own, under `{key}.one`. */
export function tn(key, n, values) {
  return t(n === 1 ? `${key}.one` : key, { n: number(n), ...values });
}

/** A word of the API, such as a state: one that is newer than this table stands for itself. */
export function word(group, name) {
  return WORDS[chosen][`${group}.${name}`] ?? name;
}

const DIGITS = new Intl.NumberFormat("en");

/** A number with its thousands apart, which both languages write alike. */
export function number(n) {
  return DIGITS.format(n);
}

/** The server's advice in the reader's language. An address in it stays as it is. */
export function advice(text) {
  if (chosen === "en") return text;
  const ip = /\bIP ([0-9a-fA-F.:]+)/.exec(text)?.[1];
  const known = ADVICE[ip ? text.replace(ip, "{ip}") : text];
  return known ? known.replace("{ip}", ip) : text;
}
