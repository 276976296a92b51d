// The tickets of one account, each with its age and end, and what is wrong with it. Never their values.

import { Bar } from "./bar.js";
import { el } from "./dom.js";
import { facts, fields, Trouble } from "./facts.js";
import { shownState } from "./fleet.js";
import { t, word } from "./language.js";
import { StateMark } from "./row.js";
import { now } from "./time.js";

class Panel {
  #state = new StateMark();
  #trouble = new Trouble();
  #bar = new Bar("ticket");
  #fields = el("dl", {});

  constructor(type) {
    const head = el("h3", {}, type, " ", el("span", { class: "below" }, word("ticket", type)));
    this.node = el(
      "div",
      { class: "panel ticket", "data-ticket": type },
      el("div", { class: "title" }, head, this.#state.node),
      this.#trouble.node,
      this.#bar.node,
      this.#fields,
    );
  }

  show(ticket) {
    ticket.shown = shownState(ticket, now());
    this.#state.show(ticket.shown);
    this.#trouble.show(ticket);
    this.#bar.update(ticket);
    this.#fields.replaceChildren(...fields(facts(ticket)));
  }
}

export class Tickets {
  node = el("section", { class: "tickets", hidden: true });
  #panels = new Map();

  /** Shows them as they are now; of none there is nothing to be seen. */
  show(tickets) {
    const types = tickets.map(({ type }) => type);
    if (types.join() !== [...this.#panels.keys()].join()) this.#build(types);
    for (const ticket of tickets) this.#panels.get(ticket.type).show(ticket);
  }

  #build(types) {
    this.#panels = new Map(types.map((type) => [type, new Panel(type)]));
    this.node.hidden = types.length === 0;
    this.node.replaceChildren(el("h2", {}, t("tickets")), ...[...this.#panels.values()].map((panel) => panel.node));
  }
}
