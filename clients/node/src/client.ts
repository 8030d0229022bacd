/** The client: a tenant sends jobs and reads their answers as streams. */

import { randomUUID } from "node:crypto";
import { setTimeout as sleep } from "node:timers/promises";

import { hashOf } from "./conflict.js";
import { encodeCancel, encodeJob, prepareJob, type Prepared } from "./encode.js";
import { ArilError, BadJob, BadToken, BrokerUnavailable, ClientClosed, StreamLost } from "./errors.js";
import { optionsFromEnv } from "./environment.js";
import { isInteger } from "./fields.js";
import { Inbox } from "./inbox.js";
import type { Job } from "./job.js";
import { type KafkaOptions, KafkaTransport } from "./kafka.js";
import { isJobId, isTenant } from "./names.js";
import { partitionOf } from "./partition.js";
import { Router } from "./router.js";
import type { Signer } from "./signer.js";
import { type Completion, type Patience, Stream } from "./stream.js";
import { ResumeToken } from "./token.js";
import { traceHeaders } from "./trace.js";
import { type Header, OutOfRange, type Partitions, type Transport } from "./transport.js";

// Events that one job may be ahead of its caller: a few screens of text, some hundred kilobytes.
const INBOX_EVENTS = 512;
// How long closing waits for cancel records to be acknowledged.
const CLOSE_MS = 5_000;

export interface ClientOptions {
  /** `host:port`, one or more. */
  readonly brokers: string | readonly string[];
  readonly tenant: string;
  readonly jobsTopic?: string;
  readonly repliesPrefix?: string;
  /** Passed to the Kafka library: `tls`, `sasl`, `connectTimeout` and so on. */
  readonly kafka?: KafkaOptions;
  /** Signs every job and cancel, where workers ask for that. */
  readonly signer?: Signer | undefined;
  /** The most events that wait for the caller of one job. */
  readonly inboxEvents?: number;
  /** Replaces Kafka, as in tests. */
  readonly transport?: Transport;
}

export interface StreamOptions extends Patience {
  /** W3C Trace Context: the trace that the job belongs to. */
  readonly traceparent?: string;
  readonly tracestate?: string;
}

/** One tenant's connection; all its jobs share one producer and one reader, which has no group. */
export class Client implements AsyncDisposable {
  readonly tenant: string;
  readonly #transport: Transport;
  readonly #partitions: Partitions;
  readonly #jobsTopic: string;
  readonly #signer: Signer | undefined;
  readonly #inboxEvents: number;
  readonly #router: Router;
  readonly #reading: Promise<void>;
  readonly #cancels = new Set<Promise<void>>();
  #wake: () => void = () => undefined;
  #closing: Promise<void> | undefined;

  /** Connect. Rejected with BrokerUnavailable, or TopicMissing. */
  static async connect(options: ClientOptions): Promise<Client> {
    const { tenant, jobsTopic = "jobs", repliesPrefix = "replies." } = options;
    if (!isTenant(tenant)) throw new BadJob("tenant: not the name of a tenant");
    const transport =
      options.transport ??
      new KafkaTransport(options.brokers, jobsTopic, repliesPrefix + tenant, options.kafka);
    return new Client(options, transport, await transport.open());
  }

  /** Connect as `ARIL_*` variables say: `optionsFromEnv`, with what `more` says instead. */
  static async fromEnv(tenant?: string, more: Partial<ClientOptions> = {}): Promise<Client> {
    return await Client.connect({ ...(await optionsFromEnv(tenant)), ...more });
  }

  private constructor(options: ClientOptions, transport: Transport, partitions: Partitions) {
    this.tenant = options.tenant;
    this.#transport = transport;
    this.#partitions = partitions;
    this.#jobsTopic = options.jobsTopic ?? "jobs";
    this.#signer = options.signer;
    this.#inboxEvents = options.inboxEvents ?? INBOX_EVENTS;
    this.#router = new Router({
      follow: (partition, offset) => {
        transport.follow(partition, offset);
        this.#wake();
      },
      unfollow: (partition) => transport.unfollow(partition),
    });
    this.#reading = this.#read();
  }

  /** The stream of a new job; it is sent when the stream is started or iterated. Throws BadJob. */
  stream(job: Job, options: StreamOptions = {}): Stream {
    const id = job.id ?? randomUUID().replaceAll("-", "");
    const headers = traceHeaders(options.traceparent, options.tracestate);
    const prepared = prepareJob(job, id, this.tenant);
    const place = job.replyPartition ?? partitionOf(id, this.#partitions.replies);
    const begin = (wake: () => void): Promise<Inbox> =>
      this.#begin(prepared, id, place, headers, wake);
    return this.#stream(id, begin, options);
  }

  /** Send a job and return its whole answer. */
  async complete(job: Job, options: StreamOptions = {}): Promise<Completion> {
    return await this.stream(job, options).result();
  }

  /**
   * The rest of a stream that an earlier client had begun to read, in whatever language.
   *
   * Only what comes after the token is given; a reset first, if what it covers was withdrawn.
   * Throws BadToken, and the stream StreamLost if the replies are no longer kept.
   */
  resume(token: ResumeToken | string, patience: Patience = {}): Stream {
    const from = typeof token === "string" ? ResumeToken.parse(token) : token;
    return this.#stream(from.job, (wake) => this.#beginResumed(from, wake), patience);
  }

  /** Ask for a job to be ended; if it still runs, its stream ends in JobFailed (`cancelled`). */
  async cancel(job: string): Promise<void> {
    await this.#send(job, encodeCancel(job, this.tenant), []);
  }

  /** Disconnect; jobs whose streams are unfinished and not detached are cancelled. */
  close(): Promise<void> {
    this.#closing ??= this.#close();
    return this.#closing;
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.close();
  }

  async #close(): Promise<void> {
    for (const job of this.#router.jobs()) this.#cancelSoon(job);
    this.#router.failAll(() => new ClientClosed("the client was closed"));
    const patience = new AbortController();
    const waited = sleep(CLOSE_MS, undefined, { signal: patience.signal }).catch(() => undefined);
    await Promise.race([Promise.all(this.#cancels), waited]);
    patience.abort();
    this.#wake();
    await this.#reading;
    await this.#transport.close();
  }

  #stream(job: string, begin: (wake: () => void) => Promise<Inbox>, patience: Patience): Stream {
    const owner = {
      begin,
      taken: (inbox: Inbox) => this.#router.taken(inbox),
      leave: (inbox: Inbox, cancel: boolean) => this.#leave(inbox, cancel),
      cancel: (each: string) => this.cancel(each),
    };
    return new Stream(job, owner, patience);
  }

  async #begin(
    job: Prepared,
    id: string,
    partition: number,
    trace: Header[],
    wake: () => void,
  ): Promise<Inbox> {
    this.#open();
    if (!isInteger(partition, 0, this.#partitions.replies - 1)) {
      throw new BadJob(`replyPartition: the reply topic has ${this.#partitions.replies} partitions`);
    }
    // What is read next is a lower bound as good as the end, and costs nothing.
    const position = this.#router.position(partition) ?? (await this.#transport.logEnd(partition));
    const value = encodeJob(job, position);
    const sent = hashOf(value);
    const inbox = new Inbox({ job: id, partition, position, limit: this.#inboxEvents, sent, wake });
    this.#listen(inbox);
    try {
      await this.#send(id, value, trace);
    } catch (error) {
      this.#router.remove(inbox);
      throw error;
    }
    return inbox;
  }

  async #beginResumed(token: ResumeToken, wake: () => void): Promise<Inbox> {
    this.#open();
    const { job, partition, replyFrom } = token;
    if (!isJobId(job)) throw new BadToken("the token names no job");
    if (partition >= this.#partitions.replies) {
      throw new BadToken(`the reply topic has no partition ${partition}`);
    }
    const start = await this.#transport.logStart(partition);
    const end = await this.#transport.logEnd(partition);
    if (replyFrom < start || replyFrom > end) {
      const kept = `kept are ${start} to ${end}`;
      throw new StreamLost(`replies to job ${job} begin at ${replyFrom}, ${kept}`);
    }
    const resumeAt = { resets: token.resets, tokens: token.count };
    const limit = this.#inboxEvents;
    const inbox = new Inbox({ job, partition, position: replyFrom, limit, resumeAt, wake });
    this.#listen(inbox);
    return inbox;
  }

  #listen(inbox: Inbox): void {
    this.#open();
    this.#router.add(inbox);
  }

  #open(): void {
    if (this.#closing !== undefined) throw new ClientClosed("the client was closed");
  }

  #leave(inbox: Inbox, cancel: boolean): void {
    this.#router.remove(inbox);
    if (cancel && this.#closing === undefined && inbox.stream.terminal === null && !inbox.others) {
      this.#cancelSoon(inbox.job);
    }
  }

  /** The same key and partition for a job and its cancel, so that they stay in order. */
  async #send(job: string, value: Uint8Array, trace: readonly Header[]): Promise<void> {
    const partition = partitionOf(job, this.#partitions.jobs);
    const key = Buffer.from(job);
    const request = { tenant: this.tenant, topic: this.#jobsTopic, partition, key, value };
    const headers = this.#signer === undefined ? trace : [this.#signer.header(request), ...trace];
    await this.#transport.send(partition, key, value, headers);
  }

  #cancelSoon(job: string): void {
    const sent = this.cancel(job)
      .catch(() => undefined) // nobody waits for it
      .finally(() => this.#cancels.delete(sent));
    this.#cancels.add(sent);
  }

  async #read(): Promise<void> {
    while (this.#closing === undefined) {
      if (this.#router.following) {
        await this.#readOnce();
      } else {
        await new Promise<void>((resolve) => (this.#wake = resolve));
      }
    }
  }

  async #readOnce(): Promise<void> {
    try {
      await this.#transport.poll((records) => this.#router.deliver(records));
    } catch (error) {
      try {
        if (!(error instanceof OutOfRange)) throw error;
        const { partition } = error;
        const start = await this.#transport.logStart(partition);
        this.#router.trim(partition, start, await this.#transport.logEnd(partition));
      } catch (trouble) {
        this.#router.failAll(() => told(trouble));
      }
    }
  }
}

/** An error of its own for each job: stacks and causes are not shared. */
function told(trouble: unknown): ArilError {
  const message = trouble instanceof Error ? trouble.message : String(trouble);
  return new BrokerUnavailable(message, { cause: trouble });
}
