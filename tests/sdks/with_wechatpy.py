"""wechatpy, whose sessions are in the Redis that wxtokend publishes to."""

import hashlib
import json
import os
import time
from urllib.parse import parse_qs, urlsplit

from redis import Redis
from requests.adapters import HTTPAdapter
from wechatpy import WeChatClient
from wechatpy.session.redisstorage import RedisStorage


class Simulated(HTTPAdapter):
    """Brings every call for WeChat to the simulated one, those of its token, whose URL wechatpy fixes, too."""

    def send(self, request, **options):
        request.url = request.url.replace("https://api.weixin.qq.com", os.environ["WECHAT"], 1)
        return super().send(request, **options)


def client(appid):
    session = RedisStorage(Redis.from_url(os.environ["REDIS"]))
    # What fetches by itself when a token is refused stays off. The AppSecret is not here; where calls are passed on, a
    # client's key is, for the moment in which there is no token in the Redis.
    made = WeChatClient(appid, os.environ.get("SECRET", ""), session=session, auto_retry=False)
    made._http.mount("https://", Simulated())
    return made


told = {appid: {"calls": 0, "tokens": []} for appid in ("stable", "classic")}
clients = {appid: client(appid) for appid in told}


def note(appid):
    def sent(response, **_):
        for token in parse_qs(urlsplit(response.request.url).query).get("access_token", []):
            digest = hashlib.sha256(token.encode()).hexdigest()
            told[appid]["calls"] += 1
            if digest not in told[appid]["tokens"]:
                told[appid]["tokens"].append(digest)

    return sent


for appid, each in clients.items():
    each._http.hooks["response"].append(note(appid))
while not os.path.exists(os.environ["UNTIL"]):
    for each in clients.values():
        each.user.get_followers()
    time.sleep(0.2)
print(json.dumps(told))
