// The daemon's API, as far as this page may use it. The cookie goes along by itself; no call here answers with a token.

/** A refusal: `status` is 0 where nobody answered, `code` and `detail` are the problem's. */
export class Refused extends Error {
  constructor(status, problem) {
    super(problem?.detail ?? `HTTP ${status}`);
    this.status = status;
    this.code = problem?.code ?? null;
    this.problem = problem;
  }
}

let whenSignedOut = () => {};

/** Whom to tell that the key is valid no more. */
export function onSignedOut(listener) {
  whenSignedOut = listener;
}

/** To be called by who learns it otherwise. */
export function signedOut() {
  whenSignedOut();
}

async function call(method, path, body) {
  const headers = { Accept: "application/json" };
  if (method !== "GET") {
    headers["Content-Type"] = "application/json";
    // What came of a refresh, and not the token itself: this page must never hold one.
    headers.Prefer = "return=minimal";
  }
  let answer;
  try {
    answer = await fetch(path, { method, headers, body: body && JSON.stringify(body), cache: "no-store" });
  } catch {
    throw new Refused(0, null);
  }
  const json = answer.status === 204 ? null : await answer.json().catch(() => null);
  if (answer.ok) return json;
  if (answer.status === 401 && path !== "v1/session") whenSignedOut();
  throw new Refused(answer.status, json);
}

const path = (appid, rest = "") => `v1/accounts/${encodeURIComponent(appid)}${rest}`;

export const session = () => call("GET", "v1/session");
export const signIn = (key) => call("POST", "v1/session", { key });
export const signOut = () => call("DELETE", "v1/session");
export const account = (appid) => call("GET", path(appid));
export const history = (appid) => call("GET", path(appid, "/history?limit=100"));
export const refresh = (appid, force) => call("POST", path(appid, `/token/refresh${force ? "?force=true" : ""}`), {});

/** How WeChat's hosts are. */
export const hosts = async () => (await call("GET", "v1/accounts?limit=1")).hosts;

/** All accounts of this key, and how the hosts are. */
export async function accounts() {
  const all = [];
  let page = null;
  do {
    page = await call("GET", `v1/accounts?limit=10000&after=${encodeURIComponent(page?.next ?? "")}`);
    all.push(...page.accounts);
  } while (page.next);
  return { accounts: all, hosts: page.hosts };
}
