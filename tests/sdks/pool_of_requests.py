"""requests, whose pool keeps connections without a limit and takes one that the server has not ended yet."""

import json
import os
import random
import threading
import time

import requests

API, METRICS = os.environ["API"], os.environ["METRICS"]
IDLE, REQUESTS = float(os.environ["IDLE"]), int(os.environ["REQUESTS"])
failed = []


def use(number):
    session = requests.Session()
    session.trust_env = False
    for round in range(REQUESTS):
        # At the very end of the limit only luck tells who is first, which such a pool leaves to its caller.
        rest = random.choice((random.uniform(0, 0.9), random.uniform(1.1, 1.4)))
        time.sleep(rest * IDLE)
        try:
            if number % 3 == 2:
                answer = session.get(METRICS + "/healthz", timeout=20)
            elif (number + round) % 2:
                answer = session.get(API + "/v1/accounts/stable/token", timeout=20)
            else:
                body = {"access_token": "an older one"}
                answer = session.post(API + "/v1/accounts/stable/token/reject", json=body, timeout=20)
            answer.raise_for_status()
        except requests.RequestException as error:
            failed.append(f"after {rest:.3f} of the limit: {error!r}")


threads = [threading.Thread(target=use, args=(n,)) for n in range(int(os.environ["CONNECTIONS"]))]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
print(json.dumps(failed))
