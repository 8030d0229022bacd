// What went wrong, in words, and what may be done about it.

/** A failure that the gateway told, or that is why it could not. */
export class Failure extends Error {
  /**
   * `error` is the gateway's object; `status` is 0 where none was given: in the middle of a stream,
   * or without any connection. `wait` is in milliseconds.
   */
  constructor(error, status = 0, wait = 0) {
    super(error.message || "The gateway gave no reason.");
    this.error = error;
    this.status = status;
    this.wait = error.retry_after_ms ?? wait;
  }

  get code() {
    return this.error.code ?? null;
  }

  /** Whether the same job, under the same key, may be asked for again: it has not ended. */
  get passing() {
    if (ENDINGS.has(this.code)) return false;
    return PASSING_CODES.has(this.code) || PASSING_STATUS.has(this.status);
  }
}

/** The connection was not there, or broke: what was read over it goes on over another. */
export class Cut extends Failure {
  constructor(message) {
    super({ message });
  }

  get passing() {
    return true;
  }
}

// Of the contract: a job that ended so has ended. Another one, with another key, may do better.
const ENDINGS = new Set([
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
  "idempotency_key_reused",
  "stream_lost",
  "reply_unreadable",
]);
// Of the way to it.
const PASSING_CODES = new Set(["rate_limit_exceeded", "unavailable", "timeout"]);
const PASSING_STATUS = new Set([408, 429, 502, 503, 504]);

const WORDS = {
  adapter_invalid: "This adapter cannot be used",
  body_too_large: "The conversation is too long for the gateway",
  crash_loop: "The job was given up, as workers died of it",
  deadline_exceeded: "The answer did not come in time",
  idempotency_key_reused: "Another question has this one's key",
  internal: "Something broke in the service",
  invalid_api_key: "The API key is not known",
  invalid_job: "The question cannot be served as it stands",
  limit_exceeded: "The question is beyond a limit",
  overloaded: "The service has too much to do",
  rate_limit_exceeded: "This key asks for too much at once",
  prompt_too_long: "The conversation is too long for the model",
  stream_lost: "The answer is not kept any more",
  timeout: "The answer took too long",
  unavailable: "The gateway cannot be reached",
  unknown_adapter: "There is no such model",
  withdrawn: "The service took back what it had said",
};

/** Returns the failure that a response of another status than 200 is. */
export async function failureOf(response) {
  const wait = waitOf(response.headers);
  let error = null;
  try {
    ({ error } = await response.json());
  } catch {
    // Not from the gateway, but from something before it.
  }
  if (typeof error !== "object" || error === null) {
    error = { message: `HTTP status ${response.status}` };
  }
  return new Failure(error, response.status, wait);
}

/** Returns how long a response asks to wait, in milliseconds. */
function waitOf(headers) {
  const wait = Number(headers.get("retry-after-ms") ?? Number(headers.get("retry-after")) * 1000);
  return Number.isFinite(wait) ? wait : 0;
}

/** Returns a gateway's error object in words, with its code and the limit that was met. */
export function wordsOf(error) {
  const message = /[.!?]$/.test(error.message) ? error.message : `${error.message}.`;
  const words = [WORDS[error.code] ? `${WORDS[error.code]}: ${message}` : message];
  if (error.limit !== undefined) words.push(`Limit: ${error.limit}.`);
  if (error.given !== undefined) words.push(`Given: ${plain(error.given)}.`);
  if (error.retry_after_ms !== undefined) {
    words.push(`It may go in ${Math.ceil(error.retry_after_ms / 1000)} s.`);
  }
  if (error.code) words.push(`(${error.code})`);
  return words.map((each) => String(each).trim()).join(" ");
}

function plain(value) {
  return typeof value === "object" ? JSON.stringify(value) : String(value);
}
