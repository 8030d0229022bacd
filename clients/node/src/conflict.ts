/** A conflict: to whoever sent a job whose id another job has, that this one is not answered. */

import { createHash } from "node:crypto";

import { offsetOf } from "./redirect.js";
import { MAX_REPLY_BYTES } from "./limits.js";
import { checkVersion, unpackMap } from "./unpack.js";

const SHA256 = /^[0-9a-f]{64}$/;

export interface Conflict {
  /** Of the value of the record that is not answered, in hexadecimal. */
  readonly sha256: string;
  /** Where its sender began to read; null: not told. */
  readonly replyFrom: bigint | null;
}

/** What a conflict says of a record. */
export function hashOf(value: Uint8Array): string {
  return createHash("sha256").update(value).digest("hex");
}

/** What is said of a job of this id; null if `data` is no conflict about it. */
export function decodeConflict(data: Uint8Array | null, job: string): Conflict | null {
  try {
    const fields = unpackMap(data, MAX_REPLY_BYTES);
    checkVersion(fields);
    if (fields.get("kind") !== "conflict" || fields.get("job") !== job) return null;
    const sha256 = fields.get("sha256");
    if (typeof sha256 !== "string" || !SHA256.test(sha256)) return null;
    const place = fields.get("reply_from") ?? null;
    if (place === null) return { sha256, replyFrom: null };
    const replyFrom = offsetOf(place);
    return replyFrom === null ? null : { sha256, replyFrom };
  } catch {
    return null;
  }
}
