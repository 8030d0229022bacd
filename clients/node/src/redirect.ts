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
    const start = fields.get("reply_from");
    if (isInteger(start, 0, Number.MAX_SAFE_INTEGER)) return BigInt(start);
    return typeof start === "bigint" && start >= 0n && start <= MAX_INT64 ? start : null;
  } catch {
    return null;
  }
}
