/** Many jobs over one reader of a reply topic: who gets which record, and where is read. No I/O. */

import { type ArilError, BadJob, StreamLost } from "./errors.js";
import type { Inbox } from "./inbox.js";
import type { Fetched } from "./transport.js";

/** What a router steers. */
export interface Steered {
  follow(partition: number, offset: bigint): void;
  unfollow(partition: number): void;
}

export class Router {
  readonly #reader: Steered;
  readonly #inboxes = new Map<string, Inbox>();
  /** The offset that is read next, of each partition that is followed. */
  readonly #next = new Map<number, bigint>();

  constructor(reader: Steered) {
    this.#reader = reader;
  }

  /** Whether any partition is being read. */
  get following(): boolean {
    return this.#next.size > 0;
  }

  /** The jobs that are being read. */
  jobs(): string[] {
    return [...this.#inboxes.keys()];
  }

  /** The offset that is read next; undefined while the partition is not followed. */
  position(partition: number): bigint | undefined {
    return this.#next.get(partition);
  }

  /** Begin to read for a job. Throws BadJob if this client reads it already. */
  add(inbox: Inbox): void {
    if (this.#inboxes.has(inbox.job)) {
      throw new BadJob(`job ${inbox.job} is already being read by this client`);
    }
    this.#inboxes.set(inbox.job, inbox);
    this.#readFrom(inbox);
  }

  /** Stop reading for a job; harmless if it has stopped. */
  remove(inbox: Inbox): void {
    if (this.#inboxes.get(inbox.job) !== inbox) return;
    this.#inboxes.delete(inbox.job);
    this.#rest(inbox.partition);
  }

  /** Hand over what was fetched, before anything else can move the reader. */
  deliver(records: readonly Fetched[]): void {
    const redirected = new Set<Inbox>();
    for (const record of records) {
      if (!this.#next.has(record.partition)) continue;
      this.#next.set(record.partition, record.offset + 1n);
      const inbox = this.#inboxes.get(record.key?.toString("latin1") ?? "");
      if (inbox === undefined || inbox.partition !== record.partition) continue;
      inbox.offer(record);
      if (inbox.stream.terminal !== null || inbox.failure !== null) {
        this.remove(inbox);
      } else if (inbox.stalled) {
        this.#rest(record.partition);
        if (inbox.redirected) redirected.add(inbox);
      }
    }
    for (const inbox of redirected) {
      // Only now: what was left of these records lies ahead of it.
      inbox.stalled = inbox.redirected = false;
      this.#readFrom(inbox);
    }
  }

  /** Note that a caller took an event: a stalled inbox may have room again. */
  taken(inbox: Inbox): void {
    if (!inbox.stalled || !inbox.roomy) return;
    inbox.stalled = false;
    if (this.#inboxes.get(inbox.job) === inbox) this.#readFrom(inbox);
  }

  /** Fail the jobs whose next record is not in the log of [start, end], read on for the others. */
  trim(partition: number, start: bigint, end: bigint): void {
    this.#next.delete(partition);
    for (const inbox of [...this.#inboxes.values()]) {
      if (inbox.partition !== partition) continue;
      if (start <= inbox.position && inbox.position <= end) {
        if (!inbox.stalled) this.#readFrom(inbox);
        continue;
      }
      this.#inboxes.delete(inbox.job);
      const gone = `replies to job ${inbox.job} from offset ${inbox.position} are gone`;
      inbox.fail(new StreamLost(`${gone} (the log holds ${start} to ${end})`));
    }
    if (!this.#next.has(partition)) this.#reader.unfollow(partition);
  }

  /** Fail every job, each with an error of its own. */
  failAll(error: () => ArilError): void {
    const failed = [...this.#inboxes.values()];
    this.#inboxes.clear();
    for (const inbox of failed) inbox.fail(error());
    for (const partition of [...this.#next.keys()]) this.#rest(partition);
  }

  #readFrom(inbox: Inbox): void {
    const at = this.#next.get(inbox.partition);
    if (at !== undefined && at <= inbox.position) return;
    this.#next.set(inbox.partition, inbox.position);
    this.#reader.follow(inbox.partition, inbox.position);
  }

  /** Let a partition alone that nobody waits for. */
  #rest(partition: number): void {
    for (const inbox of this.#inboxes.values()) {
      if (inbox.partition === partition && !inbox.stalled) return;
    }
    if (this.#next.delete(partition)) this.#reader.unfollow(partition);
  }
}
