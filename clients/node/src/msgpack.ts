/**
 * msgpack to values, by hand: libraries for JavaScript read 1.0 as 1, take the last of two equal
 * keys, mend bad UTF-8 and know extension types. A reader may do none of that.
 */

import { integer, malformed, real, type Fields, type Shape, type Value } from "./fields.js";
import { decodeUtf8 } from "./utf8.js";

/** Read one value that fills all of `data`. Throws DecodeError. */
export function parseMsgpack(data: Uint8Array, shape: Shape): Value {
  const parser = new Parser(data, shape);
  const value = parser.value(1);
  if (parser.left > 0) throw malformed("trailing_bytes", "bytes follow the record");
  return value;
}

class Parser {
  readonly #data: Uint8Array;
  readonly #view: DataView;
  readonly #shape: Shape;
  #at = 0;

  constructor(data: Uint8Array, shape: Shape) {
    this.#data = data;
    this.#view = new DataView(data.buffer, data.byteOffset, data.byteLength);
    this.#shape = shape;
  }

  get left(): number {
    return this.#data.length - this.#at;
  }

  /** Read the next value; if it is a map or an array, it is at this depth. */
  value(depth: number): Value {
    const header = this.#view.getUint8(this.#take(1));
    if (header < 0x80) return header;
    if (header >= 0xe0) return header - 0x100;
    if (header < 0x90) return this.#map(header & 0x0f, depth);
    if (header < 0xa0) return this.#array(header & 0x0f, depth);
    if (header < 0xc0) return this.#text(header & 0x1f);
    switch (header) {
      case 0xc0: return null;
      case 0xc2: return false;
      case 0xc3: return true;
      case 0xc4: return this.#bytes(this.#uint8());
      case 0xc5: return this.#bytes(this.#uint16());
      case 0xc6: return this.#bytes(this.#uint32());
      case 0xca: return real(this.#view.getFloat32(this.#take(4)));
      case 0xcb: return real(this.#view.getFloat64(this.#take(8)));
      case 0xcc: return this.#uint8();
      case 0xcd: return this.#uint16();
      case 0xce: return this.#uint32();
      case 0xcf: return integer(this.#view.getBigUint64(this.#take(8)));
      case 0xd0: return this.#view.getInt8(this.#take(1));
      case 0xd1: return this.#view.getInt16(this.#take(2));
      case 0xd2: return this.#view.getInt32(this.#take(4));
      case 0xd3: return integer(this.#view.getBigInt64(this.#take(8)));
      case 0xd9: return this.#text(this.#uint8());
      case 0xda: return this.#text(this.#uint16());
      case 0xdb: return this.#text(this.#uint32());
      case 0xdc: return this.#array(this.#uint16(), depth);
      case 0xdd: return this.#array(this.#uint32(), depth);
      case 0xde: return this.#map(this.#uint16(), depth);
      case 0xdf: return this.#map(this.#uint32(), depth);
      case 0xc1: throw malformed("not_msgpack", "0xc1 is nothing in msgpack");
      default: throw malformed("extension_type", "extension types are not part of the contract");
    }
  }

  #uint8(): number {
    return this.#view.getUint8(this.#take(1));
  }

  #uint16(): number {
    return this.#view.getUint16(this.#take(2));
  }

  #uint32(): number {
    return this.#view.getUint32(this.#take(4));
  }

  /** Pass over so many bytes and return where they began. */
  #take(bytes: number): number {
    const at = this.#at;
    this.#holds(bytes);
    this.#at += bytes;
    return at;
  }

  /** Nothing is made for a length that the record cannot hold. */
  #holds(bytes: number): void {
    if (bytes > this.left) throw malformed("truncated", "the record promises more than it holds");
  }

  #bytes(length: number): Uint8Array {
    this.#shape.part();
    const at = this.#take(length);
    return this.#data.subarray(at, at + length);
  }

  #text(length: number): string {
    return decodeUtf8(this.#bytes(length));
  }

  #array(length: number, depth: number): Value[] {
    this.#holds(length);
    this.#shape.container(depth);
    this.#shape.elements(length);
    const array: Value[] = [];
    for (let left = length; left > 0; left -= 1) array.push(this.value(depth + 1));
    return array;
  }

  #map(length: number, depth: number): Fields {
    this.#holds(2 * length);
    this.#shape.container(depth);
    this.#shape.fields(length);
    this.#shape.elements(2 * length);
    const fields: Fields = new Map();
    for (let left = length; left > 0; left -= 1) {
      const key = this.value(depth + 1);
      if (typeof key !== "string") throw malformed("key_not_text", "a map has a key that is no text");
      if (fields.has(key)) throw malformed("duplicate_key", "a map has the same key twice");
      fields.set(key, this.value(depth + 1));
    }
    return fields;
  }
}
