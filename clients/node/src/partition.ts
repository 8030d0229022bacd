/** Where jobs and their replies go: Kafka's default partitioner, computed here. */

const MULTIPLIER = 0x5bd1e995;
const SEED = 0x9747b28c;

/** Kafka's 32-bit murmur2, signed as Java shows it. */
export function murmur2(data: Uint8Array): number {
  const view = new DataView(data.buffer, data.byteOffset, data.byteLength);
  const tail = data.length & ~3;
  let state = SEED ^ data.length;
  for (let at = 0; at < tail; at += 4) {
    let word = Math.imul(view.getInt32(at, true), MULTIPLIER);
    word ^= word >>> 24;
    state = Math.imul(state, MULTIPLIER) ^ Math.imul(word, MULTIPLIER);
  }
  if (tail !== data.length) {
    for (let at = data.length - 1; at >= tail; at -= 1) {
      state ^= view.getUint8(at) << (8 * (at - tail));
    }
    state = Math.imul(state, MULTIPLIER);
  }
  state ^= state >>> 13;
  state = Math.imul(state, MULTIPLIER);
  return state ^ (state >>> 15);
}

/** The partition in [0, partitions) of a job that asked for none. */
export function partitionOf(job: string, partitions: number): number {
  if (!(partitions >= 1)) {
    throw new RangeError(`a topic has at least one partition, not ${partitions}`);
  }
  return (murmur2(Buffer.from(job)) & 0x7fffffff) % partitions;
}
