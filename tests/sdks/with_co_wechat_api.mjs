// co-wechat-api, which takes its tokens from a function: ours asks wxtokend's own API for each call.

import WeChatAPI from "co-wechat-api";
import { note, work } from "./work.mjs";

const { API, KEY, WECHAT } = process.env;

function api(appid) {
  const token = async () => {
    const headers = { Authorization: `Bearer ${KEY}` };
    const answer = await fetch(`${API}/v1/accounts/${appid}/token`, { headers });
    if (!answer.ok) throw new Error(await answer.text());
    const { access_token, expires_in } = await answer.json();
    note(appid, access_token);
    // It puts a token into URLs as it is.
    return { accessToken: encodeURIComponent(access_token), expireTime: Date.now() + expires_in * 1000 };
  };
  const tokenFromCustom = true;
  const made = new WeChatAPI(appid, "", token, null, tokenFromCustom);
  made.prefix = `${WECHAT}/cgi-bin/`;
  return made;
}

await work(api, (made) => made.getFollowers());
