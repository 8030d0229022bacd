/** What a client is made with, out of the settings that workers and clients share. */

import { readFileSync } from "node:fs";
import { readFile } from "node:fs/promises";

import type { ClientOptions } from "./client.js";
import { BadSetting } from "./errors.js";
import type { KafkaOptions } from "./kafka.js";
import { type Environ, readSettings, type Setting, type Settings, variable } from "./settings.js";
import { Signer } from "./signer.js";

/**
 * Options as `ARIL_*` variables say: brokers, topics, TLS and SASL by the names that workers read,
 * ARIL_TENANT unless a tenant is named here, ARIL_KEY, a file to sign with.
 *
 * A token's file is read for each connection, certificates once. Rejected with BadSetting, or BadKey.
 */
export async function optionsFromEnv(tenant?: string, environ: Environ = process.env): Promise<ClientOptions> {
  const settings = readSettings(environ, tenant);
  return {
    brokers: settings.bootstrap ?? "",
    tenant: settings.tenant ?? "",
    jobsTopic: settings.jobs_topic ?? "",
    repliesPrefix: settings.replies_prefix ?? "",
    kafka: { ...(await tlsOf(settings)), ...saslOf(settings) },
    signer: settings.key ? await Signer.fromFile(settings.key) : undefined,
  };
}

async function tlsOf(settings: Settings): Promise<KafkaOptions> {
  if (!settings.security_protocol?.endsWith("SSL")) return {};
  const [ca, cert, key] = await Promise.all([
    file(settings, "ssl_cafile"),
    file(settings, "ssl_certfile"),
    file(settings, settings.ssl_keyfile === undefined ? "ssl_certfile" : "ssl_keyfile"), // which may hold both
  ]);
  const passphrase = settings.ssl_key_password;
  return {
    tls: {
      ...(ca === undefined ? {} : { ca }),
      ...(cert === undefined ? {} : { cert, key }),
      ...(passphrase === undefined ? {} : { passphrase }),
    },
  };
}

function saslOf(settings: Settings): KafkaOptions {
  const { sasl_mechanism: mechanism, sasl_username: username, sasl_password: password } = settings;
  if (mechanism === undefined) return {};
  const sasl = { mechanism } as NonNullable<KafkaOptions["sasl"]>;
  if (settings.sasl_token_file !== undefined) {
    return { sasl: { ...sasl, token: () => token(settings) } };
  }
  return { sasl: { ...sasl, username: username ?? "", password: password ?? "" } };
}

/** Read for each connection: somebody keeps it fresh. */
function token(settings: Settings): string {
  const path = settings.sasl_token_file ?? "";
  try {
    return readFileSync(path, "ascii").trim();
  } catch (error) {
    throw unreadable("sasl_token_file", path, error);
  }
}

async function file(settings: Settings, name: Setting): Promise<Buffer | undefined> {
  const path = settings[name];
  if (path === undefined) return undefined;
  try {
    return await readFile(path);
  } catch (error) {
    throw unreadable(name, path, error);
  }
}

function unreadable(name: Setting, path: string, error: unknown): BadSetting {
  return new BadSetting(`${variable(name)}: ${path} cannot be read`, { cause: error });
}
