/**
 * The seam between the client and a broker: what the client needs of one.
 *
 * `kafka.ts` does it with Kafka, `memory.ts` in memory, so that programs are testable without one.
 */

export type Header = readonly [name: string, value: Buffer];

/** How many partitions the two topics of a tenant have. */
export interface Partitions {
  readonly jobs: number;
  readonly replies: number;
}

/** One record of the reply topic. */
export interface Fetched {
  readonly partition: number;
  readonly offset: bigint;
  readonly key: Buffer | null;
  readonly value: Buffer | null;
}

/** The offset to read next of this partition is outside of what its log holds. */
export class OutOfRange extends Error {
  constructor(readonly partition: number) {
    super(`partition ${partition} does not hold the offset to read`);
  }
}

/**
 * One producer of jobs and one group-less reader of a reply topic. Every promise may be rejected
 * with BrokerUnavailable.
 */
export interface Transport {
  /** Connect. Rejected with TopicMissing if one of the topics does not exist. */
  open(): Promise<Partitions>;
  /** Disconnect. Called once no `poll` is running. */
  close(): Promise<void>;
  /** Append a record to the jobs topic; resolved when every in-sync replica has it. */
  send(partition: number, key: Buffer, value: Uint8Array, headers: readonly Header[]): Promise<void>;
  /** The first offset that a reply partition still holds. */
  logStart(partition: number): Promise<bigint>;
  /** The offset that the next record of a reply partition will get. */
  logEnd(partition: number): Promise<bigint>;
  /** Let `poll` give the records of a reply partition from `offset` on. */
  follow(partition: number, offset: bigint): void;
  /** Let `poll` give nothing more of a reply partition. */
  unfollow(partition: number): void;
  /**
   * Hand over what has arrived, each partition in order; resolved after a short wait at the latest.
   *
   * `deliver` is called at once with what was found, so that no `follow` comes in between: records
   * from before one are never handed over behind it. Rejected with OutOfRange where a followed
   * offset is not in the log.
   */
  poll(deliver: (records: readonly Fetched[]) => void): Promise<void>;
}
