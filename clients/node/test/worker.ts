/** What a worker would append, for tests that play one. */

import { encode } from "@msgpack/msgpack";

import { hashOf } from "../dist/conflict.js";
import type { Fetched } from "../dist/transport.js";

interface Writer {
  epoch?: [number, number];
  worker?: string;
}

function record(kind: string, job: string, fields: object, writer: Writer = {}): Uint8Array {
  const { epoch = [1, 1], worker = "w" } = writer;
  return encode({ v: 1, kind, job, epoch, worker, ...fields }, { useBigInt64: true });
}

/** One token for each id; by default as many as the text has characters. */
export function tokens(job: string, index: number, text: string, writer: Writer & { ids?: number[] } = {}): Uint8Array {
  const { ids = [...text].map((_, at) => index + at), ...rest } = writer;
  return record("tokens", job, { index, ids, text }, rest);
}

export function claim(job: string, writer: Writer): Uint8Array {
  return record("claim", job, {}, writer);
}

export function done(job: string, index: number, writer: Writer = {}): Uint8Array {
  const fields = {
    index,
    text: "",
    finish_reason: "stop",
    usage: { prompt_tokens: 2, completion_tokens: index },
    adapter: null,
    digest: null,
    base: "tiny",
    seed: 7,
    timings: { queue_ms: 0.5, ttft_ms: 1, total_ms: 2 },
    metadata: { order: "81" },
  };
  return record("done", job, fields, writer);
}

export function failed(job: string, index: number, fields: object = {}): Uint8Array {
  const plain = { index, code: "limit_exceeded", message: "too much", retryable: false };
  return record("error", job, { ...plain, ...fields });
}

export function redirect(job: string, replyFrom: number): Uint8Array {
  return encode({ v: 1, kind: "redirect", job, reply_from: replyFrom });
}

/** What a worker says of a record whose job's id another job has. */
export function conflict(job: string, value: Uint8Array, replyFrom: number | null = null): Uint8Array {
  return encode({ v: 1, kind: "conflict", job, sha256: hashOf(value), reply_from: replyFrom });
}

/** A whole answer, a record for each text. */
export function answer(job: string, texts: readonly string[]): Uint8Array[] {
  let index = 0;
  const records = texts.map((text) => {
    const each = tokens(job, index, text);
    index += [...text].length;
    return each;
  });
  return [...records, done(job, index)];
}

/** A record as it lies in partition 0 of a log. */
export function fetched(offset: number, job: string, value: Uint8Array): Fetched {
  return { partition: 0, offset: BigInt(offset), key: Buffer.from(job), value: Buffer.from(value) };
}
