/**
 * The transport's twin in memory: test a program that uses the client without a broker.
 *
 *     const broker = new MemoryBroker({ replyPartitions: 4 });
 *     const transport = new MemoryTransport(broker);
 *     const client = await Client.connect({ brokers: [], tenant: "acme", transport });
 *
 * A test plays the workers: it takes records from `broker.jobs` and appends replies.
 */

import { BrokerUnavailable } from "./errors.js";
import { type Fetched, type Header, OutOfRange, type Partitions, type Transport } from "./transport.js";

const POLL_MS = 100;
const POLL_RECORDS = 500;

/** A record that a client has sent. */
export interface Sent {
  readonly partition: number;
  readonly key: Buffer;
  readonly value: Buffer;
  readonly headers: readonly Header[];
}

interface ReplyLog {
  start: bigint;
  records: Fetched[];
}

/** One jobs topic and one tenant's reply topic, kept in arrays. */
export class MemoryBroker {
  readonly partitions: Partitions;
  readonly jobs: Sent[] = [];
  /** Set to have every call rejected. */
  failing = false;
  readonly #replies: ReplyLog[];
  readonly #waiting = new Set<() => void>();

  constructor(options: { jobsPartitions?: number; replyPartitions?: number } = {}) {
    const { jobsPartitions: jobs = 1, replyPartitions: replies = 1 } = options;
    this.partitions = { jobs, replies };
    this.#replies = Array.from({ length: replies }, () => ({ start: 0n, records: [] }));
  }

  /** Append a reply; returns its offset. */
  append(partition: number, key: string | null, value: Uint8Array | null): bigint {
    const offset = this.end(partition);
    const told = { key: key === null ? null : Buffer.from(key), value: value && Buffer.from(value) };
    this.#log(partition).records.push({ partition, offset, ...told });
    this.wake();
    return offset;
  }

  /** Delete the replies below an offset, as retention does. */
  expire(partition: number, start: bigint): void {
    const log = this.#log(partition);
    log.records.splice(0, Number(start - log.start));
    log.start = start;
    this.wake();
  }

  start(partition: number): bigint {
    return this.#log(partition).start;
  }

  end(partition: number): bigint {
    const { start, records } = this.#log(partition);
    return start + BigInt(records.length);
  }

  /** The records from an offset on. Throws OutOfRange. */
  read(partition: number, from: bigint, most: number): Fetched[] {
    const { start, records } = this.#log(partition);
    if (from < start || from > this.end(partition)) throw new OutOfRange(partition);
    const first = Number(from - start);
    return records.slice(first, first + most);
  }

  /** End the wait of every poll. */
  wake(): void {
    for (const wake of [...this.#waiting]) wake();
  }

  /** Wait for a change, but not long. */
  async changed(): Promise<void> {
    await new Promise<void>((resolve) => {
      const wake = (): void => {
        clearTimeout(timer);
        this.#waiting.delete(wake);
        resolve();
      };
      const timer = setTimeout(wake, POLL_MS);
      this.#waiting.add(wake);
    });
  }

  #log(partition: number): ReplyLog {
    const log = this.#replies[partition];
    if (log === undefined) throw new RangeError(`there is no reply partition ${partition}`);
    return log;
  }
}

/** A client's connection to a MemoryBroker. */
export class MemoryTransport implements Transport {
  readonly followed = new Map<number, bigint>();
  /** How many records were handed over, those that were read again included. */
  delivered = 0;
  readonly #broker: MemoryBroker;
  readonly #pollRecords: number;

  constructor(broker: MemoryBroker, options: { pollRecords?: number } = {}) {
    this.#broker = broker;
    this.#pollRecords = options.pollRecords ?? POLL_RECORDS;
  }

  async open(): Promise<Partitions> {
    this.#check();
    return this.#broker.partitions;
  }

  async close(): Promise<void> {
    this.followed.clear();
  }

  async send(partition: number, key: Buffer, value: Uint8Array, headers: readonly Header[]): Promise<void> {
    this.#check();
    this.#broker.jobs.push({ partition, key, value: Buffer.from(value), headers });
  }

  async logStart(partition: number): Promise<bigint> {
    this.#check();
    return this.#broker.start(partition);
  }

  async logEnd(partition: number): Promise<bigint> {
    this.#check();
    return this.#broker.end(partition);
  }

  follow(partition: number, offset: bigint): void {
    this.followed.set(partition, offset);
    this.#broker.wake();
  }

  unfollow(partition: number): void {
    this.followed.delete(partition);
  }

  async poll(deliver: (records: readonly Fetched[]) => void): Promise<void> {
    this.#check();
    const records = this.#fetch();
    if (records.length === 0) return await this.#broker.changed();
    this.delivered += records.length;
    deliver(records);
    await new Promise<void>((resolve) => void setImmediate(resolve)); // as a network lets others run
  }

  #fetch(): Fetched[] {
    const found: Fetched[] = [];
    for (const [partition, offset] of this.followed) {
      const records = this.#broker.read(partition, offset, this.#pollRecords);
      this.followed.set(partition, offset + BigInt(records.length));
      found.push(...records);
    }
    return found;
  }

  #check(): void {
    if (this.#broker.failing) throw new BrokerUnavailable("the broker is down");
  }
}
