/** The transport by Kafka, its library's requests answered by hand; real brokers: tests/clients. */

import assert from "node:assert/strict";
import { mock, test, type TestContext } from "node:test";

import { Consumer, MultipleErrors, NetworkError, Producer, ResponseError } from "@platformatic/kafka";

import { BrokerUnavailable, TopicMissing } from "../dist/errors.js";
import { KafkaTransport } from "../dist/kafka.js";
import { Troubles } from "../dist/troubles.js";
import { type Fetched, OutOfRange } from "../dist/transport.js";

const FETCH = 1;

interface Asked {
  node: number;
  topics: Array<{ partitions: Array<{ partition: number; fetchOffset: bigint; partitionMaxBytes: number }> }>;
}

/** A cluster whose fetches a test answers, one after the other. */
class Cluster {
  leaders = [1, 1];
  refreshed = 0;
  readonly asked: Asked[] = [];
  readonly answers: Array<(asked: Asked) => unknown> = [];

  constructor(t: TestContext) {
    const metadata = async (options: { forceUpdate?: boolean }): Promise<unknown> => {
      if (options.forceUpdate) this.refreshed += 1;
      const topic = { id: "id", partitionsCount: 2, partitions: this.leaders.map((leader) => ({ leader })) };
      return { topics: new Map([["jobs", topic], ["replies.acme", topic]]) };
    };
    const fetch = async (asked: Asked): Promise<unknown> => {
      this.asked.push(asked);
      const answer = this.answers.shift() ?? (() => response([]));
      return await answer(asked);
    };
    mock.method(Consumer.prototype, "metadata", metadata as never);
    mock.method(Consumer.prototype, "fetch", fetch as never);
    t.after(() => mock.restoreAll());
  }

  /** What was asked for last: partitions with their offsets. */
  get last(): Array<[number, bigint]> {
    const { topics } = this.asked.at(-1)!;
    return topics.flatMap(({ partitions }) =>
      partitions.map(({ partition, fetchOffset }): [number, bigint] => [partition, fetchOffset]),
    );
  }
}

/** A batch from an offset on, of records with these values. */
function batch(firstOffset: number, values: string[], attributes = 0): unknown {
  const records = values.map((value, offsetDelta) => ({
    offsetDelta,
    key: Buffer.from("j1"),
    value: Buffer.from(value),
  }));
  return { firstOffset: BigInt(firstOffset), lastOffsetDelta: values.length - 1, attributes, records };
}

function response(partitions: Array<[number, unknown[], number?]>): unknown {
  return {
    responses: [
      {
        partitions: partitions.map(([partitionIndex, records, errorCode = 0]) => ({
          partitionIndex,
          records,
          errorCode,
        })),
      },
    ],
  };
}

/** The library's error for a response of which the first partition is in error. */
function refusal(code: number, rest: Array<[number, unknown[]]> = []): Error {
  const answer = response([[0, [], code], ...rest]);
  return new ResponseError(FETCH, 17, { "/responses/0/partitions/0": [code, null] }, answer);
}

async function opened(t: TestContext): Promise<{ transport: KafkaTransport; got: string[]; poll: () => Promise<void> }> {
  const transport = new KafkaTransport("localhost:1", "jobs", "replies.acme");
  t.after(() => transport.close());
  assert.deepEqual(await transport.open(), { jobs: 2, replies: 2 });
  const got: string[] = [];
  const deliver = (records: readonly Fetched[]): void => {
    got.push(...records.map(({ partition, offset, value }) => `${partition}:${offset}:${value}`));
  };
  return { transport, got, poll: () => transport.poll(deliver) };
}

test("only what is followed is fetched, from its offset on, whole batches or not", async (t) => {
  const cluster = new Cluster(t);
  const { transport, got, poll } = await opened(t);
  transport.follow(1, 7n);
  cluster.answers.push(() => response([[1, [batch(5, ["a", "b", "c", "d"]), batch(9, ["x"], 0x20), batch(12, ["e"])]]]));
  await poll();
  assert.deepEqual(got, ["1:7:c", "1:8:d", "1:12:e"]); // no record before, no marker of a transaction
  await poll();
  assert.deepEqual(cluster.last, [[1, 13n]]);
  transport.unfollow(1);
  const count = cluster.asked.length;
  await poll();
  assert.equal(cluster.asked.length, count);
});

test("a batch that cannot be unpacked is left out, the second time that it is met", async (t) => {
  const cluster = new Cluster(t);
  const warned = mock.method(process, "emitWarning", () => undefined);
  const { transport, got, poll } = await opened(t);
  transport.follow(0, 0n);
  transport.follow(1, 7n);
  const logs = [
    [batch(0, ["a", "b"]), null, null, null, batch(5, ["c"])], // null: of the batch from 2 to 4
    [batch(7, ["x"])],
  ];
  const read = ({ partition, fetchOffset, partitionMaxBytes }: Asked["topics"][0]["partitions"][0]): unknown[] => {
    const at = Number(fetchOffset);
    if (partition === 1) return at === 7 ? logs[1]! : [];
    const rest = logs[0]!.slice(at < 2 ? 0 : at - 1);
    return partitionMaxBytes === 1 ? rest.slice(0, 1) : rest;
  };
  const answered = ({ topics }: Asked): unknown => {
    const found = topics[0]!.partitions.map((each): [number, unknown[]] => [each.partition, read(each)]);
    if (found.some(([, batches]) => batches.includes(null))) {
      throw new AggregateError([Object.assign(new Error("incorrect data check"), { code: "Z_DATA_ERROR" })]);
    }
    return response(found);
  };
  cluster.answers.push(...Array<(asked: Asked) => unknown>(20).fill(answered));
  while (!(got.includes("0:5:c") && got.includes("1:7:x"))) await poll();
  assert.deepEqual(got.filter((each) => each.startsWith("0")), ["0:0:a", "0:1:b", "0:5:c"]);
  assert.deepEqual(got.filter((each) => each.startsWith("1")), ["1:7:x"]);
  assert.equal(warned.mock.callCount(), 3);
});

test("what goes wrong with a broker leaves nothing out", async (t) => {
  const cluster = new Cluster(t);
  const { transport, got, poll } = await opened(t);
  transport.follow(0, 0n);
  for (let times = 0; times < 3; times += 1) {
    cluster.answers.push(() => {
      throw new MultipleErrors("no", [new NetworkError("cut", { cause: Object.assign(new Error("x"), { code: "ECONNRESET" }) })]);
    });
  }
  cluster.answers.push(() => response([[0, [batch(0, ["a"])]]]));
  while (got.length === 0) await poll();
  assert.deepEqual(got, ["0:0:a"]);
});

test("a batch whose records are all gone is passed over", async (t) => {
  const cluster = new Cluster(t);
  const { transport, got, poll } = await opened(t);
  transport.follow(0, 3n);
  cluster.answers.push(() => response([[0, [{ firstOffset: 3n, lastOffsetDelta: 6, attributes: 0, records: [] }]]]));
  await poll();
  await poll();
  assert.deepEqual([got, cluster.last], [[], [[0, 10n]]]);
});

test("what was asked for before a partition was followed anew is not handed over", async (t) => {
  const cluster = new Cluster(t);
  const { transport, got, poll } = await opened(t);
  transport.follow(0, 10n);
  transport.follow(1, 0n);
  cluster.answers.push(() => {
    transport.follow(0, 2n); // while the request is under way
    transport.unfollow(1);
    return response([[0, [batch(10, ["late"])]], [1, [batch(0, ["left"])]]]);
  });
  await poll();
  assert.deepEqual(got, []);
  cluster.answers.push(() => response([[0, [batch(2, ["early"])]]]));
  await poll();
  assert.deepEqual([got, cluster.last], [["0:2:early"], [[0, 2n]]]);
});

test("an offset that the log does not hold is told; the other partition's records come", async (t) => {
  const cluster = new Cluster(t);
  const { transport, got, poll } = await opened(t);
  transport.follow(0, 99n);
  transport.follow(1, 0n);
  cluster.answers.push(() => {
    throw refusal(1, [[1, [batch(0, ["x"])]]]);
  });
  await assert.rejects(poll(), (error) => error instanceof OutOfRange && error.partition === 0);
  assert.deepEqual(got, ["1:0:x"]);
});

test("where another broker leads now, it is asked", async (t) => {
  const cluster = new Cluster(t);
  const { transport, got, poll } = await opened(t);
  transport.follow(0, 0n);
  cluster.answers.push(() => {
    cluster.leaders = [2, 2];
    throw refusal(6); // not the leader
  });
  cluster.answers.push(() => response([[0, [batch(0, ["x"])]]]));
  while (got.length === 0) await poll();
  assert.deepEqual([cluster.asked.map(({ node }) => node), cluster.refreshed], [[1, 2], 1]);
});

test("one broker that does not answer holds up no other", async (t) => {
  const cluster = new Cluster(t);
  cluster.leaders = [1, 2];
  const { transport, got, poll } = await opened(t);
  transport.follow(0, 0n);
  transport.follow(1, 0n);
  let free: (value: unknown) => void = () => undefined;
  cluster.answers.push(() => new Promise((resolve) => (free = resolve)));
  for (let at = 0; at < 3; at += 1) cluster.answers.push(() => response([[1, [batch(at, [`${at}`])]]]));
  while (got.length < 3) await poll();
  assert.deepEqual(cluster.asked.map(({ node }) => node), [1, 2, 2, 2]);
  free(response([[0, [batch(0, ["x"])]]]));
  while (got.length < 4) await poll();
  assert.equal(got.at(-1), "0:0:x");
});

test("what will not pass is told at once, in one line", async (t) => {
  const cluster = new Cluster(t);
  const { transport, poll } = await opened(t);
  transport.follow(0, 0n);
  cluster.answers.push(() => {
    throw refusal(29); // no right to the topic
  });
  await assert.rejects(poll(), (error) => error instanceof BrokerUnavailable && !error.message.includes("\n"));
});

test("trouble has to last before it is told, and is over with the first answer", async () => {
  const troubles = new Troubles();
  assert.deepEqual([troubles.rests(1), troubles.lasts(1, 20), troubles.rests(1)], [false, false, true]);
  assert.equal(troubles.rests(2), false);
  const began = performance.now();
  while (troubles.rests(1)) await troubles.wait(5_000); // until the rest ends, and no longer
  assert.ok(performance.now() - began < 2_500);
  assert.equal(troubles.lasts(1, 20), true);
  troubles.over(1);
  assert.equal(troubles.lasts(1, 20), false);
});

test("a topic that is not there has a name", async (t) => {
  mock.method(Consumer.prototype, "metadata", (async () => {
    throw new Error("Unknown topic replies.acme.");
  }) as never);
  t.after(() => mock.restoreAll());
  const transport = new KafkaTransport(["localhost:1", "localhost:2"], "jobs", "replies.acme");
  await assert.rejects(transport.open(), (error) => error instanceof TopicMissing && /replies\.acme/.test(error.message));
});

test("a job is acknowledged by all replicas, in its partition, with its headers", async (t) => {
  const sent: unknown[] = [];
  mock.method(Producer.prototype, "send", (async (options: unknown) => sent.push(options)) as never);
  new Cluster(t);
  const { transport } = await opened(t);
  await transport.send(5, Buffer.from("j1"), Buffer.from("value"), [["aril-signature", Buffer.from("1.x")]]);
  const headers = new Map([
    [Buffer.from("content-type"), Buffer.from("application/msgpack")],
    [Buffer.from("aril-signature"), Buffer.from("1.x")],
  ]);
  const message = { topic: "jobs", partition: 5, key: Buffer.from("j1"), value: Buffer.from("value"), headers };
  assert.deepEqual(sent, [{ messages: [message], acks: -1 }]);
});
