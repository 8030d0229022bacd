/**
 * Requests to bytes.
 *
 * Ranges are the service's to judge: it answers with an error that names limit and value, also where
 * an operator has set lower ones. Refused here is only what nobody could be told of (a record that
 * workers can but put aside), and names that no field has.
 */

import { Encoder } from "@msgpack/msgpack";

import { BadJob } from "./errors.js";
import { JOB_FIELDS, SAMPLING_FIELDS, type Job } from "./job.js";
import { MAX_DEPTH, MAX_INT64, MAX_REQUEST_BYTES, MIN_INT64, VERSION } from "./limits.js";
import { isJobId, isTenant } from "./names.js";

type Fields = Record<string, unknown>;

const PROMPTS = ["prompt", "messages", "tokenIds"];
// Past these an encoder with bigints writes a number as a real one.
const MAX_UINT32 = 2 ** 32 - 1;
const MIN_INT32 = -(2 ** 31);

/** A request that was looked at and copied: what its caller changes later changes nothing. */
export type Prepared = Readonly<Fields>;

/** Prepare a job to be encoded, once it is known where its reader begins. Throws BadJob. */
export function prepareJob(job: Job, id: string, tenant: string): Prepared {
  const given = job as unknown as Fields;
  const fields = renamed(given, JOB_FIELDS, "a job");
  if (PROMPTS.filter((name) => told(given[name])).length !== 1) {
    throw new BadJob("exactly one of prompt, messages, tokenIds must be given");
  }
  if (told(job.sampling)) {
    if (typeof job.sampling.seed === "number" && !Number.isSafeInteger(job.sampling.seed)) {
      throw new BadJob("sampling.seed: no integer, or one past 2^53, which must be a bigint");
    }
    fields["sampling"] = renamed(job.sampling as Fields, SAMPLING_FIELDS, "sampling");
  }
  return prepare("job", id, tenant, fields);
}

/** A job's record. `replyFrom` is the offset that its reader begins at. Throws BadJob. */
export function encodeJob(prepared: Prepared, replyFrom: bigint): Uint8Array {
  return encode({ ...prepared, reply_from: replyFrom });
}

/** The record that ends a job. Throws BadJob. */
export function encodeCancel(id: string, tenant: string): Uint8Array {
  return encode(prepare("cancel", id, tenant, {}));
}

function prepare(kind: string, id: string, tenant: string, fields: Fields): Prepared {
  if (!isJobId(id)) throw new BadJob("id: 1 to 64 letters, digits, dots, underscores, hyphens");
  if (!isTenant(tenant)) throw new BadJob("tenant: not the name of a tenant");
  // These first: they are read of a job that is past a bound of its shape.
  return sayable({ v: VERSION, kind, id, tenant, ...fields }, kind, 1) as Prepared;
}

function encode(record: Prepared): Uint8Array {
  const value = new Encoder({ useBigInt64: true }).encode(record);
  if (value.length > MAX_REQUEST_BYTES) {
    throw new BadJob(`bytes in the record: at most ${MAX_REQUEST_BYTES}, not ${value.length}`);
  }
  return value;
}

function told<T>(value: T): value is NonNullable<T> {
  return value !== undefined && value !== null;
}

/** Give fields the names of the wire; what is undefined or null is left out. */
function renamed(fields: Fields, names: Readonly<Record<string, string>>, what: string): Fields {
  const wire: Fields = {};
  for (const [name, value] of Object.entries(fields)) {
    const known = Object.hasOwn(names, name) ? names[name] : undefined;
    if (known === undefined) throw new BadJob(`${JSON.stringify(name)} is no field of ${what}`);
    if (told(value)) wire[known] = value;
  }
  return wire;
}

/** A copy that both forms of a record can say. Throws BadJob, which names the place. */
function sayable(value: unknown, place: string, depth: number): unknown {
  switch (typeof value) {
    case "boolean":
      return value;
    case "string":
      if (!value.isWellFormed()) throw new BadJob(`${place}: half a character is no text`);
      return value;
    case "number":
      if (!Number.isFinite(value)) throw new BadJob(`${place}: not a finite number`);
      if (!Number.isSafeInteger(value)) return value;
      return value > MAX_UINT32 || value < MIN_INT32 ? BigInt(value) : value;
    case "bigint":
      if (value < MIN_INT64 || value > MAX_INT64) throw new BadJob(`${place}: more than 64 bits`);
      return value;
  }
  if (value === null) return null;
  if (depth > MAX_DEPTH) throw new BadJob(`${place}: nested more than ${MAX_DEPTH} deep`);
  if (Array.isArray(value)) {
    return value.map((each, at) => sayable(each, `${place}[${at}]`, depth + 1));
  }
  if (!isPlain(value)) throw new BadJob(`${place}: nothing that JSON can say`);
  const copy: Fields = {};
  for (const [key, each] of Object.entries(value)) {
    if (each === undefined) continue;
    if (!key.isWellFormed()) throw new BadJob(`${place}: half a character is no text`);
    Object.defineProperty(copy, key, {
      value: sayable(each, `${place}.${key}`, depth + 1),
      enumerable: true,
    });
  }
  return copy;
}

function isPlain(value: unknown): value is Fields {
  if (typeof value !== "object" || value === null) return false;
  const prototype: unknown = Object.getPrototypeOf(value);
  return prototype === Object.prototype || prototype === null;
}
