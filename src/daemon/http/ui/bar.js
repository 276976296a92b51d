// A token's or a ticket's age: a bar from when it was issued to when it expires, with a mark where it is refreshed.

import { el, setAttribute, setText } from "./dom.js";
import { t } from "./language.js";
import { now, relative } from "./time.js";

export class Bar {
  #fill = el("i", { class: "fill" });
  #mark = el("i", { class: "mark" });
  #track = el("div", { class: "track", role: "img" }, this.#fill, this.#mark);
  #refresh = el("span", {});
  #end = el("span", {});
  node = el("div", { class: "bar" }, this.#track, el("div", { class: "ends" }, this.#refresh, this.#end));
  #shown = "";
  #of;

  /** `of` a token or a ticket. */
  constructor(of = "token") {
    this.#of = of;
  }

  /** Shows how things stand now. */
  update({ issued, expires, next, shown, fault }) {
    const at = now();
    const alive = expires !== null && expires > at;
    if (!alive) {
      this.#draw(0, null, "none");
      setText(this.#refresh, t(`no-${this.#of}`));
      setText(this.#end, next === null ? t(`${this.#of}.waits`) : t("next-try", { when: relative(Math.max(next, at)) }));
      return;
    }
    const life = Math.max(1, expires - issued);
    const share = (instant) => Math.min(1, Math.max(0, (instant - issued) / life));
    const due = next !== null && next <= expires ? share(next) : null;
    const late = due !== null && at > next && shown !== "refreshing";
    const phase = life - (at - issued) < life / 20 ? "ending" : late ? "late" : "well";
    this.#draw(share(at), due, phase);
    const key = fault ? "next-try" : `${this.#of}.next`;
    setText(this.#refresh, next === null ? t(`${this.#of}.waits`) : t(key, { when: relative(Math.max(next, at)) }));
    setText(this.#end, t("expires-in", { when: relative(expires) }));
  }

  #draw(share, due, phase) {
    const told = `${phase} ${share.toFixed(3)} ${due?.toFixed(3)}`;
    if (told === this.#shown) return;
    this.#shown = told;
    // Both move without a new layout.
    this.#fill.style.transform = `scaleX(${share.toFixed(3)})`;
    this.#mark.style.left = due === null ? "" : `${(due * 100).toFixed(1)}%`;
    this.#mark.hidden = due === null;
    this.#track.dataset.phase = phase;
    setAttribute(this.#track, "aria-label", `${t(`${this.#of}.age`)}: ${Math.round(share * 100)} %`);
  }
}
