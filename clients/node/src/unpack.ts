/** From untrusted bytes to one map of fields, in msgpack or JSON. */

import { DecodeError, malformed, Shape, type Fields } from "./fields.js";
import { parseJson } from "./json.js";
import { VERSION } from "./limits.js";
import { parseMsgpack } from "./msgpack.js";

const BLANKS: ReadonlySet<number | undefined> = new Set([0x20, 0x09, 0x0a, 0x0d]);
const BRACE = 0x7b;

/** Read the map that `data` is. Throws DecodeError; `data` may be null, as a Kafka value may be. */
export function unpackMap(data: Uint8Array | null, maxBytes: number): Fields {
  if (data === null || data.length === 0) throw malformed("empty", "the record has no value");
  const shape = new Shape();
  shape.bytes(data.length, maxBytes);
  const value = isJson(data) ? parseJson(data, shape) : parseMsgpack(data, shape);
  if (!(value instanceof Map)) throw malformed("not_a_map", "the record is not a map");
  return value;
}

/** Refuse any `v` but the integer 1. */
export function checkVersion(fields: Fields): void {
  if (fields.get("v") !== VERSION) {
    const message = `v: this client reads version ${VERSION}`;
    throw new DecodeError("unsupported_version", "unsupported_version", message);
  }
}

function isJson(data: Uint8Array): boolean {
  let at = 0;
  while (BLANKS.has(data[at])) at += 1;
  return data[at] === BRACE;
}
