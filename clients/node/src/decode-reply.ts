/** Bytes to reply records. What breaks a rule is no record; a kind that is unknown is skipped. */

import { ERROR_CODES, type Failure } from "./errors.js";
import { DecodeError, hasAtMost, isInteger, numberOf, type Fields, type Value } from "./fields.js";
import * as limits from "./limits.js";
import { isJobId, isWorker } from "./names.js";
import type { Epoch, ErrorRecord, MixedAdapter, Outcome, ReplyRecord } from "./reply.js";
import { promptLogprobs, tokenLogprobs, wrong } from "./decode-logprobs.js";
import { checkVersion, unpackMap } from "./unpack.js";

const CODES: ReadonlySet<string> = new Set(ERROR_CODES);

/** An error record that is valid but for its code, which version 1 does not know. */
export class UnknownCode extends DecodeError {
  constructor(readonly record: ErrorRecord) {
    super("invalid_job", "invalid_reply", `code: ${record.failure.code} is none of version 1`);
  }
}

/** Read a record; null if its kind is unknown and to be skipped. Throws DecodeError. */
export function decodeReply(data: Uint8Array | null): ReplyRecord | null {
  const fields = unpackMap(data, limits.MAX_REPLY_BYTES);
  checkVersion(fields);
  const kind = fields.get("kind");
  switch (kind) {
    case "claim": {
      const alone = fields.get("alone") ?? false;
      if (typeof alone !== "boolean" || fields.get("alone") === null) throw wrong("alone");
      return { kind, ...head(fields), alone, baseDigest: optionalName(fields, "base_digest") };
    }
    case "release":
      return { kind, ...head(fields) };
    case "tokens":
      return decodeTokens(fields);
    case "done": {
      const index = count(fields, "index");
      const told = text(fields, "text", limits.MAX_REPLY_TEXT_CHARS);
      return { kind, ...head(fields), index, text: told, outcome: decodeOutcome(fields) };
    }
    case "error": {
      const index = count(fields, "index");
      const record: ErrorRecord = { kind, ...head(fields), index, failure: decodeFailure(fields) };
      if (!CODES.has(record.failure.code)) throw new UnknownCode(record);
      return record;
    }
    default:
      if (typeof kind !== "string") throw wrong("kind");
      return null;
  }
}

function head(fields: Fields): { job: string; epoch: Epoch; worker: string } {
  const [job, worker, epoch] = [fields.get("job"), fields.get("worker"), fields.get("epoch")];
  if (!isJobId(job)) throw wrong("job");
  if (!isWorker(worker)) throw wrong("worker");
  if (!Array.isArray(epoch) || epoch.length !== 2) throw wrong("epoch");
  const [generation, attempt] = epoch;
  if (!isInteger(generation, 0, limits.MAX_EPOCH_PART)) throw wrong("epoch");
  if (!isInteger(attempt, 1, limits.MAX_EPOCH_PART)) throw wrong("epoch");
  return { job, worker, epoch: [generation, attempt] };
}

function decodeTokens(fields: Fields): ReplyRecord {
  const ids = fields.get("ids");
  if (!Array.isArray(ids) || ids.length < 1 || ids.length > limits.MAX_TOKENS_PER_RECORD) {
    throw wrong("ids");
  }
  if (!ids.every((id) => isInteger(id, 0, limits.MAX_TOKEN_ID))) throw wrong("ids");
  return {
    kind: "tokens",
    ...head(fields),
    index: count(fields, "index"),
    ids: ids as number[],
    text: text(fields, "text", limits.MAX_REPLY_TEXT_CHARS),
    logprobs: tokenLogprobs(fields.get("logprobs") ?? null, ids.length),
    baseDigest: optionalName(fields, "base_digest"),
  };
}

function decodeOutcome(fields: Fields): Outcome {
  const finishReason = fields.get("finish_reason");
  if (finishReason !== "stop" && finishReason !== "length") throw wrong("finish_reason");
  const [usage, timings] = [map(fields, "usage"), map(fields, "timings")];
  return {
    finishReason,
    usage: {
      promptTokens: count(usage, "prompt_tokens"),
      completionTokens: count(usage, "completion_tokens"),
    },
    adapter: optionalName(fields, "adapter"),
    digest: optionalName(fields, "digest"),
    ...activation(fields),
    adapters: mixture(fields),
    base: text(fields, "base", limits.MAX_REPLY_NAME_CHARS),
    baseDigest: optionalName(fields, "base_digest"),
    earlierBases: earlierBases(fields),
    seed: seed(fields),
    timings: {
      queueMs: milliseconds(timings, "queue_ms"),
      ttftMs: milliseconds(timings, "ttft_ms"),
      totalMs: milliseconds(timings, "total_ms"),
    },
    promptLogprobs: promptLogprobs(fields.get("prompt_logprobs") ?? null),
    metadata: metadata(fields),
  };
}

function decodeFailure(fields: Fields): Failure {
  const [code, retryable] = [fields.get("code"), fields.get("retryable")];
  if (typeof code !== "string") throw wrong("code");
  if (typeof retryable !== "boolean") throw wrong("retryable");
  const given = fields.get("given") ?? null;
  const retryAfterMs = fields.get("retry_after_ms") ?? null;
  return {
    code,
    retryable,
    message: text(fields, "message", limits.MAX_ERROR_MESSAGE_CHARS),
    limit: optionalNumber(fields, "limit"),
    given:
      typeof given === "string"
        ? text(fields, "given", limits.MAX_GIVEN_CHARS)
        : optionalNumber(fields, "given"),
    retryAfterMs:
      retryAfterMs === null ? null : count(fields, "retry_after_ms", limits.MAX_RETRY_AFTER_MS),
    metadata: metadata(fields),
  };
}

function count(fields: Fields, name: string, maximum: number = limits.MAX_INDEX): number {
  const value = fields.get(name);
  if (!isInteger(value, 0, maximum)) throw wrong(name);
  return value;
}

function text(fields: Fields, name: string, characters: number): string {
  const value = fields.get(name);
  if (typeof value !== "string" || !hasAtMost(value, characters)) throw wrong(name);
  return value;
}

function optionalName(fields: Fields, name: string): string | null {
  return (fields.get(name) ?? null) === null ? null : text(fields, name, limits.MAX_REPLY_NAME_CHARS);
}

function optionalNumber(fields: Fields, name: string): number | bigint | null {
  const value = fields.get(name) ?? null;
  const number = value === null ? null : numberOf(value);
  if (number === undefined) throw wrong(name);
  return number;
}

function map(fields: Fields, name: string): Fields {
  const value = fields.get(name);
  if (!(value instanceof Map)) throw wrong(name);
  return value;
}

function milliseconds(fields: Fields, name: string): number {
  const value = numberOf(fields.get(name));
  if (value === undefined || value < 0) throw wrong(name);
  return Number(value);
}

function seed(fields: Fields): bigint {
  const value = fields.get("seed");
  if (typeof value !== "bigint" && !isInteger(value, 0, Number.MAX_SAFE_INTEGER)) {
    throw wrong("seed");
  }
  const exact = BigInt(value);
  if (exact < 0n || exact > limits.MAX_INT64) throw wrong("seed");
  return exact;
}

function activation(fields: Fields): { adapterActiveFrom?: number | null } {
  const name = "adapter_active_from";
  const value = fields.get(name);
  if (value === undefined) return {};
  return { adapterActiveFrom: value === null ? null : count(fields, name) };
}

function mixture(fields: Fields): MixedAdapter[] {
  const rows = fields.get("adapters");
  if (rows === undefined) return [];
  if (!Array.isArray(rows) || rows.length < 1 || rows.length > limits.MAX_MIXED_ADAPTERS) {
    throw wrong("adapters");
  }
  return rows.map((row: Value) => {
    const weight = row instanceof Map ? numberOf(row.get("weight")) : undefined;
    if (!(row instanceof Map) || weight === undefined) throw wrong("adapters");
    return {
      name: text(row, "name", limits.MAX_REPLY_NAME_CHARS),
      digest: text(row, "digest", limits.MAX_REPLY_NAME_CHARS),
      weight: Number(weight),
    };
  });
}

function earlierBases(fields: Fields): string[] {
  const bases = fields.get("earlier_bases") ?? [];
  if (!Array.isArray(bases) || bases.length > limits.MAX_EARLIER_BASES) throw wrong("earlier_bases");
  return bases.map((base) => {
    if (typeof base !== "string" || !hasAtMost(base, limits.MAX_REPLY_NAME_CHARS)) {
      throw wrong("earlier_bases");
    }
    return base;
  });
}

function metadata(fields: Fields): Readonly<Record<string, string>> {
  const entries = fields.has("metadata") ? [...map(fields, "metadata")] : [];
  if (entries.length > limits.MAX_METADATA_ENTRIES) throw wrong("metadata");
  const pairs = entries.map(([key, value]): [string, string] => {
    const fits = typeof value === "string" && hasAtMost(value, limits.MAX_METADATA_VALUE_CHARS);
    if (!fits || !hasAtMost(key, limits.MAX_METADATA_KEY_CHARS)) throw wrong("metadata");
    return [key, value];
  });
  return Object.fromEntries(pairs);
}
