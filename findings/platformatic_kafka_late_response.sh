#!/usr/bin/env bash
# @platformatic/kafka 1.35.0: a response that comes after its request's time-out spoils the next one.
#
# A request that nobody answered in time is given up, and its connection stays. When its answer comes
# after all it is not taken out of the connection's buffer, so the answer to the next request is read
# from the wrong place: that request fails, though it was answered at once. Close a connection on which
# a request has timed out. (2.x closes it itself, by its source.)
#
# Here the other end is a few lines of this script: it answers the first request 400 ms late, by a
# time-out of 200 ms, and the second at once. Beside it the same with no answer late.
#
# Seen:  late: failed, failed; in time: answered 42, answered 42
#
# Exit code 0: as described; 1: this has changed.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
npm init -y >/dev/null
npm install --silent --no-audit --no-fund @platformatic/kafka@1.35.0

cat >late.mjs <<'JAVASCRIPT'
import { createServer } from "node:net";
import { Connection, Writer } from "@platformatic/kafka";

const TIMEOUT_MS = 200;
const pause = (ms) => new Promise((resolve) => setTimeout(resolve, ms));

/** Asks twice on one connection; returns what became of each. */
async function twice(firstAfterMs) {
  let requests = 0;
  const server = createServer((socket) => {
    socket.on("data", (data) => {
      const answer = Buffer.alloc(12); // length, correlation id, 42
      answer.writeInt32BE(8, 0);
      answer.writeInt32BE(data.readInt32BE(8), 4);
      answer.writeInt32BE(42, 8);
      setTimeout(() => socket.write(answer), requests++ === 0 ? firstAfterMs : 0);
    });
  });
  await new Promise((resolve) => server.listen(0, "127.0.0.1", resolve));
  const connection = new Connection("finding", { requestTimeout: TIMEOUT_MS });
  connection.on("error", () => {});
  await connection.connect("127.0.0.1", server.address().port);
  const ask = () =>
    new Promise((resolve) => {
      const payload = () => Writer.create().appendInt8(0);
      const parse = (_id, _key, _version, reader) => reader.readInt32();
      connection.send(3, 0, payload, parse, false, false, (error, value) =>
        resolve(error ? "failed" : `answered ${value}`),
      );
    });
  const first = await ask();
  await pause(2 * TIMEOUT_MS);
  return `${first}, ${await ask()}`;
}

const late = await twice(2 * TIMEOUT_MS);
const inTime = await twice(0);
console.log(`late: ${late}; in time: ${inTime}`);
process.exit(late === "failed, failed" && inTime === "answered 42, answered 42" ? 0 : 1);
JAVASCRIPT
if timeout 20 node late.mjs; then
  echo "as described"
else
  echo "this has changed"
  exit 1
fi
