/** A redirect: to whoever sent a job again, where the answer to the first one begins. */

import { isInteger } from "./fields.js";
import { MAX_INT64, MAX_REPLY_BYTES } from "./limits.js";
import { checkVersion, unpackMap } from "./unpack.js";

/** The offset where the answer to `job` begins; null if `data` is no redirect of it. */
export function decodeRedirect(data: Uint8Array | null, job: string): bigint | null {
  try {
    const fields = unpackMap(data, MAX_REPLY_BYTES);
    checkVersion(fields);
    if (fields.get("kind") !== "redirect" || fields.get("job") !== job) return null;
    return offsetOf(fields.get("reply_from"));
  } catch {
    return null;
  }
}

/** An offset of a log; null if `value` is none. */
export function offsetOf(value: unknown): bigint | null {
  if (isInteger(value, 0, Number.MAX_SAFE_INTEGER)) return BigInt(value);
  return typeof value === "bigint" && value >= 0n && value <= MAX_INT64 ? value : null;
}
