/**
 * What can go wrong.
 *
 * - ArilError
 *   - JobFailed          a worker answered the job with an error
 *   - JobConflict        another job of this tenant has the id
 *   - JobTimeout         no end within the caller's time-out
 *   - StreamLost         the reply topic no longer holds records that the stream needs
 *   - ReplyUnreadable    a worker's reply breaks the contract, or is of a newer version of it
 *   - ClientClosed       the client was closed
 *   - BadJob             a job that cannot be sent, or that nobody could be told about
 *   - BadToken           a resume token that cannot be read, or fits no place in the answer
 *   - BadKey             a key for signing that cannot be read
 *   - BadSetting         an `ARIL_*` variable, or a file that one names
 *   - BrokerUnavailable  the brokers cannot be reached, or refused
 *     - TopicMissing     a topic that the contract needs does not exist
 */

/** The closed set of codes in version 1 of the contract (docs/reference/errors.md). */
export const ERROR_CODES = [
  "invalid_job",
  "unsupported_version",
  "unknown_adapter",
  "adapter_invalid",
  "prompt_too_long",
  "limit_exceeded",
  "deadline_exceeded",
  "cancelled",
  "overloaded",
  "crash_loop",
  "internal",
] as const;

export type ErrorCode = (typeof ERROR_CODES)[number];

/** A code; one that this client does not know is kept as text. */
export type AnyErrorCode = ErrorCode | (string & Record<never, never>);

/** Whatever the client throws on purpose. */
export class ArilError extends Error {
  override get name(): string {
    return this.constructor.name;
  }
}

/** What a worker's error says beside its message. */
export interface Failure {
  readonly code: AnyErrorCode;
  readonly message: string;
  /** Whether the same job under a new id may succeed with nothing changed. */
  readonly retryable: boolean;
  /** The bound that was passed, and the value that passed it. An integer past 2^53 is a bigint. */
  readonly limit: number | bigint | null;
  readonly given: number | bigint | string | null;
  /** When a job that was refused as `overloaded` may come again. */
  readonly retryAfterMs: number | null;
  readonly metadata: Readonly<Record<string, string>>;
}

/** A worker ended the job with an error. What had come of the answer stays visible. */
export class JobFailed extends ArilError {
  readonly job: string;
  readonly code: AnyErrorCode;
  readonly retryable: boolean;
  readonly limit: number | bigint | null;
  readonly given: number | bigint | string | null;
  readonly retryAfterMs: number | null;
  readonly metadata: Readonly<Record<string, string>>;

  constructor(job: string, failure: Failure) {
    const { code, message, limit, given } = failure;
    super(`${code}: ${message}${limit === null ? "" : ` (limit ${limit}, given ${given})`}`);
    this.job = job;
    this.code = code;
    this.retryable = failure.retryable;
    this.limit = limit;
    this.given = given;
    this.retryAfterMs = failure.retryAfterMs;
    this.metadata = failure.metadata;
  }
}

/** The job had no end in time; a cancel record was sent for it. */
export class JobTimeout extends ArilError {
  constructor(
    readonly job: string,
    readonly timeoutMs: number,
  ) {
    super(`job ${job} was not finished within ${timeoutMs} ms`);
  }
}

/**
 * Another job of this tenant has the id: this one is not answered, the other one runs on. What came
 * of the stream before may be of its answer.
 */
export class JobConflict extends ArilError {
  constructor(readonly job: string) {
    super(`another job of this tenant has the id ${job}`);
  }
}

/** Records of this stream were deleted by retention before they were read. */
export class StreamLost extends ArilError {}

/** A worker's reply breaks the contract, or is of a version that this client does not know. */
export class ReplyUnreadable extends ArilError {}

/** The client is not open. A job goes on where its stream was detached, or its cancel was lost. */
export class ClientClosed extends ArilError {}

/** The job was not sent: its answer could not be told to anybody, or this client reads it already. */
export class BadJob extends ArilError {}

/** A resume token is malformed, or fits no place in its job's answer. */
export class BadToken extends ArilError {}

/** A key for signing jobs cannot be read, or is not fit for that. */
export class BadKey extends ArilError {}

/** A variable of the environment has a bad value, or names what cannot be used. */
export class BadSetting extends ArilError {}

/** The brokers cannot be reached, or refused what was asked; `cause` is the library's error. */
export class BrokerUnavailable extends ArilError {}

/** A topic that the contract needs does not exist. */
export class TopicMissing extends BrokerUnavailable {}
