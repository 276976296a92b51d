// node-easywechat, which sends all its calls to one base URL and keeps its tokens in files as long as it is promised.

import EasyWeChat from "node-easywechat";
import { note, work } from "./work.mjs";

const { HUB, KEY, CACHE } = process.env;

function app(appid) {
  const made = new EasyWeChat.OfficialAccount({
    app_id: appid,
    secret: KEY,
    http: { baseURL: HUB },
    use_stable_access_token: appid === "stable",
    file_cache: { path: CACHE },
  });
  made.getHttpClient().getInstance().interceptors.request.use((request) => {
    if (request.params?.access_token) note(appid, request.params.access_token);
    return request;
  });
  return made;
}

await work(app, async (made) => {
  const json = { touser: "someone", msgtype: "text", text: { content: "你好" } };
  const answer = await made.getClient().post("cgi-bin/message/custom/send", { json });
  return answer.toObject();
});
