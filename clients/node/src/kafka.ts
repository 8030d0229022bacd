/**
 * The client's transport on a Kafka cluster, by @platformatic/kafka.
 *
 * Replies are read by plain fetch requests, one at a time to each broker that leads a partition
 * which is followed. No consumer group is joined, and none is named to a broker.
 */

import {
  type BaseOptions,
  Consumer,
  FetchIsolationLevels,
  ListOffsetTimestamps,
  ProduceAcks,
  Producer,
} from "@platformatic/kafka";

import { BrokerUnavailable, TopicMissing } from "./errors.js";
import {
  type FetchResponse,
  isFinal,
  isUnreadable,
  meaning,
  outOfRange,
  responseOf,
  unknownTopic,
} from "./kafka-errors.js";
import { Troubles } from "./troubles.js";
import { type Fetched, type Header, OutOfRange, type Partitions, type Transport } from "./transport.js";

/** What may be told to the Kafka library: TLS, SASL and the like. */
export type KafkaOptions = Omit<Partial<BaseOptions>, "bootstrapBrokers" | "retries" | "strict">;

const CONTENT_TYPE: Header = ["content-type", Buffer.from("application/msgpack")];
const CLIENT_ID = "aril-client";
// A partition that is followed anew waits for the fetch in flight to its broker: keep that short.
const FETCH_WAIT_MS = 50;
const FETCH_BYTES = 8 * 1_048_576;
const PARTITION_BYTES = 1_048_576;
const REQUEST_TIMEOUT_MS = 15_000;
const METADATA_MS = 60_000;
const CONTROL = 0x20; // of a batch's attributes: markers of transactions, no records
const NO_LEADER = -1;
const ALL = -1; // names the cluster among the nodes that there is trouble with

/** What is read next of a partition; another object once it was followed anew. */
interface Place {
  offset: bigint;
  /** It is asked for without others, a batch at a time: one of those last asked for was unreadable. */
  alone: boolean;
}

export class KafkaTransport implements Transport {
  readonly #jobsTopic: string;
  readonly #replyTopic: string;
  readonly #producer: Producer;
  readonly #consumer: Consumer;
  readonly #brokers: string;
  readonly #followed = new Map<number, Place>();
  readonly #flights = new Map<number, Promise<void>>();
  readonly #troubles = new Troubles();
  /** What flights have met, told by the next poll. */
  readonly #failures: Error[] = [];
  #stale = false;

  constructor(
    brokers: string | readonly string[],
    jobsTopic: string,
    replyTopic: string,
    options: KafkaOptions = {},
  ) {
    const list = typeof brokers === "string" ? brokers.split(",") : [...brokers];
    const common = {
      clientId: CLIENT_ID,
      requestTimeout: REQUEST_TIMEOUT_MS,
      metadataMaxAge: METADATA_MS,
      ...options,
      bootstrapBrokers: list.map((each) => each.trim()),
    };
    this.#brokers = list.join(",");
    this.#jobsTopic = jobsTopic;
    this.#replyTopic = replyTopic;
    // A duplicate or a late landing of a job or a cancel is harmless; being stuck is not.
    this.#producer = new Producer({ ...common, acks: ProduceAcks.ALL, idempotent: false });
    this.#consumer = new Consumer({
      ...common,
      groupId: CLIENT_ID, // demanded by the library, and never joined
      isolationLevel: FetchIsolationLevels.READ_UNCOMMITTED,
      retries: 0, // by the library they would go to the same broker again, whoever leads
    });
  }

  async open(): Promise<Partitions> {
    const topics = [this.#jobsTopic, this.#replyTopic];
    try {
      const metadata = await this.#consumer.metadata({ topics: [...topics] });
      const [jobs, replies] = topics.map((topic) => metadata.topics.get(topic)?.partitionsCount ?? 0);
      if (!jobs || !replies) throw new TopicMissing(`no topic ${jobs ? topics[1] : topics[0]}`);
      return { jobs, replies };
    } catch (error) {
      await this.close();
      if (error instanceof BrokerUnavailable) throw error;
      const topic = unknownTopic(error);
      if (topic === undefined) throw unavailable(error, `no use of the brokers at ${this.#brokers}`);
      const message = `topic ${topic} does not exist; \`aril topics\` creates it`;
      throw new TopicMissing(message, { cause: error });
    }
  }

  async close(): Promise<void> {
    this.#followed.clear();
    await Promise.allSettled([this.#consumer.close(true), this.#producer.close(true)]);
    await Promise.allSettled(this.#flights.values());
  }

  async send(partition: number, key: Buffer, value: Uint8Array, headers: readonly Header[]): Promise<void> {
    // Names are buffers here: the library writes a text's name as it stands.
    const named = [CONTENT_TYPE, ...headers].map(([name, each]) => [Buffer.from(name), each] as const);
    const message = {
      topic: this.#jobsTopic,
      partition,
      key,
      value: Buffer.from(value.buffer, value.byteOffset, value.byteLength),
      headers: new Map(named),
    };
    try {
      await this.#producer.send({ messages: [message], acks: ProduceAcks.ALL });
    } catch (error) {
      throw unavailable(error, "the job or cancel was not acknowledged");
    }
  }

  async logStart(partition: number): Promise<bigint> {
    return await this.#offset(partition, ListOffsetTimestamps.EARLIEST);
  }

  async logEnd(partition: number): Promise<bigint> {
    return await this.#offset(partition, ListOffsetTimestamps.LATEST);
  }

  follow(partition: number, offset: bigint): void {
    this.#followed.set(partition, { offset, alone: false });
  }

  unfollow(partition: number): void {
    this.#followed.delete(partition);
  }

  async poll(deliver: (records: readonly Fetched[]) => void): Promise<void> {
    await this.#launch(deliver);
    await Promise.race([...this.#flights.values(), this.#troubles.wait(FETCH_WAIT_MS)]);
    const failure = this.#failures.shift();
    if (failure !== undefined) throw failure;
  }

  /** Send a fetch to each broker that has none in flight, and with which there is no trouble. */
  async #launch(deliver: (records: readonly Fetched[]) => void): Promise<void> {
    if (this.#troubles.rests(ALL)) return;
    const requests = new Map<number, Array<[number, Place]>>();
    let topicId: string;
    try {
      const topics = [this.#replyTopic];
      const metadata = await this.#consumer.metadata({ topics, forceUpdate: this.#stale });
      const topic = metadata.topics.get(this.#replyTopic);
      if (topic === undefined) throw new TopicMissing(`topic ${this.#replyTopic} is gone`);
      this.#stale = false;
      this.#troubles.over(ALL);
      topicId = topic.id;
      for (const [partition, place] of this.#followed) {
        const leader = topic.partitions[partition]?.leader ?? NO_LEADER;
        requests.set(leader, [...(requests.get(leader) ?? []), [partition, place]]);
      }
    } catch (error) {
      this.#failed(ALL, error);
      return;
    }
    for (const [node, places] of requests) {
      if (this.#flights.has(node) || this.#troubles.rests(node)) continue;
      const alone = places.find(([, place]) => place.alone);
      const flight = this.#fetch(node, topicId, alone === undefined ? places : [alone], deliver);
      this.#flights.set(node, flight);
      void flight.finally(() => this.#flights.delete(node));
    }
  }

  /** One request to one broker. Never rejected. */
  async #fetch(
    node: number,
    topicId: string,
    places: ReadonlyArray<[number, Place]>,
    deliver: (records: readonly Fetched[]) => void,
  ): Promise<void> {
    const partitions = places.map(([partition, { offset, alone }]) => ({
      partition,
      currentLeaderEpoch: -1,
      fetchOffset: offset,
      lastFetchedEpoch: -1,
      partitionMaxBytes: alone ? 1 : PARTITION_BYTES, // one batch comes, whatever its size
    }));
    let response: FetchResponse;
    try {
      response = await this.#consumer.fetch({
        node,
        topics: [{ topicId, partitions }],
        maxWaitTime: FETCH_WAIT_MS,
        minBytes: 1,
        maxBytes: FETCH_BYTES,
      });
    } catch (error) {
      if (isUnreadable(error)) this.#leaveOut(places, error);
      else this.#refused(node, places, error, deliver);
      return;
    }
    try {
      this.#troubles.over(node);
      deliver(this.#taken(response, new Map(places)));
    } catch (error) {
      this.#failed(node, error);
    }
  }

  /**
   * Go on behind what cannot be unpacked, once it was met a second time: it may have been the way.
   *
   * Where the batch ends is not told, so what follows is tried offset by offset.
   */
  #leaveOut(places: ReadonlyArray<[number, Place]>, error: unknown): void {
    for (const [partition, place] of places) {
      if (!place.alone) {
        place.alone = true;
        continue;
      }
      const where = `${this.#replyTopic}/${partition} at ${place.offset}`;
      process.emitWarning(`an unreadable batch is left out: ${where}: ${meaning(error)}`, "ArilWarning");
      place.offset += 1n;
    }
  }

  /** Take what came of the other partitions, and note what is wrong with those in error. */
  #refused(
    node: number,
    places: ReadonlyArray<[number, Place]>,
    error: unknown,
    deliver: (records: readonly Fetched[]) => void,
  ): void {
    try {
      const response = responseOf(error);
      if (response !== undefined) deliver(this.#taken(response, new Map(places)));
      const gone = outOfRange(error);
      for (const partition of gone) {
        const place = places.find(([each]) => each === partition)?.[1];
        if (this.#followed.get(partition) === place) this.#failures.push(new OutOfRange(partition));
      }
      if (gone.length === 0) this.#failed(node, error);
    } catch (trouble) {
      this.#failed(node, trouble);
    }
  }

  /** The records of a response, but of partitions that were followed anew or no more since. */
  #taken(response: FetchResponse, places: ReadonlyMap<number, Place>): Fetched[] {
    const found: Fetched[] = [];
    const partitions = response.responses.flatMap((topic) => topic.partitions);
    for (const { partitionIndex: partition, records: batches } of partitions) {
      const place = places.get(partition);
      if (place === undefined || this.#followed.get(partition) !== place) continue;
      place.alone = false;
      for (const batch of batches ?? []) {
        const from = place.offset;
        const behind = batch.firstOffset + BigInt(batch.lastOffsetDelta) + 1n;
        if (behind > place.offset) place.offset = behind;
        if ((batch.attributes & CONTROL) !== 0) continue;
        for (const record of batch.records) {
          const offset = batch.firstOffset + BigInt(record.offsetDelta);
          // Brokers send whole batches: what was asked for may begin within one.
          if (offset >= from) found.push({ partition, offset, key: record.key, value: record.value });
        }
      }
    }
    return found;
  }

  /** Note that there is trouble with a broker; what will not pass, or lasts, is told. */
  #failed(node: number, error: unknown): void {
    this.#stale = true;
    if (this.#troubles.lasts(node) || isFinal(error)) {
      this.#troubles.over(node);
      this.#failures.push(unavailable(error, "replies cannot be read"));
    }
  }

  async #offset(partition: number, timestamp: bigint): Promise<bigint> {
    const topic = this.#replyTopic;
    const troubles = new Troubles();
    for (;;) {
      try {
        const partitions = { [topic]: [partition] };
        const offsets = await this.#consumer.listOffsets({ topics: [topic], partitions, timestamp });
        const offset = offsets.get(topic)?.[partition];
        if (offset === undefined) throw new TopicMissing(`${topic} has no partition ${partition}`);
        return offset;
      } catch (error) {
        if (troubles.lasts(ALL, REQUEST_TIMEOUT_MS) || isFinal(error)) {
          throw unavailable(error, `no offset of ${topic}`);
        }
        this.#consumer.clearMetadata(); // another broker may lead
        await troubles.wait(REQUEST_TIMEOUT_MS);
      }
    }
  }
}

function unavailable(error: unknown, what: string): BrokerUnavailable {
  if (error instanceof BrokerUnavailable) return error;
  return new BrokerUnavailable(`${what}: ${meaning(error)}`, { cause: error });
}
