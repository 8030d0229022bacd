import assert from "node:assert/strict";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test } from "node:test";

import { optionsFromEnv } from "../dist/environment.js";
import { BadKey, BadSetting } from "../dist/errors.js";
import { readSettings } from "../dist/settings.js";
import { load } from "./vectors.js";

const HAS = new Set(["key_password", "token_file"]);

for (const vector of load("environments").vectors) {
  test(`environments: ${vector.name}`, () => {
    const refused = vector.needs !== undefined && !HAS.has(vector.needs) ? vector.refused : vector.expect.error;
    if (refused === undefined) {
      assert.deepEqual(readSettings(vector.environ, vector.tenant), vector.expect);
      return;
    }
    const named = `ARIL_${refused.toUpperCase()}`;
    assert.throws(
      () => readSettings(vector.environ, vector.tenant),
      (error) => error instanceof BadSetting && error.message.includes(named),
    );
  });
}

test("an environment is a client's options, whose files are read", async (t) => {
  const folder = mkdtempSync(join(tmpdir(), "aril-"));
  t.after(() => rmSync(folder, { recursive: true }));
  const write = (name: string, text: string): string => {
    writeFileSync(join(folder, name), text);
    return join(folder, name);
  };
  const environ = {
    ARIL_TENANT: "acme",
    ARIL_BOOTSTRAP: "a:1,b:2",
    ARIL_SECURITY_PROTOCOL: "SASL_SSL",
    ARIL_SSL_CAFILE: write("ca.pem", "authorities"),
    ARIL_SSL_CERTFILE: write("cert.pem", "both"),
    ARIL_SSL_KEY_PASSWORD: "open",
    ARIL_SASL_MECHANISM: "OAUTHBEARER",
    ARIL_SASL_TOKEN_PROVIDER: "file",
    ARIL_SASL_TOKEN_FILE: write("token", "first\n"),
  };
  const { kafka, ...options } = await optionsFromEnv("zeta", environ);
  assert.deepEqual(options, {
    brokers: "a:1,b:2",
    tenant: "zeta",
    jobsTopic: "jobs",
    repliesPrefix: "replies.",
    signer: undefined,
  });
  const [ca, both] = [Buffer.from("authorities"), Buffer.from("both")];
  assert.deepEqual(kafka?.tls, { ca, cert: both, key: both, passphrase: "open" });
  const { mechanism, token } = kafka!.sasl!;
  assert.equal(mechanism, "OAUTHBEARER");
  assert.equal((token as () => string)(), "first");
  write("token", "second");
  assert.equal((token as () => string)(), "second");
});

test("a file that is named and is not there is told at once", async () => {
  const none = join(tmpdir(), "aril-no-such-file");
  const tls = { ARIL_TENANT: "acme", ARIL_SECURITY_PROTOCOL: "SSL" };
  for (const name of ["ARIL_SSL_CAFILE", "ARIL_SSL_CERTFILE"]) {
    const told = (error: Error): boolean => error instanceof BadSetting && error.message.includes(`${name}: ${none}`);
    await assert.rejects(optionsFromEnv(undefined, { ...tls, [name]: none }), told);
  }
  await assert.rejects(optionsFromEnv(undefined, { ARIL_TENANT: "acme", ARIL_KEY: none }), BadKey);
});
