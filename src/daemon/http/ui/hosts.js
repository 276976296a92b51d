// What is told of WeChat's hosts at the top of every view, while one of them is down.

import { t } from "./language.js";
import { clockTime } from "./time.js";

/** A sentence on the hosts that are down; empty while none is. */
export function hostsBanner(fleet) {
  const down = fleet.hosts.filter((host) => !host.up);
  const why = down.map(({ host, reason }) => `${host}: ${reason}`).join("; ");
  const since = fleet.unreachableSince();
  if (since !== null) return t("unreachable.about", { at: clockTime(since), why });
  return down.map(({ host, since, reason }) => t("host-down.about", { host, at: clockTime(since), why: reason })).join(" ");
}
