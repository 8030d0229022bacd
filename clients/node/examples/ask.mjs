#!/usr/bin/env node
/**
 * Ask one or more questions at once, and show the answers as they come.
 *
 *     node examples/ask.mjs --brokers localhost:9092 --tenant acme "What is an aril?"
 *
 * `--stop-after 5` leaves after so many tokens, lets the jobs run and shows a token for each of them;
 * `--resume TOKEN` goes on from there. `--events` writes a line of JSON for each event.
 */

import { readFileSync } from "node:fs";
import { parseArgs } from "node:util";

import { Client, JobFailed, Signer } from "aril-client";

const text = { type: "string" };
const many = { type: "string", multiple: true, default: [] };
const flag = { type: "boolean", default: false };
const { values: asked, positionals: prompts } = parseArgs({
  allowPositionals: true,
  options: {
    env: flag, // ARIL_* variables say where and who, in place of the next seven
    brokers: { ...text, default: "localhost:9092" },
    tenant: text,
    "jobs-topic": { ...text, default: "jobs" },
    "replies-prefix": { ...text, default: "replies." },
    key: text, // to sign with
    ca: text, // TLS, by this authority
    user: text, // SCRAM-SHA-512, the password in ARIL_SASL_PASSWORD
    id: many, // one for each prompt; random without
    adapter: text,
    "max-tokens": { ...text, default: "64" },
    temperature: { ...text, default: "1" },
    seed: text,
    "ignore-eos": flag,
    resume: many,
    "stop-after": text,
    "cancel-after": text,
    events: flag,
  },
});

const told = async () => ({
  brokers: asked.brokers,
  tenant: asked.tenant,
  jobsTopic: asked["jobs-topic"],
  repliesPrefix: asked["replies-prefix"],
  signer: asked.key && (await Signer.fromFile(asked.key)),
  kafka: {
    ...(asked.ca && { tls: { ca: readFileSync(asked.ca) } }),
    ...(asked.user && {
      sasl: {
        mechanism: "SCRAM-SHA-512",
        username: asked.user,
        password: process.env.ARIL_SASL_PASSWORD,
      },
    }),
  },
});

const client = asked.env ? await Client.fromEnv(asked.tenant) : await Client.connect(await told());

const streams = [
  ...asked.resume.map((token) => client.resume(token)),
  ...prompts.map((prompt, at) =>
    client.stream({
      prompt,
      id: asked.id[at],
      adapter: asked.adapter,
      sampling: {
        maxTokens: Number(asked["max-tokens"]),
        temperature: Number(asked.temperature),
        seed: asked.seed && BigInt(asked.seed),
        ignoreEos: asked["ignore-eos"],
      },
    }),
  ),
];
const failures = (await Promise.all(streams.map(show))).filter(Boolean);
await client.close();
process.exitCode = failures.length > 0 ? 1 : 0;

/** Show a stream to its end; returns the error that it ended in, if it did. */
async function show(stream) {
  let seen = 0;
  try {
    for await (const event of stream) {
      if (asked.events) write(stream, event);
      else process.stdout.write(event.text ?? "\n(begins again)\n");
      const before = seen;
      seen += event.ids?.length ?? 0;
      const passed = (count) => before < count && seen >= count;
      if (passed(asked["stop-after"])) stream.detach();
      if (passed(asked["cancel-after"])) await stream.cancel();
    }
    if (!stream.finished) console.error(`\n--resume ${stream.token}`);
    else if (!asked.events) process.stdout.write("\n");
    if (asked.events && stream.finished) write(stream, { type: "answer", ...(await stream.result()) });
    return undefined;
  } catch (error) {
    if (!(error instanceof JobFailed)) throw error;
    const { code, message, limit, given, retryable } = error;
    if (asked.events) write(stream, { type: "failed", code, limit, given, retryable });
    console.error(message);
    return error;
  }
}

function write(stream, event) {
  const line = { job: stream.job, token: stream.token, ...event };
  const exact = (_, value) => (typeof value === "bigint" ? value.toString() : value);
  process.stdout.write(`${JSON.stringify(line, exact)}\n`);
}
