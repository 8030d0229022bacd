/** One job as its caller sees it: events, the whole answer, and the token to go on from. */

import { ClientClosed, JobFailed, JobTimeout } from "./errors.js";
import type { Inbox } from "./inbox.js";
import type { DoneEvent, ReaderEvent, ResetEvent, TokensEvent } from "./reader.js";
import type { Outcome } from "./reply.js";
import { ResumeToken } from "./token.js";

// Of a timer: past it, it would go off at once.
const LONGEST_TIMER_MS = 2 ** 31 - 1;

/** What iterating a stream gives; an error is thrown. */
export type StreamEvent = TokensEvent | ResetEvent | DoneEvent;

/** A finished answer, whole, whatever was streamed before. */
export interface Completion extends Outcome {
  readonly job: string;
  readonly text: string;
  readonly tokenIds: readonly number[];
  /** How often tokens were withdrawn. */
  readonly resets: number;
}

/** How long a caller waits. Past it, or once `signal` is aborted, the job is cancelled. */
export interface Patience {
  readonly timeoutMs?: number | undefined;
  readonly signal?: AbortSignal | undefined;
}

/** What a stream asks of its client. */
export interface StreamOwner {
  /** Begin to read, and send the job if it is new. `wake` is to be called when events arrive. */
  begin(wake: () => void): Promise<Inbox>;
  taken(inbox: Inbox): void;
  /** Stop reading; with `cancel`, end the job unless it has ended. */
  leave(inbox: Inbox, cancel: boolean): void;
  cancel(job: string): Promise<void>;
}

/**
 * The events of one job: iterate it once, or await `result()`.
 *
 * Nothing is sent before the first of `start()`, iteration and `result()`. Who stops iterating, or
 * leaves the block of an `await using`, cancels the job; `detach()` lets it run.
 */
export class Stream implements AsyncIterable<StreamEvent>, AsyncDisposable {
  readonly job: string;
  readonly #owner: StreamOwner;
  readonly #patience: Patience;
  #inbox: Inbox | undefined;
  #begun: Promise<Inbox> | undefined;
  #timer: NodeJS.Timeout | undefined;
  #expired = false;
  #over = false;
  #left = false;
  #result: Completion | undefined;
  #wake: () => void = () => undefined;
  readonly #onAbort = (): void => this.#wake();

  constructor(job: string, owner: StreamOwner, patience: Patience) {
    this.job = job;
    this.#owner = owner;
    this.#patience = patience;
  }

  /** Where the caller stands now: text by `String(token)`. Throws ClientClosed before the start. */
  get token(): ResumeToken {
    const { partition, start, given } = this.#started();
    return new ResumeToken(this.job, partition, start, given.tokens, given.resets);
  }

  /** Whether the job's end was handed over. */
  get finished(): boolean {
    return this.#over;
  }

  /** Send the job, or begin to read a resumed one; harmless when that is done. */
  async start(): Promise<this> {
    this.#begun ??= this.#start();
    await this.#begun;
    return this;
  }

  /** The whole answer, resets withdrawn. Rejected as iterating is. */
  async result(): Promise<Completion> {
    for await (const _ of this);
    if (this.#result === undefined) {
      throw new ClientClosed(`the stream of job ${this.job} was left before its end`);
    }
    return this.#result;
  }

  /** Ask for the job to be ended; its stream then ends in JobFailed (`cancelled`). */
  async cancel(): Promise<void> {
    await this.#owner.cancel(this.job);
  }

  /** Stop reading but let the job run; returns the token to resume it with. */
  detach(): ResumeToken {
    const token = this.token;
    this.#leave(false);
    return token;
  }

  /** Stop reading; cancels the job unless its end has been seen. */
  close(): void {
    this.#leave(true);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.close();
  }

  /** Throws JobFailed, JobConflict, JobTimeout, StreamLost, ReplyUnreadable, BrokerUnavailable, ClientClosed. */
  async *[Symbol.asyncIterator](): AsyncGenerator<StreamEvent, void, undefined> {
    try {
      await this.start();
      while (!(this.#over || this.#left)) {
        const event = await this.#next();
        if (event === undefined) return;
        if (event.type === "error") {
          this.#over = true;
          throw new JobFailed(this.job, event);
        }
        if (event.type === "done") this.#finish(event);
        yield event;
      }
    } finally {
      this.#leave(true);
    }
  }

  async #start(): Promise<Inbox> {
    const { timeoutMs, signal } = this.#patience;
    if (this.#left) throw new ClientClosed(`the stream of job ${this.job} was left`);
    signal?.throwIfAborted();
    signal?.addEventListener("abort", this.#onAbort);
    if (timeoutMs !== undefined) this.#expireIn(timeoutMs);
    const begun = this.#owner.begin(() => this.#wake());
    try {
      this.#inbox = await this.#inTime(begun);
    } catch (error) {
      this.#release();
      // Given up, it may be sent all the same: it is ended as soon as that is known.
      begun.then((inbox) => this.#owner.leave(inbox, true)).catch(() => undefined);
      throw error;
    }
    if (this.#left) this.#owner.leave(this.#inbox, true); // closed while it was being sent
    return this.#inbox;
  }

  /** What is begun, if the caller's patience lasts so long. */
  async #inTime(begun: Promise<Inbox>): Promise<Inbox> {
    let settled = false;
    const settling = begun.catch(() => undefined).then(() => (settled = true));
    while (!settled) {
      this.#patience.signal?.throwIfAborted();
      if (this.#expired) throw this.#timedOut();
      await Promise.race([settling, new Promise<void>((resolve) => (this.#wake = resolve))]);
    }
    return await begun;
  }

  #expireIn(timeoutMs: number): void {
    const first = Math.min(timeoutMs, LONGEST_TIMER_MS);
    const rest = timeoutMs - first;
    this.#timer = setTimeout(() => (rest > 0 ? this.#expireIn(rest) : this.#expire()), first);
  }

  #expire(): void {
    this.#expired = true;
    this.#wake();
  }

  /** The next event; undefined once the stream was left. */
  async #next(): Promise<ReaderEvent | undefined> {
    const inbox = this.#started();
    for (;;) {
      if (this.#left) return undefined;
      this.#patience.signal?.throwIfAborted();
      const event = inbox.take();
      if (event !== undefined) {
        this.#owner.taken(inbox);
        return event;
      }
      if (inbox.failure !== null) {
        this.#leave(false); // the job may be well: its token can be tried again
        throw inbox.failure;
      }
      if (this.#expired) throw this.#timedOut();
      await new Promise<void>((resolve) => (this.#wake = resolve));
    }
  }

  #timedOut(): JobTimeout {
    return new JobTimeout(this.job, this.#patience.timeoutMs ?? 0);
  }

  #finish(event: DoneEvent): void {
    this.#over = true;
    const { stream } = this.#started();
    const { type: _type, index: _index, text: _text, ...outcome } = event;
    this.#result = {
      ...outcome,
      job: this.job,
      text: stream.text,
      tokenIds: stream.tokenIds,
      resets: stream.resets,
    };
  }

  #started(): Inbox {
    if (this.#inbox === undefined) throw new ClientClosed(`job ${this.job} has not been started`);
    return this.#inbox;
  }

  #leave(cancel: boolean): void {
    if (this.#left) return;
    this.#left = true;
    this.#release();
    if (this.#inbox !== undefined) this.#owner.leave(this.#inbox, cancel);
    this.#wake();
  }

  #release(): void {
    clearTimeout(this.#timer);
    this.#patience.signal?.removeEventListener("abort", this.#onAbort);
  }
}
