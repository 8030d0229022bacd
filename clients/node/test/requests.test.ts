import assert from "node:assert/strict";
import { test } from "node:test";

import { encodeCancel, encodeJob, prepareJob } from "../dist/encode.js";
import { BadJob } from "../dist/errors.js";
import { DecodeError, type Fields, type Value } from "../dist/fields.js";
import { type Job, JOB_FIELDS, SAMPLING_FIELDS } from "../dist/job.js";
import { MAX_REQUEST_BYTES } from "../dist/limits.js";
import { checkVersion, unpackMap } from "../dist/unpack.js";
import { bytesOf, load, plain, type Vector } from "./vectors.js";

type Plain = Record<string, unknown>;

/** What no reader of records takes, whatever they say: found before their fields are looked at. */
const NO_RECORD = new Set([
  "duplicate_key",
  "empty",
  "extension_type",
  "invalid_utf8",
  "key_not_text",
  "not_a_map",
  "not_json",
  "not_msgpack",
  "record_too_large",
  "too_deep",
  "too_many_containers",
  "too_many_elements",
  "too_many_fields",
  "too_many_parts",
  "trailing_bytes",
  "truncated",
]);
/** Refused by this client too, since nobody could be told, or since it knows no such thing. */
const REFUSED_HERE = new Set([
  "no prompt",
  "two prompts",
  "prompt of bytes",
  "a weight that is no number",
  "strict with a field that is none",
  "a tool with a value that JSON lacks",
  "sampling not a map",
  "temperature nan",
  "temperature infinite",
  "tenant as a path",
  "tenant as a topic trick",
  "tenant with a line end",
  "tenant shared",
  "id too long",
]);
/** What this client has no way to say. */
const UNSAYABLE: Readonly<Record<string, string>> = {
  "version 2": "the client sends its own version",
  "version true": "the client sends its own version",
  "no version": "the client sends its own version",
  "unknown kind": "the client sends jobs and cancels",
  "kind not text": "the client sends jobs and cancels",
  "no tenant": "the client sends its own tenant",
  "real for a whole number": "JavaScript has one type of number: 1.0 is sent as 1",
  "JSON with a real number for a whole one": "JavaScript has one type of number: 1.0 is sent as 1",
};

/** Say in the client's words what a record says in those of the wire. */
function jobOf(fields: Plain): Job {
  const { v: _v, kind: _kind, tenant: _tenant, reply_from: _from, ...rest } = fields;
  const job = renamed(rest, JOB_FIELDS);
  if (job["sampling"]) job["sampling"] = renamed(job["sampling"] as Plain, SAMPLING_FIELDS);
  return job as unknown as Job;
}

function renamed(fields: Plain, names: Readonly<Record<string, string>>): Plain {
  const back = new Map(Object.entries(names).map(([ours, wire]) => [wire, ours]));
  if (typeof fields !== "object") return fields;
  return Object.fromEntries(Object.entries(fields).map(([name, each]) => [back.get(name) ?? name, each]));
}

function encoded(fields: Plain): Plain {
  const replyFrom = BigInt((fields["reply_from"] as number | undefined) ?? 0);
  const job = jobOf(fields);
  const value = encodeJob(prepareJob(job, String(fields["id"]), String(fields["tenant"])), replyFrom);
  const { reply_from: from, ...told } = plain(unpackMap(value, MAX_REQUEST_BYTES)) as Plain;
  return fields["reply_from"] === undefined ? told : { ...told, reply_from: from };
}

/** Whether `found` says all that `wanted` says, and perhaps more. */
function assertSays(found: unknown, wanted: unknown): void {
  if (Array.isArray(wanted)) {
    assert.ok(Array.isArray(found) && found.length === wanted.length);
    wanted.forEach((each, at) => assertSays(found[at], each));
  } else if (typeof wanted === "object" && wanted !== null) {
    for (const [key, each] of Object.entries(wanted)) assertSays((found as Plain)[key], each);
  } else {
    assert.deepEqual(found, wanted);
  }
}

function read(vector: Vector): Fields {
  const fields = unpackMap(bytesOf(vector), MAX_REQUEST_BYTES);
  checkVersion(fields);
  return fields;
}

for (const vector of load("requests").vectors) {
  const { name, expect } = vector;
  const { reason, code } = expect.error ?? {};
  if (expect.job) {
    test(`requests: ${name}: this client can say it`, () => {
      assert.deepEqual(encoded(expect.job), { v: 1, kind: "job", ...expect.job });
      assertSays(plain(read(vector)), expect.job);
    });
  } else if (expect.cancel) {
    test(`requests: ${name}: this client can say it`, () => {
      const value = encodeCancel(expect.cancel.id, expect.cancel.tenant);
      const wanted = { v: 1, kind: "cancel", ...expect.cancel };
      assert.deepEqual(plain(unpackMap(value, MAX_REQUEST_BYTES)), wanted);
      assertSays(plain(read(vector)), wanted);
    });
  } else if (NO_RECORD.has(reason)) {
    test(`requests: ${name}: no record`, () => {
      assert.throws(
        () => read(vector),
        (error) => error instanceof DecodeError && error.code === code && error.reason === reason,
      );
    });
  } else if (REFUSED_HERE.has(name)) {
    test(`requests: ${name}: not sent`, () => {
      const fields = plain(unpackMap(bytesOf(vector), MAX_REQUEST_BYTES)) as Plain;
      assert.throws(() => encoded(fields), BadJob);
    });
  } else if (name in UNSAYABLE) {
    test(`requests: ${name}`, { skip: `not used: ${UNSAYABLE[name]}` }, () => undefined);
  } else {
    test(`requests: ${name}: sent as it is, the service says ${code}`, () => {
      const fields = unpackMap(bytesOf(vector), MAX_REQUEST_BYTES);
      assert.deepEqual(encoded(plain(fields) as Plain), plain(fields as Value));
    });
  }
}

test("what is shown of a version that is none of ours", () => {
  for (const name of ["version 2", "version true", "no version"]) {
    const vector = load("requests").vectors.find((each) => each.name === name);
    assert.throws(() => read(vector), { code: "unsupported_version" });
  }
});
