// undici, which is Node's fetch: its pool keeps connections for as long as it is told, and a second less.

import { setTimeout as pause } from "node:timers/promises";

const { API, METRICS } = process.env;
const [idle, requests, connections] = ["IDLE", "REQUESTS", "CONNECTIONS"].map((name) => Number(process.env[name]));
const failed = [];

async function use(number) {
  for (let round = 0; round < requests; round += 1) {
    const rest = Math.random() * 1.4;
    await pause(rest * idle * 1000);
    try {
      let answer;
      if (number % 3 === 2) {
        answer = await fetch(`${METRICS}/healthz`);
      } else if ((number + round) % 2) {
        answer = await fetch(`${API}/v1/accounts/stable/token`);
      } else {
        const body = JSON.stringify({ access_token: "an older one" });
        const headers = { "content-type": "application/json" };
        answer = await fetch(`${API}/v1/accounts/stable/token/reject`, { method: "POST", headers, body });
      }
      await answer.text();
      if (!answer.ok) throw new Error(`HTTP ${answer.status}`);
    } catch (error) {
      failed.push(`after ${rest.toFixed(3)} of the limit: ${error} (${error.cause})`);
    }
  }
}

await Promise.all(Array.from({ length: connections }, (_, number) => use(number)));
console.log(JSON.stringify(failed));
