/** A record as it was read: maps as Map, integers and reals told apart, as the contract demands. */

import type { ErrorCode } from "./errors.js";
import * as limits from "./limits.js";

/** Bytes that are no record of the contract. `reason` is a slug of this implementation. */
export class DecodeError extends Error {
  override readonly name: string = "DecodeError";

  constructor(
    readonly code: ErrorCode,
    readonly reason: string,
    message: string,
  ) {
    super(message);
  }
}

export function malformed(reason: string, message: string): DecodeError {
  return new DecodeError("invalid_job", reason, message);
}

function tooMuch(reason: string, what: string, limit: number): DecodeError {
  return new DecodeError("limit_exceeded", reason, `${what}: at most ${limit}`);
}

/**
 * A real number with a whole value, like 1.0: JavaScript has one type of number, the wire has two.
 * Every other number that was read is an integer if `Number.isInteger` says so.
 */
export class Real {
  constructor(readonly value: number) {}
}

export type Value = null | boolean | number | bigint | Real | string | Uint8Array | Value[] | Fields;
export type Fields = Map<string, Value>;

/** Keep a real number apart from integers. */
export function real(value: number): number | Real {
  return Number.isInteger(value) ? new Real(value) : value;
}

/** Give an integer as a number where that is exact. */
export function integer(value: bigint): number | bigint {
  const number = Number(value);
  return Number.isSafeInteger(number) ? number : value;
}

/** Whether it is an integer in [minimum, maximum], both of which a number holds exactly. */
export function isInteger(value: unknown, minimum: number, maximum: number): value is number {
  return Number.isInteger(value) && (value as number) >= minimum && (value as number) <= maximum;
}

/** A finite number, or undefined for anything else. An integer past 2^53 stays a bigint. */
export function numberOf(value: Value | undefined): number | bigint | undefined {
  if (value instanceof Real) return value.value;
  if (typeof value === "bigint") return value;
  return typeof value === "number" && Number.isFinite(value) ? value : undefined;
}

/** Whether a text has at most so many Unicode characters; JavaScript counts halves of some. */
export function hasAtMost(text: string, characters: number): boolean {
  if (text.length <= characters) return true;
  if (text.length > 2 * characters) return false;
  let count = 0;
  for (const _ of text) count += 1;
  return count <= characters;
}

/** Counts what a record is made of while it is read, and refuses what is past a bound. */
export class Shape {
  #parts = 0;
  #containers = 0;
  #elements = 0;

  /** A map, an array or a string began. */
  part(): void {
    this.#parts += 1;
    if (this.#parts > limits.MAX_PARTS) {
      throw tooMuch("too_many_parts", "maps, arrays, strings", limits.MAX_PARTS);
    }
  }

  /** A map or an array began; the record itself is at depth 1. */
  container(depth: number): void {
    this.part();
    this.#containers += 1;
    if (this.#containers > limits.MAX_CONTAINERS) {
      throw tooMuch("too_many_containers", "maps and arrays", limits.MAX_CONTAINERS);
    }
    if (depth > limits.MAX_DEPTH) {
      throw tooMuch("too_deep", "maps and arrays, nested", limits.MAX_DEPTH);
    }
  }

  elements(count: number): void {
    this.#elements += count;
    if (this.#elements > limits.MAX_ELEMENTS) {
      throw tooMuch("too_many_elements", "elements", limits.MAX_ELEMENTS);
    }
  }

  fields(count: number): void {
    if (count > limits.MAX_MAP_FIELDS) {
      throw tooMuch("too_many_fields", "fields in a map", limits.MAX_MAP_FIELDS);
    }
  }

  bytes(count: number, limit: number): void {
    if (count > limit) throw tooMuch("record_too_large", "bytes in the record", limit);
  }
}
