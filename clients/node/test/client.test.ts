import assert from "node:assert/strict";
import { generateKeyPairSync, verify } from "node:crypto";
import { test, type TestContext } from "node:test";
import { setImmediate as turn } from "node:timers/promises";

import * as aril from "../dist/index.js";
import { MemoryBroker, MemoryTransport } from "../dist/memory.js";
import { partitionOf } from "../dist/partition.js";
import { signedMessage } from "../dist/signer.js";
import { unpackMap } from "../dist/unpack.js";
import { plain } from "./vectors.js";
import { answer, conflict, done, failed, redirect, tokens } from "./worker.js";

const { Client } = aril;

interface Scene {
  broker: MemoryBroker;
  transport: MemoryTransport;
  client: aril.Client;
}

async function scene(
  t: TestContext,
  options: Partial<aril.ClientOptions> = {},
  broker = new MemoryBroker(),
): Promise<Scene> {
  const transport = new MemoryTransport(broker);
  const client = await Client.connect({ brokers: [], tenant: "acme", transport, ...options });
  t.after(() => client.close());
  return { broker, transport, client };
}

/** What was sent, in order. */
function sent(broker: MemoryBroker): Array<Record<string, unknown>> {
  return broker.jobs.map(({ value }) => plain(unpackMap(value, 1_000_000)) as Record<string, unknown>);
}

function kinds(broker: MemoryBroker): unknown[] {
  return sent(broker).map(({ kind }) => kind);
}

function append(broker: MemoryBroker, job: string, records: readonly Uint8Array[], partition = 0): void {
  for (const record of records) broker.append(partition, job, record);
}

/** An id whose replies go to this one of so many partitions. */
function jobIn(partition: number, partitions: number): string {
  for (let number = 0; ; number += 1) {
    if (partitionOf(`job-${number}`, partitions) === partition) return `job-${number}`;
  }
}

async function collect(stream: aril.Stream): Promise<string[]> {
  const found: string[] = [];
  for await (const event of stream) found.push(event.type === "tokens" ? event.text : event.type);
  return found;
}

test("a job goes to its partition under its id, and says where its reader begins", async (t) => {
  const { broker, client } = await scene(t, {}, new MemoryBroker({ jobsPartitions: 5, replyPartitions: 3 }));
  const place = partitionOf("j1", 3);
  broker.append(place, "before", Buffer.from("x"));
  const stream = client.stream({ id: "j1", prompt: "Hi", sampling: { maxTokens: 8, seed: 2n ** 63n - 1n } });
  assert.equal(broker.jobs.length, 0); // not before somebody wants it
  await stream.start();
  const [record] = broker.jobs;
  assert.deepEqual([record?.partition, record?.key.toString()], [partitionOf("j1", 5), "j1"]);
  assert.deepEqual(sent(broker)[0], {
    v: 1,
    kind: "job",
    id: "j1",
    tenant: "acme",
    prompt: "Hi",
    sampling: { max_tokens: 8, seed: 2n ** 63n - 1n },
    reply_from: 1,
  });
  append(broker, "j1", answer("j1", ["He", "llo"]), place);
  const result = await stream.result();
  assert.deepEqual([result.text, result.tokenIds, result.resets], ["Hello", [0, 1, 2, 3, 4], 0]);
  assert.deepEqual([result.finishReason, result.seed, result.metadata], ["stop", 7n, { order: "81" }]);
  assert.deepEqual(result.timings, { queueMs: 0.5, ttftMs: 1, totalMs: 2 });
  await client.close();
  assert.deepEqual(kinds(broker), ["job"]);
});

test("what a caller changes after asking changes nothing, and each job has an id of its own", async (t) => {
  const { broker, client } = await scene(t);
  const stop = ["END"];
  const streams = [1, 2].map(() => client.stream({ prompt: "Hi", sampling: { stop } }));
  stop.push("more");
  for (const stream of streams) await stream.start();
  assert.deepEqual(sent(broker).map(({ sampling }) => sampling), [{ stop: ["END"] }, { stop: ["END"] }]);
  assert.notEqual(streams[0]!.job, streams[1]!.job);
  await client.close();
});

test("what is read already is as good a place to begin as the end, and costs no question", async (t) => {
  const { broker, client } = await scene(t);
  await client.stream({ id: "a", prompt: "x" }).start();
  broker.append(0, "other", Buffer.from("x"));
  await client.stream({ id: "b", prompt: "x" }).start();
  assert.ok([0, 1].includes(sent(broker)[1]!["reply_from"] as number));
  await client.close();
});

test("a job that cannot be sent is told at once", async (t) => {
  const { broker, client } = await scene(t);
  const bad = [
    { prompt: "x", id: "a/b" },
    { prompt: "x", tokenIds: [1] },
    { prompt: "half \ud83d" },
    { prompt: "x", maxTokens: 3 },
    { prompt: "x", sampling: { max_tokens: 3 } },
    { prompt: "x", sampling: { seed: 2 ** 53 } },
    { prompt: "x", sampling: { temperature: Number.NaN } },
    { prompt: "x", metadata: { when: new Date(0) } },
  ];
  for (const job of bad) assert.throws(() => client.stream(job as never), aril.BadJob);
  await assert.rejects(client.complete({ prompt: "x".repeat(1_000_001) }), aril.BadJob);
  for (const replyPartition of [1, -1, 0.5]) {
    await assert.rejects(client.complete({ prompt: "x", replyPartition }), aril.BadJob);
  }
  await assert.rejects(scene(t, { tenant: "a.b" }), aril.BadJob);
  assert.equal(broker.jobs.length, 0);
  await client.close();
});

test("an error is thrown with its code, limit and value", async (t) => {
  const { broker, client } = await scene(t);
  const stream = await client.stream({ id: "a", prompt: "x" }).start();
  const bounds = { limit: 131_072, given: 2n ** 62n, retry_after_ms: 40, retryable: true };
  append(broker, "a", [tokens("a", 0, "x"), failed("a", 1, { ...bounds, metadata: { k: "v" } })]);
  const seen: unknown[] = [];
  await assert.rejects(
    async () => {
      for await (const event of stream) seen.push(event.type);
    },
    (error) => {
      assert.ok(error instanceof aril.JobFailed && error instanceof aril.ArilError);
      const { job, code, retryable, limit, given, retryAfterMs, metadata } = error;
      assert.deepEqual(
        { job, code, retryable, limit, given, retryAfterMs, metadata },
        { job: "a", code: "limit_exceeded", retryable: true, limit: 131_072, given: 2n ** 62n, retryAfterMs: 40, metadata: { k: "v" } },
      );
      assert.equal(error.message, `limit_exceeded: too much (limit 131072, given ${2n ** 62n})`);
      return true;
    },
  );
  assert.deepEqual([seen, stream.finished], [["tokens"], true]);
  await client.close();
  assert.deepEqual(kinds(broker), ["job"]);
});

test("a slow caller holds nobody up, and what waits for it is bounded", async (t) => {
  const { broker, transport, client } = await scene(t, { inboxEvents: 4 });
  const [slow, fast] = [client.stream({ id: "slow", prompt: "x" }), client.stream({ id: "fast", prompt: "x" })];
  await slow.start();
  const reading = collect(fast);
  while (broker.jobs.length < 2) await turn();
  const count = 2_000;
  for (let index = 0; index < count; index += 1) {
    broker.append(0, "slow", tokens("slow", index, "s"));
    broker.append(0, "fast", tokens("fast", index, "f"));
  }
  append(broker, "slow", [done("slow", count)]);
  append(broker, "fast", [done("fast", count)]);
  assert.equal((await reading).length, count + 1); // while nobody has taken an event of the other
  assert.deepEqual([...transport.followed], []); // nor reads for it
  const before = transport.delivered;
  assert.equal((await slow.result()).text.length, count);
  assert.ok(transport.delivered > before + count); // its records came from the log once more
  await client.close();
});

test("a stream goes on in another client, by a token's text", async (t) => {
  const broker = new MemoryBroker({ replyPartitions: 3 });
  const place = partitionOf("j1", 3);
  const one = await scene(t, {}, broker);
  append(broker, "other", [tokens("other", 0, "x")], place);
  const first = await one.client.stream({ id: "j1", prompt: "x" }).start();
  append(broker, "j1", answer("j1", ["ab", "c", "d"]), place);
  for await (const event of first) {
    if (event.type === "tokens" && event.text === "ab") break;
  }
  const token = String(first.token);
  assert.equal(token, `${place}.1.2.0.j1`);
  await one.client.close();
  assert.deepEqual(kinds(broker), ["job"]); // its end was there already: nothing to cancel
  const two = await scene(t, {}, broker);
  const rest = two.client.resume(token);
  assert.deepEqual(await collect(rest), ["c", "d", "done"]);
  assert.equal((await rest.result()).text, "abcd");
  assert.equal(String(rest.token), `${place}.1.4.0.j1`);
  await two.client.close();
});

test("what a token covers and the log no longer holds is lost, or was never there", async (t) => {
  const broker = new MemoryBroker();
  const { client } = await scene(t, {}, broker);
  append(broker, "j1", answer("j1", ["ab"]));
  broker.expire(0, 1n);
  await assert.rejects(collect(client.resume("0.0.0.0.j1")), aril.StreamLost);
  await assert.rejects(collect(client.resume("0.9.0.0.j1")), aril.StreamLost);
  await assert.rejects(collect(client.resume("1.0.0.0.j1")), aril.BadToken);
  for (const text of ["", "0.0.0.0.", "0.0.0.j1", "-1.0.0.0.j1", "0.0.0.0.j/1", `0.${2n ** 63n}.0.0.j`, "٣.0.0.0.j"]) {
    assert.throws(() => client.resume(text), aril.BadToken);
  }
  await client.close();
});

test("a stream that retention overtakes is lost; others, elsewhere, go on", async (t) => {
  const { broker, client } = await scene(t, {}, new MemoryBroker({ replyPartitions: 2 }));
  const [here, there] = [jobIn(0, 2), jobIn(1, 2)];
  const lost = await client.stream({ id: here, prompt: "x" }).start();
  append(broker, "other", [Buffer.from("x"), Buffer.from("x")]);
  broker.expire(0, 2n);
  await assert.rejects(lost.result(), aril.StreamLost);
  const other = await client.stream({ id: there, prompt: "x" }).start();
  append(broker, there, answer(there, ["x"]), 1);
  assert.equal((await other.result()).text, "x");
  await client.close();
  assert.deepEqual(kinds(broker), ["job", "job"]); // who lost its stream may come back to its job
});

test("a job sent again has the first one's answer", async (t) => {
  const { broker, client } = await scene(t);
  append(broker, "j1", answer("j1", ["ab", "c"]));
  const stream = await client.stream({ id: "j1", prompt: "x" }).start();
  append(broker, "j1", [redirect("j1", 0)]);
  assert.deepEqual(await collect(stream), ["ab", "c", "done"]);
  assert.equal(String(stream.token), "0.0.3.0.j1");
  await client.close();
});

test("another job under a known id is told so, and ends nobody's job", async (t) => {
  const { broker, client } = await scene(t);
  append(broker, "other", answer("other", ["x"]));
  const stream = await client.stream({ id: "j1", prompt: "x" }).start();
  append(broker, "j1", [tokens("j1", 0, "y"), conflict("j1", Buffer.from("other bytes"), 2)]);
  append(broker, "j1", [conflict("j1", broker.jobs[0]!.value)]);
  const found: string[] = [];
  const reading = async (): Promise<void> => {
    for await (const event of stream) found.push(event.type);
  };
  await assert.rejects(reading(), (error) => error instanceof aril.JobConflict && error.job === "j1");
  assert.deepEqual(found, ["tokens"]);
  await client.close();
  assert.deepEqual(kinds(broker), ["job"]);
});

test("withdrawn tokens are told, and are no part of the answer", async (t) => {
  const { broker, client } = await scene(t);
  const stream = await client.stream({ id: "a", prompt: "x" }).start();
  const writer = { epoch: [2, 1] as [number, number], worker: "v" };
  append(broker, "a", [tokens("a", 0, "old"), tokens("a", 0, "new", writer), done("a", 3, writer)]);
  assert.deepEqual(await collect(stream), ["old", "reset", "new", "done"]);
  const { text, resets } = await stream.result();
  assert.deepEqual([text, resets], ["new", 1]);
  await client.close();
});

test("who leaves a stream ends its job; who detaches lets it run", async (t) => {
  const { broker, client } = await scene(t);
  const leave: Record<string, (stream: aril.Stream) => Promise<void>> = {
    broken: async (stream) => {
      for await (const _ of stream) break;
    },
    closed: async (stream) => stream.close(),
    disposed: async (stream) => {
      await using _held = stream;
    },
    detached: async (stream) => {
      assert.equal(stream.detach().job, "detached");
      assert.deepEqual(await collect(stream), []);
    },
  };
  for (const [id, how] of Object.entries(leave)) {
    const stream = await client.stream({ id, prompt: "x" }).start();
    append(broker, id, [tokens(id, 0, "x")]);
    await how(stream);
    if (id !== "detached") await assert.rejects(stream.result(), aril.ClientClosed);
  }
  const open = await client.stream({ id: "open", prompt: "x" }).start();
  await client.close();
  await assert.rejects(open.result(), aril.ClientClosed);
  await assert.rejects(client.complete({ prompt: "x" }), aril.ClientClosed);
  const never = client.stream({ id: "never", prompt: "x" });
  never.close();
  await assert.rejects(collect(never), aril.ClientClosed);
  const cancelled = sent(broker).filter(({ kind }) => kind === "cancel").map(({ id }) => id);
  assert.deepEqual(cancelled, ["broken", "closed", "disposed", "open"]);
});

/** A broker that takes nothing, and tells nothing, before it is back. */
class SlowTransport extends MemoryTransport {
  back: () => void = () => undefined;
  readonly #back = new Promise<void>((resolve) => (this.back = resolve));

  override async send(...record: Parameters<MemoryTransport["send"]>): Promise<void> {
    await this.#back;
    await super.send(...record);
  }

  override async logStart(partition: number): Promise<bigint> {
    await this.#back;
    return await super.logStart(partition);
  }
}

for (const [name, patience, error] of [
  ["a time-out", () => ({ timeoutMs: 5 }), { name: "JobTimeout" }],
  ["an aborted signal", () => ({ signal: AbortSignal.timeout(5) }), { name: "TimeoutError" }],
] as const) {
  test(`${name} is heard while nothing can be sent, and ends the job once it can`, async (t) => {
    const broker = new MemoryBroker();
    const transport = new SlowTransport(broker);
    const { client } = await scene(t, { transport }, broker);
    await assert.rejects(client.complete({ id: "new", prompt: "x" }, patience()), error);
    await assert.rejects(client.resume("0.0.0.0.old", patience()).result(), error);
    assert.equal(broker.jobs.length, 0);
    transport.back();
    while (broker.jobs.length < 3) await turn();
    assert.deepEqual(sent(broker).map(({ kind, id }) => [kind, id]).sort(), [
      ["cancel", "new"],
      ["cancel", "old"],
      ["job", "new"],
    ]);
  });
}

test("a job that is given up and cannot be sent either is nobody's error", async (t) => {
  const broker = new MemoryBroker();
  const transport = new SlowTransport(broker);
  const { client } = await scene(t, { transport }, broker);
  await assert.rejects(client.complete({ prompt: "x" }, { timeoutMs: 5 }), aril.JobTimeout);
  t.mock.method(MemoryTransport.prototype, "send", async () => {
    throw new aril.BrokerUnavailable("gone");
  });
  transport.back();
  await turn();
  assert.equal(broker.jobs.length, 0);
});

test("a time-out may be longer than any timer", async (t) => {
  const { client } = await scene(t);
  const long: Array<[() => void, number]> = [];
  const real = globalThis.setTimeout;
  const set = t.mock.method(globalThis, "setTimeout", (wake: () => void, ms: number) =>
    ms < 1_000_000 ? real(wake, ms) : void long.push([wake, ms]),
  );
  const longest = 2 ** 31 - 1; // past it, Node's timers go off at once
  for (const timeoutMs of [Infinity, longest + 1, 3 * longest]) {
    await client.stream({ prompt: "x" }, { timeoutMs }).start();
  }
  const late = await client.stream({ id: "late", prompt: "x" }, { timeoutMs: longest + 7 }).start();
  assert.deepEqual(long.map(([, ms]) => ms), [longest, longest, longest, longest]);
  for (const [wake] of long.splice(0)) wake();
  assert.deepEqual(long.map(([, ms]) => ms), [longest, longest]); // of the first and the third
  await assert.rejects(late.result(), aril.JobTimeout); // by a timer of 7 ms
  set.mock.restore();
  await client.close();
});

test("a time-out and an aborted signal end the job", async (t) => {
  const { broker, client } = await scene(t);
  await assert.rejects(client.complete({ id: "late", prompt: "x" }, { timeoutMs: 20 }), {
    name: "JobTimeout",
    message: "job late was not finished within 20 ms",
  });
  const abort = new AbortController();
  const waiting = client.complete({ id: "aborted", prompt: "x" }, { signal: abort.signal });
  setTimeout(() => abort.abort(), 20);
  await assert.rejects(waiting, { name: "AbortError" });
  await assert.rejects(client.complete({ id: "never", prompt: "x" }, { signal: abort.signal }), { name: "AbortError" });
  await client.close();
  const told = sent(broker).map(({ id, kind }) => [id, kind]);
  assert.deepEqual(told, [["late", "job"], ["late", "cancel"], ["aborted", "job"], ["aborted", "cancel"]]);
});

test("a cancel goes where its job went, and the stream ends as the worker says", async (t) => {
  const { broker, client } = await scene(t, {}, new MemoryBroker({ jobsPartitions: 7 }));
  const stream = await client.stream({ id: "a", prompt: "x" }).start();
  await stream.cancel();
  const [job, cancel] = broker.jobs;
  assert.deepEqual([cancel?.partition, cancel?.key], [job?.partition, job?.key]);
  assert.deepEqual(sent(broker)[1], { v: 1, kind: "cancel", id: "a", tenant: "acme" });
  append(broker, "a", [failed("a", 0, { code: "cancelled" })]);
  await assert.rejects(stream.result(), { code: "cancelled" });
  await client.close();
});

test("while the broker is away streams fail, and can be resumed after", async (t) => {
  const { broker, client } = await scene(t);
  const stream = await client.stream({ id: "a", prompt: "x" }).start();
  append(broker, "a", [tokens("a", 0, "x")]);
  const events = stream[Symbol.asyncIterator]();
  await events.next();
  broker.failing = true;
  await assert.rejects(events.next(), aril.BrokerUnavailable);
  await assert.rejects(client.complete({ prompt: "x" }), aril.BrokerUnavailable);
  broker.failing = false;
  append(broker, "a", [tokens("a", 1, "y"), done("a", 2)]);
  assert.deepEqual(await collect(client.resume(stream.token)), ["y", "done"]);
  await client.close();
  assert.deepEqual(kinds(broker), ["job"]); // the job may have been well: it was not cancelled
});

test("jobs and cancels are signed, for the partition that they are sent to", async (t) => {
  const { privateKey, publicKey } = generateKeyPairSync("ed25519");
  const signer = new aril.Signer(privateKey, { keyId: "k1", clock: () => 1_790_000_000_000 });
  const { broker, client } = await scene(t, { signer, jobsTopic: "work" }, new MemoryBroker({ jobsPartitions: 9 }));
  const parent = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
  const trace = { traceparent: parent, tracestate: "vendor=1" };
  await (await client.stream({ id: "a", prompt: "x" }, trace).start()).cancel();
  for (const { partition, key, value, headers } of broker.jobs) {
    const [version, tenant, keyId, time, signature] = headers[0]![1].toString().split(".");
    assert.deepEqual([headers[0]![0], version, tenant, keyId, time], ["aril-signature", "1", "acme", "k1", "1790000000000"]);
    const message = signedMessage({ tenant: "acme", topic: "work", partition, key, value }, "k1", 1_790_000_000_000);
    assert.ok(verify(null, message, publicKey, Buffer.from(signature!, "hex")));
  }
  const names = broker.jobs.map(({ headers }) => headers.map(([name]) => name));
  assert.deepEqual(names, [["aril-signature", "traceparent", "tracestate"], ["aril-signature"]]);
  assert.throws(() => client.stream({ prompt: "x" }, { traceparent: "00-0-0-0" }), aril.BadJob);
  assert.throws(() => client.stream({ prompt: "x" }, { tracestate: "a=b" }), aril.BadJob);
  await client.close();
});
