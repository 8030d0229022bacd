/** One job's end of the reader: the reader rule, and the events its caller has not taken yet. */

import { decodeReply, UnknownCode } from "./decode-reply.js";
import { decodeConflict } from "./conflict.js";
import { ArilError, BadToken, JobConflict, ReplyUnreadable } from "./errors.js";
import { VisibleStream, type ReaderEvent } from "./reader.js";
import { decodeRedirect } from "./redirect.js";
import type { ReplyRecord } from "./reply.js";
import { BEGINNING, compareMarks, type Mark } from "./token.js";
import type { Fetched } from "./transport.js";

/**
 * Of records whose events one job may be ahead of its caller: logprobs make few events large. One
 * record may be past it, so that any is read.
 */
export const INBOX_BYTES = 1 << 20;

interface Waiting {
  readonly event: ReaderEvent;
  /** Of its record. */
  readonly bytes: number;
}

export interface InboxOptions {
  readonly job: string;
  readonly partition: number;
  /** The offset to read from. */
  readonly position: bigint;
  /** The most events that may wait here. */
  readonly limit: number;
  /** What a resumed stream's caller was given already, and is not given again. */
  readonly resumeAt?: Mark | undefined;
  /** The hash of the job's record, where it was sent for this inbox. */
  readonly sent?: string | undefined;
  /** Called when something has arrived. */
  readonly wake?: () => void;
}

/**
 * An inbox that is full takes nothing more (`stalled`). Once it has been emptied by half the reader
 * goes back to the first record it left out: the log is the buffer.
 */
export class Inbox {
  readonly job: string;
  readonly partition: number;
  readonly limit: number;
  /** Where the replies begin; lower after a redirect. */
  start: bigint;
  /** The offset of the next record to take. */
  position: bigint;
  stream = new VisibleStream();
  failure: ArilError | null = null;
  stalled = false;
  /** Stalled until the reader has gone back. */
  redirected = false;
  #events: Queue<Waiting> = new Queue();
  #bytes = 0;
  #folded: Mark = BEGINNING;
  #given: Mark;
  #replaying: boolean;
  readonly #sent: string | undefined;
  readonly #wake: () => void;

  constructor(options: InboxOptions) {
    this.job = options.job;
    this.partition = options.partition;
    this.start = this.position = options.position;
    this.limit = options.limit;
    this.#given = options.resumeAt ?? BEGINNING;
    this.#replaying = options.resumeAt !== undefined;
    this.#sent = options.sent;
    this.#wake = options.wake ?? (() => undefined);
  }

  /** How far the caller has come. */
  get given(): Mark {
    return this.#given;
  }

  /** How many events the caller has not taken. */
  get waiting(): number {
    return this.#events.size;
  }

  /** Whether one that was full has been emptied by half. */
  get roomy(): boolean {
    return this.waiting <= this.limit / 2 && this.#bytes <= INBOX_BYTES / 2;
  }

  /** Take the partition's next record for this job, or stall if the inbox is full. */
  offer(record: Fetched): void {
    if (record.offset < this.position || this.stalled) return;
    if (this.waiting >= this.limit || this.#bytes >= INBOX_BYTES) {
      this.stalled = true;
      return;
    }
    this.position = record.offset + 1n;
    const reply = this.#decode(record.value);
    if (reply === null) {
      this.#notice(record.value);
    } else if (reply !== undefined && reply.job === this.job) {
      const bytes = record.value?.length ?? 0;
      for (const event of this.stream.feed(reply)) {
        // Nothing more is given of a record that a token fits no place in.
        if (this.failure === null) this.#admit(event, bytes);
      }
    }
  }

  /** The caller's next event, or undefined for now. */
  take(): ReaderEvent | undefined {
    const next = this.#events.shift();
    if (next === undefined) return undefined;
    this.#bytes -= next.bytes;
    this.#given = after(this.#given, next.event);
    return next.event;
  }

  /** Tell the caller, after what has already arrived, that nothing more will come. */
  fail(error: ArilError): void {
    this.failure ??= error;
    this.#wake();
  }

  /** Null for a kind to skip, undefined where the stream has failed. */
  #decode(value: Uint8Array | null): ReplyRecord | null | undefined {
    try {
      return decodeReply(value);
    } catch (error) {
      // The rule has no such record, and a caller would wait for ever: it ends here all the same.
      if (error instanceof UnknownCode) return error.record;
      const said = error instanceof Error ? error.message : String(error);
      this.fail(new ReplyUnreadable(`a reply to job ${this.job} cannot be read: ${said}`));
      return undefined;
    }
  }

  /** Whether the id is another job's, which whoever leaves here does not end. */
  get others(): boolean {
    return this.failure instanceof JobConflict;
  }

  /** A record of no answer: it may say where the job's is, or that there is none. */
  #notice(value: Uint8Array | null): void {
    const seen = compareMarks(this.#folded, BEGINNING) !== 0 || compareMarks(this.#given, BEGINNING) !== 0;
    const start = decodeRedirect(value, this.job);
    if (start !== null) {
      if (start < this.start && !seen) this.#goBack(start);
      return;
    }
    const conflict = decodeConflict(value, this.job);
    if (conflict === null) return;
    // Who did not send the job knows only the place, where then is no other one's answer.
    const placed = !seen && conflict.replyFrom === this.start;
    const mine = this.#sent === undefined ? placed : conflict.sha256 === this.#sent;
    if (mine) this.fail(new JobConflict(this.job));
  }

  /** Read from an earlier place: the job was sent before, and its answer begins there. */
  #goBack(start: bigint): void {
    this.start = this.position = start;
    this.stream = new VisibleStream();
    this.stalled = this.redirected = true;
  }

  #admit(event: ReaderEvent, bytes: number): void {
    const before = this.#folded;
    this.#folded = after(before, event);
    if (this.#replaying) {
      const ends = event.type === "done" || event.type === "error";
      const order = compareMarks(this.#folded, this.#given);
      if (!ends && order <= 0) return;
      // A token points to the end of a record, and not past the answer.
      const within = compareMarks(before, this.#given) < 0 && before.resets === this.#given.resets;
      if (ends ? order < 0 : within) {
        this.fail(new BadToken(`the token of job ${this.job} fits no place in its visible stream`));
        return;
      }
      this.#replaying = false;
    }
    this.#events.push({ event, bytes });
    this.#bytes += bytes;
    this.#wake();
  }
}

/** The mark of a caller that has been given `event` too. */
function after(mark: Mark, event: ReaderEvent): Mark {
  if (event.type === "tokens") return { resets: mark.resets, tokens: mark.tokens + event.ids.length };
  return event.type === "reset" ? { resets: mark.resets + 1, tokens: 0 } : mark;
}

/** First in, first out, without moving what waits. */
class Queue<T> {
  #in: T[] = [];
  #out: T[] = [];

  get size(): number {
    return this.#in.length + this.#out.length;
  }

  push(value: T): void {
    this.#in.push(value);
  }

  shift(): T | undefined {
    if (this.#out.length === 0) {
      this.#out = this.#in.reverse();
      this.#in = [];
    }
    return this.#out.pop();
  }
}
