/**
 * A job as a typed value. Meanings, ranges and defaults: schemas/README.md.
 *
 * Names are those of the contract in camel case. What is shaped as in the OpenAI interface
 * (messages, tools, response_format's value) keeps the names that it has there.
 */

/** What JSON can say; integers past 2^53 are told as bigints. */
export type Json =
  | null
  | boolean
  | number
  | bigint
  | string
  | readonly Json[]
  | { readonly [key: string]: Json | undefined };

export type JsonObject = { readonly [key: string]: Json | undefined };

export interface Message {
  readonly role: "system" | "user" | "assistant" | "tool";
  /** Only an assistant's turn may be without. */
  readonly content?: string | ReadonlyArray<{ readonly type: "text"; readonly text: string }> | null;
  readonly name?: string;
  readonly tool_calls?: readonly JsonObject[];
  readonly tool_call_id?: string;
}

export interface WeightedAdapter {
  readonly name: string;
  readonly weight?: number;
}

export type ResponseFormat =
  | { readonly type: "text" }
  | { readonly type: "json_object" }
  | {
      readonly type: "json_schema";
      readonly json_schema: {
        readonly name?: string;
        readonly description?: string;
        /** A map, or its JSON as text. */
        readonly schema: JsonObject | string;
        readonly strict?: boolean;
      };
    };

/** How tokens are chosen, and when an answer ends. */
export interface Sampling {
  readonly maxTokens?: number | null;
  readonly minTokens?: number;
  readonly temperature?: number;
  readonly topP?: number;
  readonly topK?: number;
  readonly minP?: number;
  readonly repetitionPenalty?: number;
  readonly presencePenalty?: number;
  readonly frequencyPenalty?: number;
  /** In [0, 2^63): past 2^53 a bigint. */
  readonly seed?: number | bigint | null;
  readonly stop?: readonly string[];
  readonly stopTokenIds?: readonly number[];
  readonly ignoreEos?: boolean;
  readonly logitBias?: Readonly<Record<string, number>>;
  readonly n?: 1;
  readonly bestOf?: 1;
  readonly logprobs?: number | null;
  readonly promptLogprobs?: number | null;
  /** The form of the answer: at most one of these four. */
  readonly responseFormat?: ResponseFormat | null;
  readonly regex?: string | null;
  readonly choice?: readonly string[] | null;
  readonly grammar?: string | null;
}

interface Prompt {
  readonly prompt: string;
  readonly messages?: never;
  readonly tokenIds?: never;
}

interface Tokens {
  readonly tokenIds: readonly number[];
  readonly prompt?: never;
  readonly messages?: never;
}

interface Conversation {
  readonly messages: readonly Message[];
  readonly tools?: readonly JsonObject[] | null;
  readonly addGenerationPrompt?: boolean;
  readonly continueFinalMessage?: boolean;
  readonly chatTemplateKwargs?: JsonObject;
  readonly prompt?: never;
  readonly tokenIds?: never;
}

interface Rest {
  /** Random if left out. A job that is sent again under its id has the first one's answer. */
  readonly id?: string;
  readonly adapter?: string | null;
  readonly adapters?: readonly WeightedAdapter[] | null;
  readonly adapterScale?: number;
  readonly sampling?: Sampling;
  readonly priority?: number;
  /** From the moment that the broker has the job. */
  readonly deadlineMs?: number | null;
  /** By the hash of the id if left out. */
  readonly replyPartition?: number | null;
  readonly metadata?: Readonly<Record<string, string>>;
  readonly strict?: boolean;
}

/** One prompt to complete. */
export type Job = (Prompt | Tokens | Conversation) & Rest;

/** The fields of a job, and what the wire calls them. */
export const JOB_FIELDS: Readonly<Record<string, string>> = {
  id: "id",
  prompt: "prompt",
  messages: "messages",
  tokenIds: "token_ids",
  tools: "tools",
  addGenerationPrompt: "add_generation_prompt",
  continueFinalMessage: "continue_final_message",
  chatTemplateKwargs: "chat_template_kwargs",
  adapter: "adapter",
  adapters: "adapters",
  adapterScale: "adapter_scale",
  sampling: "sampling",
  priority: "priority",
  deadlineMs: "deadline_ms",
  replyPartition: "reply_partition",
  metadata: "metadata",
  strict: "strict",
};

/** The fields of sampling, and what the wire calls them. */
export const SAMPLING_FIELDS: Readonly<Record<keyof Sampling, string>> = {
  maxTokens: "max_tokens",
  minTokens: "min_tokens",
  temperature: "temperature",
  topP: "top_p",
  topK: "top_k",
  minP: "min_p",
  repetitionPenalty: "repetition_penalty",
  presencePenalty: "presence_penalty",
  frequencyPenalty: "frequency_penalty",
  seed: "seed",
  stop: "stop",
  stopTokenIds: "stop_token_ids",
  ignoreEos: "ignore_eos",
  logitBias: "logit_bias",
  n: "n",
  bestOf: "best_of",
  logprobs: "logprobs",
  promptLogprobs: "prompt_logprobs",
  responseFormat: "response_format",
  regex: "regex",
  choice: "choice",
  grammar: "grammar",
};
