/** Strict UTF-8: what is not well-formed is refused, and nothing is put in its place. */

import { malformed } from "./fields.js";

// `ignoreBOM` keeps a byte order mark as the character that it is.
const decoder = new TextDecoder("utf-8", { fatal: true, ignoreBOM: true });

export function decodeUtf8(data: Uint8Array): string {
  try {
    return decoder.decode(data);
  } catch {
    throw malformed("invalid_utf8", "a text is not UTF-8");
  }
}
