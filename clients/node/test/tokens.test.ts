import assert from "node:assert/strict";
import { test } from "node:test";

import { BadToken, JobConflict } from "../dist/errors.js";
import { Inbox } from "../dist/inbox.js";
import { ResumeToken } from "../dist/token.js";
import { described } from "./described.js";
import { bytesOf, load, type Vector } from "./vectors.js";
import { fetched } from "./worker.js";

const FAILURES: Record<string, typeof BadToken | typeof JobConflict> = { bad_token: BadToken, conflict: JobConflict };

function tokenOf({ job, partition, reply_from: replyFrom, count, resets }: Vector): ResumeToken {
  return new ResumeToken(job, partition, BigInt(replyFrom), count, resets);
}

for (const vector of load("tokens").vectors) {
  test(`tokens: ${vector.name}`, () => {
    if (vector.expect.error !== undefined) {
      assert.throws(() => ResumeToken.parse(vector.text), BadToken);
      return;
    }
    const token = tokenOf(vector.expect);
    assert.deepEqual(ResumeToken.parse(vector.text), token);
    assert.equal(String(token), vector.canonical ?? vector.text);
  });
}

for (const vector of load("resumes").vectors) {
  test(`resumes: ${vector.name}`, () => {
    const { job, partition, replyFrom, count, resets } = ResumeToken.parse(vector.token);
    const resumeAt = { resets, tokens: count };
    const inbox = new Inbox({ job, partition, position: replyFrom, limit: 100, resumeAt });
    for (let at = Number(replyFrom); at < vector.log.length && inbox.failure === null; at += 1) {
      inbox.offer(fetched(at, job, bytesOf(vector.log[at])));
      if (inbox.redirected) {
        at = Number(inbox.position) - 1;
        inbox.stalled = inbox.redirected = false;
      }
    }
    const events = [];
    for (let event = inbox.take(); event !== undefined; event = inbox.take()) events.push(described(event));
    assert.deepEqual(events, vector.expect.events ?? []);
    const failure = FAILURES[vector.expect.error ?? ""];
    assert.equal(inbox.failure?.constructor, failure);
  });
}
