/** Client for Aril: jobs to a Kafka topic, answers as exactly-once token streams. */

export { Client, type ClientOptions, type StreamOptions } from "./client.js";
export { optionsFromEnv } from "./environment.js";
export * from "./errors.js";
export type { Job, Json, JsonObject, Message, ResponseFormat, Sampling, WeightedAdapter } from "./job.js";
export type { KafkaOptions } from "./kafka.js";
export type { DoneEvent, ResetEvent, TokensEvent } from "./reader.js";
export type {
  FinishReason,
  MixedAdapter,
  Outcome,
  PromptLogprobs,
  Timings,
  TokenLogprobs,
  Usage,
} from "./reply.js";
export { Signer, type SignerOptions } from "./signer.js";
export { type Completion, type Patience, Stream, type StreamEvent } from "./stream.js";
export { ResumeToken } from "./token.js";
export type { Fetched, Header, Partitions, Transport } from "./transport.js";
