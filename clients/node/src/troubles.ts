/** Whom to leave alone for a while, and since when there has been trouble. */

import { setTimeout as sleep } from "node:timers/promises";

const FIRST_DELAY_MS = 100;
const LONGEST_DELAY_MS = 2_000;
// As long as it takes to choose new leaders, or to start a broker again.
const PATIENCE_MS = 60_000;

interface Trouble {
  readonly since: number;
  delay: number;
  restsUntil: number;
}

/** Trouble with nodes, by their number: rests grow from one failure to the next. */
export class Troubles {
  readonly #troubles = new Map<number, Trouble>();

  /** Note a failure; returns whether there has been nothing else for too long. */
  lasts(node: number, patienceMs: number = PATIENCE_MS): boolean {
    const now = performance.now();
    const trouble = this.#troubles.get(node) ?? { since: now, delay: FIRST_DELAY_MS, restsUntil: 0 };
    trouble.restsUntil = now + trouble.delay;
    trouble.delay = Math.min(2 * trouble.delay, LONGEST_DELAY_MS);
    this.#troubles.set(node, trouble);
    return now - trouble.since > patienceMs;
  }

  /** Note that a node answered. */
  over(node: number): void {
    this.#troubles.delete(node);
  }

  /** Whether a node is to be left alone for now. */
  rests(node: number): boolean {
    return (this.#troubles.get(node)?.restsUntil ?? 0) > performance.now();
  }

  /** Wait until the next rest ends, for so many milliseconds at most. */
  async wait(atMost: number): Promise<void> {
    const now = performance.now();
    const rests = [...this.#troubles.values()].map(({ restsUntil }) => restsUntil - now);
    await sleep(Math.ceil(Math.min(atMost, ...rests.filter((rest) => rest > 0))));
  }
}
