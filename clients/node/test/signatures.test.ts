import assert from "node:assert/strict";
import { createPrivateKey, generateKeyPairSync, type KeyObject, verify } from "node:crypto";
import { chmod, mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test } from "node:test";

import { BadKey } from "../dist/errors.js";
import { signedMessage, Signer } from "../dist/signer.js";
import { bytesOf, load } from "./vectors.js";

const { key, vectors } = load("signatures");

function vectorKey(): KeyObject {
  // PKCS #8 of an Ed25519 key: a fixed head, then its 32 bytes.
  const head = Buffer.from("302e020100300506032b657004220420", "hex");
  const der = Buffer.concat([head, Buffer.from(key.private, "hex")]);
  return createPrivateKey({ key: der, format: "der", type: "pkcs8" });
}

for (const vector of vectors) {
  const { name, expect, record } = vector;
  if (vector.signed === undefined) {
    test(`signatures: ${name}`, { skip: `not used: a worker judges it (${expect.reason})` }, () => undefined);
    continue;
  }
  test(`signatures: ${name}: what is signed, and the header`, () => {
    const [[header, value]] = vector.headers;
    const [, tenant, keyId, time, signature] = value.split(".");
    const request = {
      tenant,
      topic: record.topic,
      partition: record.partition,
      key: Buffer.from(record.key),
      value: bytesOf(vector),
    };
    const message = signedMessage(request, keyId, Number(time));
    assert.equal(message.toString("hex"), vector.signed);
    const holds = verify(null, message, vectorKey(), Buffer.from(signature, "hex"));
    assert.equal(holds, expect.reason !== "signature_invalid");
    if (keyId !== key.key_id || !holds) return; // by another key, or not by this message
    const signer = new Signer(vectorKey(), { keyId, clock: () => Number(time) });
    const [ours, bytes] = signer.header(request);
    assert.deepEqual([ours, bytes.toString()], [header, value]);
  });
}

test("a key's name is that of `aril keys new`", () => {
  // The first 16 digits of the SHA-256 of the public key.
  assert.equal(new Signer(vectorKey()).keyId, "21fe31dfa154a261");
});

test("a key comes from a file that is not for everybody", async () => {
  const folder = await mkdtemp(join(tmpdir(), "aril-key-"));
  try {
    const path = join(folder, "acme.key");
    await writeFile(path, vectorKey().export({ format: "pem", type: "pkcs8" }), { mode: 0o600 });
    assert.equal((await Signer.fromFile(path, { keyId: "mine" })).keyId, "mine");
    await chmod(path, 0o604);
    await assert.rejects(Signer.fromFile(path), { name: "BadKey", message: /chmod 600/ });
    await assert.rejects(Signer.fromFile(join(folder, "none.key")), BadKey);
  } finally {
    await rm(folder, { recursive: true });
  }
});

test("what is no key for signing", () => {
  const { privateKey } = generateKeyPairSync("ec", { namedCurve: "P-256" });
  assert.throws(() => new Signer(privateKey), BadKey);
  assert.throws(() => new Signer("-----BEGIN"), BadKey);
  assert.throws(() => new Signer(vectorKey(), { keyId: "No.Name" }), BadKey);
});
