/** Where a caller stands in a job's replies, as text that any language can make. */

import { BadToken } from "./errors.js";
import { MAX_INDEX, MAX_INT64 } from "./limits.js";

// Digits enough for an int64 each, then what a job's id is made of.
const TOKEN = /^([0-9]{1,19})\.([0-9]{1,19})\.([0-9]{1,19})\.([0-9]{1,19})\.([A-Za-z0-9._-]{1,64})$/;

/** How far a caller has come in a job's visible stream; marks compare in that order. */
export interface Mark {
  readonly resets: number;
  readonly tokens: number;
}

export const BEGINNING: Mark = { resets: 0, tokens: 0 };

/** Negative if `one` lies before `other`, 0 if they are equal. */
export function compareMarks(one: Mark, other: Mark): number {
  return one.resets - other.resets || one.tokens - other.tokens;
}

/**
 * `partition` and `replyFrom` say where the replies begin, `count` how many visible tokens the
 * caller has been given since the last of `resets` resets.
 */
export class ResumeToken {
  constructor(
    readonly job: string,
    readonly partition: number,
    readonly replyFrom: bigint,
    readonly count: number = 0,
    readonly resets: number = 0,
  ) {}

  toString(): string {
    return `${this.partition}.${this.replyFrom}.${this.count}.${this.resets}.${this.job}`;
  }

  toJSON(): string {
    return this.toString();
  }

  /** Read what `toString` wrote. Throws BadToken. */
  static parse(text: string): ResumeToken {
    const [, partition, replyFrom, count, resets, job] = TOKEN.exec(text) ?? [];
    if (job === undefined) {
      throw new BadToken("a token is <partition>.<reply_from>.<count>.<resets>.<job id>");
    }
    const offset = BigInt(replyFrom ?? "");
    const numbers = [partition, count, resets].map(Number) as [number, number, number];
    if (offset > MAX_INT64 || numbers.some((each) => each > MAX_INDEX)) {
      throw new BadToken("a number of the token is larger than any log has");
    }
    return new ResumeToken(job, numbers[0], offset, numbers[1], numbers[2]);
  }
}
