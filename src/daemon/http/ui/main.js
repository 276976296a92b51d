// The status page: who is signed in, which view is shown, and what keeps it moving.

import { AccountView } from "./account.js";
import * as api from "./api.js";
import { setAttribute, setText } from "./dom.js";
import { Fleet } from "./fleet.js";
import { t, toggleLanguage } from "./language.js";
import { follow } from "./live.js";
import { Overview } from "./overview.js";
import { signInView } from "./signin.js";
import { hostsBanner } from "./hosts.js";
import { clockTime, setClock } from "./time.js";

const byId = (id) => document.getElementById(id);
const main = byId("main");

let session = null;
let fleet = new Fleet();
let unfollow = () => {};
let overview = null;
let view = null;
let link = "connecting";

/** `#/accounts/{appid}` */
function addressed() {
  const appid = /^#\/accounts\/([^/?]+)$/.exec(location.hash)?.[1];
  try {
    return appid ? decodeURIComponent(appid) : null;
  } catch {
    return null;
  }
}

function replaceView(next) {
  if (view === next) return;
  if (view === overview) view?.leave();
  else view?.end();
  view = next;
  main.replaceChildren(view.node);
  view.show();
}

/** Shows what the address says. */
function route() {
  if (session === null) return;
  if (!session.allow.includes("read")) {
    main.replaceChildren(t("no-read"));
    return;
  }
  const appid = addressed();
  if (appid) {
    if (overview) overview.opened = appid;
    replaceView(new AccountView(appid, session.allow.includes("admin")));
  } else {
    overview ??= new Overview(fleet);
    replaceView(overview);
  }
}

function showChrome() {
  document.title = `wxtokend – ${t("title")}`;
  setText(byId("who"), session === null ? "" : (session.client ?? t("local")));
  setText(byId("language"), t("language"));
  setAttribute(byId("language"), "aria-label", t("language.about"));
  setAttribute(byId("language"), "lang", t("language") === "中文" ? "zh-CN" : "en");
  setText(byId("leave"), t("sign-out"));
  byId("leave").hidden = session?.client == null;
  const isLive = session !== null && session.allow.includes("read");
  byId("live").dataset.link = isLive ? link : "none";
  setText(byId("live"), isLive ? t(link) : "");
  const off = isLive && link === "offline";
  byId("banner").hidden = !off;
  showHosts();
  setText(byId("banner"), off ? t("offline.about", { at: fleet.heardAt === null ? "–" : clockTime(fleet.heardAt) }) : "");
}

function showHosts() {
  const told = hostsBanner(fleet);
  byId("hosts").hidden = told === "";
  setText(byId("hosts"), told);
}

function forgetViews() {
  if (view && view !== overview) view.end();
  overview?.end();
  overview = null;
  view = null;
}

/** Nobody is signed in any more; what was shown must not be seen by who comes next. */
function showSignIn(why) {
  unfollow();
  forgetViews();
  session = null;
  fleet = new Fleet();
  showChrome();
  const form = signInView(why, start);
  main.replaceChildren(form.node);
  form.focus();
}

async function start() {
  try {
    session = await api.session();
  } catch (refused) {
    if (refused.status === 401) return showSignIn();
    main.replaceChildren(t("failed", { detail: refused.status === 0 ? t("unreachable") : refused.message }));
    setTimeout(start, 3000);
    return;
  }
  setClock(session.now);
  unfollow();
  if (session.allow.includes("read")) {
    const tell = (state) => {
      link = state;
      fleet.isLive = state === "live";
      showChrome();
      view?.changed(null);
    };
    const changed = (appid) => {
      if (appid === null) showHosts();
      view?.changed(appid);
    };
    unfollow = follow(fleet, tell, changed);
  }
  showChrome();
  route();
}

api.onSignedOut(() => session !== null && showSignIn(t("sign-in.ended")));
byId("leave").onclick = async () => {
  try {
    await api.signOut();
  } catch (refused) {
    // Only the server can take the cookie away: a form to sign in would make believe that it has.
    setText(byId("leave"), `${t("sign-out")}: ${refused.status === 0 ? t("unreachable") : refused.message}`);
    return;
  }
  showSignIn();
};
byId("language").onclick = () => {
  toggleLanguage();
  if (session === null) return showSignIn();
  forgetViews();
  showChrome();
  route();
};
addEventListener("hashchange", () => {
  // Typing an address with another query shows that; our own changes of it raise no event.
  if (view !== null && view === overview && !addressed()) view.show();
  else route();
});
addEventListener("keydown", (event) => {
  if (!event.ctrlKey && !event.metaKey && !event.altKey && !event.isComposing) view?.key(event);
});
setInterval(() => view?.settle(), 500);
setInterval(() => view?.tick(), 1000);

showChrome();
start();
