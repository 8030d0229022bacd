/**
 * The reader rule: which records of a reply log count. A pure fold over one job's records.
 *
 * Workers crash, wake up as zombies and have appends land late or twice. Nothing guards the log, yet
 * every reader sees the same answer, because each applies this rule in log order:
 *
 *     finished   after a visible end no record counts
 *     lower      a record of a lower epoch is ignored
 *     release    changes nothing
 *     higher     a higher epoch begins only with a claim or a record at index 0: its epoch and worker
 *                become current. A claim keeps what is visible; a record at index 0 withdraws it
 *     equal      only the worker that began the epoch counts, and of it what has the next index
 */

import type { Failure } from "./errors.js";
import type { Epoch, Outcome, ReplyRecord, TokenLogprobs } from "./reply.js";

/** Tokens became visible, the first being the answer's `index`-th, and `text` with them. */
export interface TokensEvent {
  readonly type: "tokens";
  readonly index: number;
  readonly ids: readonly number[];
  readonly text: string;
  readonly logprobs: readonly TokenLogprobs[] | null;
}

/** All `withdrawn` visible tokens, and their text, are no longer part of the answer. Rare. */
export interface ResetEvent {
  readonly type: "reset";
  readonly withdrawn: number;
}

/** The answer is complete; `text` is the rest of it. */
export interface DoneEvent extends Outcome {
  readonly type: "done";
  readonly index: number;
  readonly text: string;
}

/** The job ended without a complete answer; what is visible stays visible. */
export interface ErrorEvent extends Failure {
  readonly type: "error";
  readonly index: number;
}

export type ReaderEvent = TokensEvent | ResetEvent | DoneEvent | ErrorEvent;

/** What a reader of one job's replies sees. Feed it that job's records in log order. */
export class VisibleStream {
  epoch: Epoch = [0, 0];
  writer: string | null = null;
  resets = 0;
  terminal: DoneEvent | ErrorEvent | null = null;
  #ids: number[] = [];
  #text: string[] = [];

  /** The number of visible tokens. */
  get count(): number {
    return this.#ids.length;
  }

  get tokenIds(): number[] {
    return [...this.#ids];
  }

  /** The visible text; once finished with `done`, the whole answer. */
  get text(): string {
    return this.#text.join("");
  }

  /** Apply the rule to the log's next record; return what it changed, often nothing. */
  feed(record: ReplyRecord): ReaderEvent[] {
    const order = compare(record.epoch, this.epoch);
    if (this.terminal !== null || order < 0 || record.kind === "release") return [];
    const events: ReaderEvent[] = [];
    if (order > 0) {
      if (record.kind !== "claim" && record.index !== 0) return [];
      this.epoch = record.epoch;
      this.writer = record.worker;
      if (record.kind !== "claim" && this.count > 0) events.push(this.#withdraw());
    }
    if (record.kind === "claim") return [];
    if (record.worker !== this.writer || record.index !== this.count) return [];
    events.push(this.#accept(record));
    return events;
  }

  #withdraw(): ResetEvent {
    const withdrawn = this.count;
    this.#ids = [];
    this.#text = [];
    this.resets += 1;
    return { type: "reset", withdrawn };
  }

  #accept(record: Exclude<ReplyRecord, { kind: "claim" | "release" }>): ReaderEvent {
    const { index } = record;
    if (record.kind === "error") {
      return (this.terminal = { type: "error", index, ...record.failure });
    }
    this.#text.push(record.text);
    if (record.kind === "done") {
      return (this.terminal = { type: "done", index, text: record.text, ...record.outcome });
    }
    for (const id of record.ids) this.#ids.push(id);
    return { type: "tokens", index, ids: record.ids, text: record.text, logprobs: record.logprobs };
  }
}

function compare(one: Epoch, other: Epoch): number {
  return one[0] - other[0] || one[1] - other[1];
}
