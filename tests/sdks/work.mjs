// Makes calls for both accounts until a file is there, and tells how many, and the hashes of the tokens they bore.

import { createHash } from "node:crypto";
import { existsSync } from "node:fs";
import { setTimeout as pause } from "node:timers/promises";

const told = {};

/** Notes that a call went out with `token`. */
export function note(appid, token) {
  const digest = createHash("sha256").update(token).digest("hex");
  told[appid].calls += 1;
  if (!told[appid].tokens.includes(digest)) told[appid].tokens.push(digest);
}

/** `sdk` makes an SDK for an appid, `call` a call with it. */
export async function work(sdk, call) {
  const sdks = ["stable", "classic"].map((appid) => {
    told[appid] = { calls: 0, tokens: [] };
    return sdk(appid);
  });
  while (!existsSync(process.env.UNTIL)) {
    for (const each of sdks) {
      const answer = await call(each);
      // Some answers of WeChat have no errcode where all is well.
      if (answer.errcode) throw new Error(JSON.stringify(answer));
    }
    await pause(200);
  }
  console.log(JSON.stringify(told));
}
