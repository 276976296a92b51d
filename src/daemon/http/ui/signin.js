// Signing in with a client's key. The key goes to the server once and comes back in a cookie that no script can read.

import * as api from "./api.js";
import { el, setText } from "./dom.js";
import { t } from "./language.js";

/** The form. `why` says why it is shown once more; `done` is called when somebody is in. */
export function signInView(why, done) {
  const said = el("p", { class: "said", role: "alert" }, why ?? "");
  const key = el("input", {
    type: "password",
    id: "key",
    name: "key",
    required: true,
    autocomplete: "current-password",
    spellcheck: "false",
  });
  const button = el("button", { type: "submit", class: "main" }, t("sign-in"));
  const submit = async (event) => {
    event.preventDefault();
    button.disabled = true;
    setText(said, "");
    try {
      await api.signIn(key.value);
      key.value = "";
      done();
    } catch (refused) {
      const detail = refused.status === 0 ? t("unreachable") : refused.message;
      said.shownText = null;
      setText(said, refused.status === 401 ? t("sign-in.wrong") : t("failed", { detail }));
      key.select();
    } finally {
      button.disabled = false;
    }
  };
  const form = el(
    "form",
    { class: "sign-in", method: "post", onsubmit: submit },
    el("h1", {}, t("sign-in")),
    el("p", {}, t("sign-in.about")),
    el("label", { for: "key" }, t("sign-in.key")),
    key,
    button,
    said,
  );
  return { node: form, focus: () => key.focus() };
}
