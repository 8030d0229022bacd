import assert from "node:assert/strict";
import { test } from "node:test";

import { encode } from "@msgpack/msgpack";

import { type Conflict, decodeConflict } from "../dist/conflict.js";
import { decodeReply, UnknownCode } from "../dist/decode-reply.js";
import { DecodeError } from "../dist/fields.js";
import { decodeRedirect } from "../dist/redirect.js";
import type { Outcome, PromptLogprobs, ReplyRecord, TokenLogprobs } from "../dist/reply.js";
import { bytesOf, load, type Vector } from "./vectors.js";
import { failed } from "./worker.js";

type Plain = Record<string, unknown>;

/** A record as the vectors write it: optional fields are there if they say something. */
function described(record: ReplyRecord): Plain {
  const { kind, job, epoch, worker } = record;
  const head = { kind, job, epoch, worker };
  switch (record.kind) {
    case "claim":
      return { ...head, ...(record.alone && { alone: true }), ...told("base_digest", record.baseDigest) };
    case "release":
      return head;
    case "tokens":
      return {
        ...head,
        index: record.index,
        ids: record.ids,
        text: record.text,
        ...told("logprobs", record.logprobs?.map(flat)),
        ...told("base_digest", record.baseDigest),
      };
    case "done":
      return { ...head, index: record.index, text: record.text, ...outcome(record.outcome) };
    case "error": {
      const { code, message, retryable, limit, given, retryAfterMs, metadata } = record.failure;
      return {
        ...head,
        index: record.index,
        code,
        message,
        retryable,
        ...told("limit", limit),
        ...told("given", given),
        ...told("retry_after_ms", retryAfterMs),
        metadata,
      };
    }
  }
}

function outcome(told_: Outcome): Plain {
  const { usage, timings } = told_;
  return {
    finish_reason: told_.finishReason,
    usage: { prompt_tokens: usage.promptTokens, completion_tokens: usage.completionTokens },
    adapter: told_.adapter,
    digest: told_.digest,
    ...("adapterActiveFrom" in told_ && { adapter_active_from: told_.adapterActiveFrom }),
    ...(told_.adapters.length > 0 && { adapters: told_.adapters }),
    base: told_.base,
    ...told("base_digest", told_.baseDigest),
    ...(told_.earlierBases.length > 0 && { earlier_bases: told_.earlierBases }),
    seed: Number.isSafeInteger(Number(told_.seed)) ? Number(told_.seed) : told_.seed,
    timings: { queue_ms: timings.queueMs, ttft_ms: timings.ttftMs, total_ms: timings.totalMs },
    ...told("prompt_logprobs", told_.promptLogprobs && together(told_.promptLogprobs)),
    metadata: told_.metadata,
  };
}

function together(rows: PromptLogprobs): Plain {
  const [first, ...rest] = rows;
  assert.equal(first, null);
  const numbers = rest.flatMap((row) => flat(row!));
  return { top: rest[0]?.top.length ?? 0, numbers };
}

function flat(row: TokenLogprobs): number[] {
  return [row.chosen, ...row.top.flat()];
}

function told(name: string, value: unknown): Plain {
  return value === null || value === undefined ? {} : { [name]: value };
}

/** A conflict as it is decoded. */
function placed({ sha256, reply_from: place }: Vector): Conflict {
  return { sha256, replyFrom: place === null ? null : BigInt(place) };
}

for (const vector of load("replies").vectors) {
  test(`replies: ${vector.name}`, () => {
    const data = bytesOf(vector);
    const { record, error, redirect, conflict } = vector.expect;
    if (error !== undefined) {
      assert.throws(
        () => decodeReply(data),
        (thrown) =>
          thrown instanceof DecodeError && thrown.code === error.code && thrown.reason === error.reason,
      );
      return;
    }
    const found = decodeReply(data);
    assert.deepEqual(decodeRedirect(data, "j1"), redirect === undefined || redirect === null ? null : BigInt(redirect));
    assert.deepEqual(decodeConflict(data, "j1"), conflict === undefined || conflict === null ? null : placed(conflict));
    assert.equal(found === null, "skipped" in vector.expect);
    if (found !== null) assert.deepEqual(described(found), record);
  });
}

test("a code that is unknown is kept as text", () => {
  const vector = load("replies").vectors.find((each) => each.name === "unknown code");
  assert.throws(
    () => decodeReply(bytesOf(vector)),
    (error) => error instanceof UnknownCode && /^[a-z_]+$/.test(error.record.failure.code),
  );
});

test("an offset past 2^53 is exact, in both forms", () => {
  const offset = 2n ** 63n - 1n;
  const json = `{"v":1,"kind":"redirect","job":"j1","reply_from":${offset}}`;
  assert.equal(decodeRedirect(Buffer.from(json), "j1"), offset);
  const head = Buffer.from("84a17601a46b696e64a87265646972656374a36a6f62a26a31aa7265706c795f66726f6dcf", "hex");
  const tail = Buffer.alloc(8);
  tail.writeBigUInt64BE(offset);
  assert.equal(decodeRedirect(Buffer.concat([head, tail]), "j1"), offset);
  assert.equal(decodeRedirect(Buffer.from(json.replace("807}", "808}")), "j1"), null);
});

test("a text may begin with a byte order mark, which is a character of it", () => {
  const text = "\ufeffx";
  const told = { v: 1, kind: "tokens", job: "j1", epoch: [1, 1], worker: "w", index: 0, ids: [1], text };
  for (const data of [Buffer.from(JSON.stringify(told)), encode(told)]) {
    const record = decodeReply(data);
    assert.ok(record?.kind === "tokens" && record.text === text);
  }
});

test("lengths are counted in characters, not in halves of them", () => {
  const told = (message: string): Uint8Array => failed("j1", 0, { message });
  assert.equal(decodeReply(told("🙂".repeat(500)))?.kind, "error");
  assert.throws(() => decodeReply(told("🙂".repeat(501))), DecodeError);
  assert.throws(() => decodeReply(told("x".repeat(501))), DecodeError);
});

test("what JSON must not say", () => {
  const tokens = (text: string): Buffer =>
    Buffer.from(
      `{"v":1,"kind":"tokens","job":"j1","epoch":[1,1],"worker":"w","index":0,"ids":[1],"text":${text}}`,
    );
  assert.equal(decodeReply(tokens('"\\ud83d\\ude42"'))?.kind, "tokens");
  for (const bad of ['"\\ud83d"', '"a\nb"', '"\\x41"', '"open', "1", "01", "[1,]", "{,}", "tru", "1e400"]) {
    assert.throws(() => decodeReply(tokens(bad)), DecodeError, bad);
  }
  const real = tokens('"x"').toString().replace('"index":0', '"index":0.0');
  assert.throws(() => decodeReply(Buffer.from(real)), DecodeError);
  assert.throws(() => decodeReply(Buffer.concat([tokens('"x"'), Buffer.from("x")])), DecodeError);
  assert.throws(() => decodeReply(tokens('"x","y":123456789012345678901')), DecodeError);
  assert.throws(() => decodeReply(Buffer.from('{"v":1,"kind":"\xff"}', "latin1")), DecodeError);
});
