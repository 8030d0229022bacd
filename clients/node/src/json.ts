/**
 * JSON to values, by hand: `JSON.parse` reads 1.0 as 1, rounds integers past 2^53, takes the last
 * of two equal keys and lets halves of characters through.
 */

import { integer, malformed, real, type Fields, type Shape, type Value } from "./fields.js";
import { MAX_UINT64, MIN_INT64 } from "./limits.js";
import { decodeUtf8 } from "./utf8.js";

const NUMBER = /-?(?:0|[1-9][0-9]*)(\.[0-9]+)?([eE][+-]?[0-9]+)?/y;
const WORDS: ReadonlyArray<[string, Value]> = [["null", null], ["true", true], ["false", false]];
const MAX_DIGITS = 20; // of 64 bits, a sign included
const QUOTE = 0x22;
const BACKSLASH = 0x5c;

/** Read one value that fills all of `data`, blanks aside. Throws DecodeError. */
export function parseJson(data: Uint8Array, shape: Shape): Value {
  const parser = new Parser(decodeUtf8(data), shape);
  const value = parser.value(1);
  if (!parser.atEnd) throw notJson();
  return value;
}

function notJson(): Error {
  return malformed("not_json", "the record is not well-formed JSON");
}

class Parser {
  readonly #text: string;
  readonly #shape: Shape;
  #at = 0;

  constructor(text: string, shape: Shape) {
    this.#text = text;
    this.#shape = shape;
  }

  get atEnd(): boolean {
    return this.#peek() === "";
  }

  /** Read the next value; if it is a map or an array, it is at this depth. */
  value(depth: number): Value {
    const first = this.#peek();
    if (first === "{") return this.#map(depth);
    if (first === "[") return this.#array(depth);
    if (first === '"') return this.#string();
    for (const [word, value] of WORDS) {
      if (this.#text.startsWith(word, this.#at)) {
        this.#at += word.length;
        return value;
      }
    }
    return this.#number();
  }

  /** The next character behind blanks; empty at the end. */
  #peek(): string {
    while (" \t\n\r".includes(this.#text[this.#at] ?? "?")) this.#at += 1;
    return this.#text[this.#at] ?? "";
  }

  /** Whether the next character is this one; it is passed over then. */
  #passes(character: string): boolean {
    if (this.#peek() !== character) return false;
    this.#at += 1;
    return true;
  }

  #expect(character: string): void {
    if (!this.#passes(character)) throw notJson();
  }

  #map(depth: number): Fields {
    this.#expect("{");
    this.#shape.container(depth);
    const fields: Fields = new Map();
    if (this.#passes("}")) return fields;
    do {
      if (this.#peek() !== '"') throw notJson();
      const key = this.#string();
      if (fields.has(key)) throw malformed("duplicate_key", "a map has the same key twice");
      this.#expect(":");
      fields.set(key, this.value(depth + 1));
      this.#shape.fields(fields.size);
    } while (this.#goesOn());
    this.#expect("}");
    return fields;
  }

  #array(depth: number): Value[] {
    this.#expect("[");
    this.#shape.container(depth);
    const array: Value[] = [];
    if (this.#passes("]")) return array;
    do {
      array.push(this.value(depth + 1));
    } while (this.#goesOn());
    this.#expect("]");
    return array;
  }

  /** Commas count as elements. */
  #goesOn(): boolean {
    if (!this.#passes(",")) return false;
    this.#shape.elements(1);
    return true;
  }

  #string(): string {
    this.#shape.part();
    const start = this.#at;
    let at = start + 1;
    let plain = true;
    for (let unit = this.#text.charCodeAt(at); unit !== QUOTE; unit = this.#text.charCodeAt(at)) {
      if (!(unit >= 0x20)) throw notJson(); // a control character, or NaN at the end
      plain &&= unit !== BACKSLASH;
      at += unit === BACKSLASH ? 2 : 1;
    }
    this.#at = at + 1;
    const text = plain ? this.#text.slice(start + 1, at) : unescaped(this.#text.slice(start, at + 1));
    if (!text.isWellFormed()) throw malformed("invalid_utf8", "a text has half a character");
    return text;
  }

  #number(): Value {
    NUMBER.lastIndex = this.#at;
    const found = NUMBER.exec(this.#text);
    if (found === null) throw notJson();
    const [text, fraction, exponent] = found;
    this.#at += text.length;
    if (fraction !== undefined || exponent !== undefined) return real(Number(text));
    const value = text.length > MAX_DIGITS ? undefined : BigInt(text);
    if (value === undefined || value < MIN_INT64 || value > MAX_UINT64) {
      throw malformed("not_json", "an integer of more than 64 bits");
    }
    return integer(value);
  }
}

function unescaped(literal: string): string {
  try {
    return JSON.parse(literal) as string;
  } catch {
    throw notJson();
  }
}
