/**
 * What `ARIL_*` variables say, by the names that workers and the Python client read.
 *
 * What the protocol or the mechanism would not look at is refused: somebody meant it.
 */

import { BadSetting } from "./errors.js";
import { isTenant } from "./names.js";

const TLS = ["ssl_cafile", "ssl_certfile", "ssl_keyfile", "ssl_key_password"] as const;
const USER = ["sasl_username", "sasl_password"] as const;
const OIDC = ["sasl_oidc_url", "sasl_oidc_client_id", "sasl_oidc_client_secret", "sasl_oidc_scope"] as const;
const TOKEN = ["sasl_token_provider", "sasl_token_file", ...OIDC] as const;
const PLACES = ["tenant", "bootstrap", "jobs_topic", "replies_prefix"] as const;
export const SETTINGS = [...PLACES, "security_protocol", "sasl_mechanism", "key", ...TLS, ...USER, ...TOKEN] as const;

export type Setting = (typeof SETTINGS)[number];
/** Those that are set, or have a default; `jobs_topic` is the tenant's. */
export type Settings = Partial<Record<Setting, string>>;
export type Environ = Readonly<Record<string, string | undefined>>;

const DEFAULTS: Settings = {
  bootstrap: "localhost:9092",
  jobs_topic: "jobs",
  replies_prefix: "replies.",
  security_protocol: "PLAINTEXT",
};
const PROTOCOLS = ["PLAINTEXT", "SSL", "SASL_PLAINTEXT", "SASL_SSL"];
const BEARER = "OAUTHBEARER";
const MECHANISMS = ["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512", BEARER];
const JOBS_TOPIC = /^(?=.)[A-Za-z0-9._-]*\*?$/;
const REPLIES_PREFIX = /^[A-Za-z0-9._-]+\.$/;

/** The name of a setting in the environment. */
export function variable(name: Setting): string {
  return `ARIL_${name.toUpperCase()}`;
}

/** Read an environment; a `tenant` that is named goes before ARIL_TENANT. Throws BadSetting. */
export function readSettings(environ: Environ, tenant?: string): Settings {
  const given: Settings = { ...DEFAULTS };
  for (const name of SETTINGS) {
    const value = environ[variable(name)];
    if (value !== undefined) given[name] = value;
  }
  if (tenant !== undefined) given.tenant = tenant;
  if (!given.tenant) throw new BadSetting(`${variable("tenant")} is not set, and no tenant was named`);
  if (!isTenant(given.tenant)) {
    throw new BadSetting(`${variable("tenant")}: not a tenant's name (lower case, digits, -)`);
  }
  match(given, "jobs_topic", JOBS_TOPIC, "a topic's name, or one that ends in *");
  match(given, "replies_prefix", REPLIES_PREFIX, "a topic's name that ends in a dot");
  oneOf(given, "security_protocol", PROTOCOLS);
  checkTls(given);
  checkSasl(given);
  const jobsTopic = (given.jobs_topic ?? "").replace("*", given.tenant);
  return { ...given, jobs_topic: jobsTopic };
}

function checkTls(given: Settings): void {
  if (!given.security_protocol?.endsWith("SSL")) refuse(given, TLS, said(given, "security_protocol"));
  if (given.ssl_certfile === undefined) {
    refuse(given, ["ssl_keyfile", "ssl_key_password"], `no ${variable("ssl_certfile")}`);
  }
}

function checkSasl(given: Settings): void {
  if (!given.security_protocol?.startsWith("SASL")) {
    refuse(given, ["sasl_mechanism", ...USER, ...TOKEN], said(given, "security_protocol"));
    return;
  }
  given.sasl_mechanism ??= "SCRAM-SHA-512";
  oneOf(given, "sasl_mechanism", MECHANISMS);
  const mechanism = said(given, "sasl_mechanism");
  if (given.sasl_mechanism !== BEARER) {
    refuse(given, TOKEN, mechanism);
    demand(given, USER, mechanism);
    return;
  }
  refuse(given, USER, mechanism);
  demand(given, ["sasl_token_provider"], mechanism);
  const provider = said(given, "sasl_token_provider");
  if (given.sasl_token_provider !== "file") {
    throw new BadSetting(`${provider}: this client has the provider file alone; others are for \`kafka.sasl\``);
  }
  refuse(given, OIDC, provider);
  demand(given, ["sasl_token_file"], provider);
}

function match(given: Settings, name: Setting, pattern: RegExp, form: string): void {
  if (!pattern.test(given[name] ?? "")) throw new BadSetting(`${variable(name)}: ${form}`);
}

function oneOf(given: Settings, name: Setting, values: readonly string[]): void {
  if (!values.includes(given[name] ?? "")) {
    throw new BadSetting(`${variable(name)}: one of ${values.join(", ")}`);
  }
}

function said(given: Settings, name: Setting): string {
  return `${variable(name)}=${given[name]}`;
}

function refuse(given: Settings, names: readonly Setting[], beside: string): void {
  const found = names.find((name) => given[name] !== undefined);
  if (found !== undefined) {
    throw new BadSetting(`${variable(found)} is not looked at with ${beside}: leave one of them out`);
  }
}

function demand(given: Settings, names: readonly Setting[], by: string): void {
  const missing = names.find((name) => !given[name]);
  if (missing !== undefined) throw new BadSetting(`${by} needs ${variable(missing)}`);
}
