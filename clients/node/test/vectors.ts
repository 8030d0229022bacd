/** The committed vectors of the contract, and how they write things. */

import { readFileSync } from "node:fs";

import { Real, type Value } from "../dist/fields.js";

/** What JSON says; integers past 2^53, which `JSON.parse` would round, are bigints. */
export type Vector = any;

const FOLDER = new URL("../../../schemas/vectors/", import.meta.url);
const LONG = /(?<=[:[] ?)-?\d{16,}(?=[,\]}])/g;

export function load(name: string): { key: Vector; vectors: Vector[] } {
  const text = readFileSync(new URL(`${name}.json`, FOLDER), "utf8");
  return JSON.parse(text.replace(LONG, '"int:$&"'), (_, value: unknown) =>
    typeof value === "string" && value.startsWith("int:") ? exact(value.slice(4)) : value,
  );
}

function exact(digits: string): number | bigint {
  const value = BigInt(digits);
  return Number.isSafeInteger(Number(value)) ? Number(value) : value;
}

/** What was read, as plain JavaScript: maps as objects, reals as numbers. */
export function plain(value: Value | undefined): unknown {
  if (value instanceof Real) return value.value;
  if (value instanceof Map) {
    return Object.fromEntries([...value].map(([key, each]) => [key, plain(each)]));
  }
  return Array.isArray(value) ? value.map(plain) : value;
}

/** The bytes of a vector: `hex`, then `repeat.hex` so many times. */
export function bytesOf(vector: Vector): Buffer {
  const { hex, times } = vector.repeat ?? { hex: "", times: 0 };
  return Buffer.concat([Buffer.from(vector.hex, "hex"), ...Array(times).fill(Buffer.from(hex, "hex"))]);
}
