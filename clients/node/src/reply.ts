/** What a worker answers: claims, releases, tokens and exactly one visible end per job. */

import type { Failure } from "./errors.js";

/** The rank of a job's writer: generation, then attempt. Compared in that order. */
export type Epoch = readonly [generation: number, attempt: number];

export type FinishReason = "stop" | "length";

/** Natural logarithms for one position; `top` holds the most likely tokens with theirs. */
export interface TokenLogprobs {
  readonly chosen: number;
  readonly top: ReadonlyArray<readonly [token: number, logprob: number]>;
}

/** A row for each token of a prompt; null for the first, which nothing comes before. */
export type PromptLogprobs = ReadonlyArray<TokenLogprobs | null>;

export interface Usage {
  readonly promptTokens: number;
  readonly completionTokens: number;
}

/** Milliseconds since the broker got the job. */
export interface Timings {
  readonly queueMs: number;
  readonly ttftMs: number;
  readonly totalMs: number;
}

/** One adapter of a mixture that answered, and the content that it had. */
export interface MixedAdapter {
  readonly name: string;
  readonly digest: string;
  readonly weight: number;
}

/** What is known of an answer once it is complete. */
export interface Outcome {
  readonly finishReason: FinishReason;
  readonly usage: Usage;
  /** Name and content digest of the adapter that answered; null for the backbone or a mixture. */
  readonly adapter: string | null;
  readonly digest: string | null;
  /** Of an adapter with an invocation: the prompt's token from which on it worked; null: nowhere. */
  readonly adapterActiveFrom?: number | null;
  /** Of a mixture; else empty. */
  readonly adapters: readonly MixedAdapter[];
  /** The backbone, the digest of its weights, and those of others that brought some tokens. */
  readonly base: string;
  readonly baseDigest: string | null;
  readonly earlierBases: readonly string[];
  /** What sampling was seeded with. */
  readonly seed: bigint;
  readonly timings: Timings;
  readonly promptLogprobs: PromptLogprobs | null;
  readonly metadata: Readonly<Record<string, string>>;
}

interface Head {
  readonly job: string;
  readonly epoch: Epoch;
  readonly worker: string;
}

export interface ClaimRecord extends Head {
  readonly kind: "claim";
  readonly alone: boolean;
  readonly baseDigest: string | null;
}

export interface ReleaseRecord extends Head {
  readonly kind: "release";
}

export interface TokensRecord extends Head {
  readonly kind: "tokens";
  readonly index: number;
  readonly ids: readonly number[];
  readonly text: string;
  readonly logprobs: readonly TokenLogprobs[] | null;
  readonly baseDigest: string | null;
}

export interface DoneRecord extends Head {
  readonly kind: "done";
  readonly index: number;
  readonly text: string;
  readonly outcome: Outcome;
}

export interface ErrorRecord extends Head {
  readonly kind: "error";
  readonly index: number;
  readonly failure: Failure;
}

export type ReplyRecord = ClaimRecord | ReleaseRecord | TokensRecord | DoneRecord | ErrorRecord;
