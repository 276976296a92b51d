// The stream of events, and whether it is there.
//
// The stream is opened first and the list read when it is open: what changes in between comes as an event. It is read
// again whenever the stream was away, or says that something was missed.

import * as api from "./api.js";

const EVENTS = ["token", "ticket", "ticket_unchanged", "ticket_fault", "state"];
const READ_AGAIN = ["reload", "gap"];
/** A page that nobody looks at lets go of its stream after so many ms. */
const HIDDEN_MS = 5000;
/** A browser gives up on a stream that was refused; then it is tried again after so many ms. */
const RETRY_MS = 3000;

/**
 * Keeps `fleet` up to date. `tell` hears `connecting`, `live` or `offline`; `changed` hears the appid that an event was
 * about, or null when everything may have changed. Ends when the returned function is called.
 */
export function follow(fleet, tell, changed) {
  let source = null;
  let retry = null;
  let leave = null;
  let ended = false;
  let reading = null;
  let waiting = [];
  /** How often the hosts were asked about, and which of the answers is shown: an earlier one may come later. */
  let asked = 0;
  let shown = 0;

  function showHosts(hosts, turn) {
    if (turn < shown) return;
    shown = turn;
    fleet.setHosts(hosts);
  }

  async function readHosts() {
    const turn = ++asked;
    try {
      const hosts = await api.hosts();
      if (ended) return;
      showHosts(hosts, turn);
      changed(null);
    } catch {
      // The list tells it, when that is read next.
    }
  }

  // Events that come while the list is read may be newer than what is being read: they are told after it.
  async function read() {
    const mine = (reading = {});
    const turn = ++asked;
    try {
      const { accounts, hosts } = await api.accounts();
      if (reading !== mine || ended) return;
      fleet.replace(accounts);
      showHosts(hosts, turn);
      fleet.refused = null;
    } catch (refused) {
      if (reading !== mine || ended) return;
      fleet.refused = refused;
    }
    reading = null;
    const events = waiting;
    waiting = [];
    for (const event of events) fleet.apply(event.name, event.data);
    changed(null);
  }

  function heard(name, data) {
    if (reading) {
      waiting.push({ name, data });
    } else if (fleet.apply(name, data)) {
      changed(data.appid);
    }
  }

  async function broken() {
    tell("offline");
    if (!fleet.isRead && !reading) read();
    if (source?.readyState !== EventSource.CLOSED) return;
    clearTimeout(retry);
    retry = setTimeout(open, RETRY_MS);
    // Refused, perhaps because the key is valid no more, or may not read any more: the session tells.
    try {
      const { allow } = await api.session();
      if (!allow.includes("read")) location.reload();
    } catch (refused) {
      if (refused.status === 401) api.signedOut();
    }
  }

  // A browser has six connections to a server for all of its tabs: hidden ones must not hold them.
  function looked() {
    clearTimeout(leave);
    if (!document.hidden && source === null) {
      tell("connecting");
      open();
    }
    if (document.hidden) leave = setTimeout(close, HIDDEN_MS);
  }

  function close() {
    clearTimeout(retry);
    source?.close();
    source = null;
  }

  function open() {
    close();
    if (ended) return;
    source = new EventSource("v1/events");
    source.onopen = () => {
      tell("live");
      read();
    };
    source.onerror = broken;
    for (const name of EVENTS) source.addEventListener(name, (event) => heard(name, JSON.parse(event.data)));
    source.addEventListener("host", readHosts);
    for (const name of READ_AGAIN) source.addEventListener(name, read);
  }

  document.addEventListener("visibilitychange", looked);
  looked();
  return () => {
    ended = true;
    document.removeEventListener("visibilitychange", looked);
    clearTimeout(leave);
    close();
  };
}
