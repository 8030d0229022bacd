import assert from "node:assert/strict";
import { test } from "node:test";

import { BadJob, BadToken, BrokerUnavailable, ReplyUnreadable, StreamLost } from "../dist/errors.js";
import { Inbox, INBOX_BYTES, type InboxOptions } from "../dist/inbox.js";
import { Router } from "../dist/router.js";
import type { Fetched } from "../dist/transport.js";
import { answer, claim, done, failed, fetched, redirect, tokens } from "./worker.js";

type Entry = readonly [job: string, value: Uint8Array];

/** A log of one partition and the reader that a router steers. */
class Reader {
  readonly log: Fetched[];
  readonly router: Router;
  position: bigint | null = null;
  reads = 0;

  constructor(entries: readonly Entry[]) {
    this.log = entries.map(([job, value], offset) => fetched(offset, job, value));
    this.router = new Router({
      follow: (_, offset) => (this.position = offset),
      unfollow: () => (this.position = null),
    });
  }

  poll(count: number): void {
    if (this.position === null) return;
    const from = Number(this.position);
    const records = this.log.slice(from, from + count);
    this.reads += records.length;
    this.position += BigInt(records.length);
    this.router.deliver(records);
  }
}

function inbox(job: string, options: Partial<InboxOptions> = {}): Inbox {
  return new Inbox({ job, partition: 0, position: 0n, limit: 8, ...options });
}

function of(job: string, values: readonly Uint8Array[]): Entry[] {
  return values.map((value) => [job, value]);
}

/** Take what waits; texts, or what else an event is. */
function taken(box: Inbox): string[] {
  const found: string[] = [];
  for (let event = box.take(); event !== undefined; event = box.take()) {
    found.push(event.type === "tokens" ? event.text : event.type);
  }
  return found;
}

/** Random numbers that are the same in each run. */
function dice(seed: number): (sides: number) => number {
  let state = seed;
  return (sides) => {
    state = (Math.imul(state, 1_664_525) + 1_013_904_223) >>> 0;
    return Math.floor((state / 2 ** 32) * sides);
  };
}

test("any log, inbox, poll and caller: each event once, in order, and never too many wait", () => {
  for (let seed = 1; seed <= 500; seed += 1) {
    const roll = dice(seed);
    const jobs = ["a", "b", "c"];
    const order = Array.from({ length: roll(40) }, () => jobs[roll(3)]!);
    const counts = new Map(jobs.map((job) => [job, 0]));
    const entries = order.map((job): Entry => {
      const index = counts.get(job)!;
      counts.set(job, index + 1);
      return [job, tokens(job, index, "x", { ids: [index] })];
    });
    const reader = new Reader(entries);
    const boxes = jobs.map((job) => inbox(job, { limit: 1 + roll(5) }));
    boxes.forEach((box) => reader.router.add(box));
    const got = new Map(jobs.map((job): [string, number[]] => [job, []]));
    const take = (box: Inbox): void => {
      const event = box.take();
      if (event === undefined) return;
      assert.equal(event.type, "tokens");
      if (event.type === "tokens") got.get(box.job)!.push(...event.ids);
      reader.router.taken(box);
    };
    for (let move = roll(60); move > 0; move -= 1) {
      reader.poll(roll(8));
      take(boxes[roll(3)]!);
      for (const box of boxes) assert.ok(box.waiting <= box.limit, `seed ${seed}`);
    }
    for (let round = 0; round <= 2 * order.length; round += 1) {
      reader.poll(3);
      boxes.forEach(take);
    }
    for (const job of jobs) {
      assert.deepEqual(got.get(job), [...Array(counts.get(job)!).keys()], `seed ${seed}`);
    }
  }
});

test("large records fill an inbox too, and none of them is lost", () => {
  const large = "x".repeat(150_000);
  const values = Array.from({ length: 20 }, (_, index) => tokens("a", index, large, { ids: [index] }));
  const reader = new Reader(of("a", values));
  const box = inbox("a", { limit: 512 });
  reader.router.add(box);
  const found: string[] = [];
  while (found.length < values.length) {
    reader.poll(20);
    assert.ok(box.waiting > 0 && box.waiting <= 1 + INBOX_BYTES / large.length);
    const event = box.take();
    reader.router.taken(box);
    if (event?.type === "tokens") found.push(event.text);
  }
  assert.ok(found.every((text) => text === large));
  assert.ok(reader.reads > values.length); // it went back for what it had left out
});

test("when no inbox has room the log is left alone, and read again once one has", () => {
  const reader = new Reader(of("a", Array.from({ length: 10 }, (_, index) => tokens("a", index, "x"))));
  const box = inbox("a", { limit: 4 });
  reader.router.add(box);
  reader.poll(10);
  assert.deepEqual([reader.router.following, box.waiting, reader.position], [false, 4, null]);
  for (const position of [null, 4n]) {
    box.take();
    reader.router.taken(box);
    assert.equal(reader.position, position); // not before half of it is empty
  }
});

test("a finished job is forgotten, and nothing is followed for it", () => {
  const reader = new Reader(of("a", answer("a", ["x"])));
  reader.router.add(inbox("a"));
  assert.throws(() => reader.router.add(inbox("a")), BadJob);
  reader.poll(10);
  assert.deepEqual([reader.router.jobs(), reader.position], [[], null]);
});

test("a redirect leads back to the first answer; neighbours see nothing twice", () => {
  const entries: Entry[] = [
    ["a", tokens("a", 0, "x")],
    ["b", tokens("b", 0, "1")],
    ["a", tokens("a", 1, "y")],
    ["a", done("a", 2)],
    ["b", tokens("b", 1, "2")],
    ["a", redirect("a", 0)],
    ["b", tokens("b", 2, "3")],
  ];
  const reader = new Reader(entries);
  const [late, beside] = [inbox("a", { position: 4n }), inbox("b", { position: 1n })];
  reader.router.add(late);
  reader.router.add(beside);
  for (let round = 0; round < 4; round += 1) reader.poll(10); // the redirect comes with what follows it
  assert.deepEqual(taken(late), ["x", "y", "done"]);
  assert.equal(late.start, 0n);
  assert.deepEqual(taken(beside), ["1", "2", "3"]);
});

test("a redirect begins anew, whatever claims were met before it", () => {
  const entries: Entry[] = [
    ["a", tokens("a", 0, "x")],
    ["a", claim("a", { epoch: [2, 1], worker: "v" })],
    ["a", redirect("a", 0)],
    ["a", done("a", 1, { epoch: [2, 1], worker: "v" })],
  ];
  const reader = new Reader(entries);
  const box = inbox("a", { position: 1n });
  reader.router.add(box);
  for (let round = 0; round < 3; round += 1) reader.poll(10);
  assert.deepEqual(taken(box), ["x", "done"]);
});

for (const [position, start] of [[0, 0], [0, 3], [4, 4], [4, 9]] as const) {
  test(`a redirect from ${position} to ${start} leads nowhere else`, () => {
    const reader = new Reader([...of("a", answer("a", ["x", "y", "z"])), ["a", redirect("a", start)]]);
    const box = inbox("a", { position: BigInt(position) });
    reader.router.add(box);
    reader.poll(10);
    assert.deepEqual([box.start, box.redirected, reader.reads], [BigInt(position), false, 5 - position]);
  });
}

test("who has seen tokens is not led back", () => {
  const again = tokens("a", 0, "x", { epoch: [2, 1] });
  const reader = new Reader([["a", tokens("a", 0, "old")], ["a", again], ["a", redirect("a", 0)]]);
  const box = inbox("a", { position: 1n });
  reader.router.add(box);
  reader.poll(10);
  assert.deepEqual([taken(box), box.start], [["x"], 1n]);
});

test("a job that starts earlier moves the reader back for itself only", () => {
  const reader = new Reader([
    ["a", tokens("a", 0, "0")],
    ["b", tokens("b", 0, "0")],
    ["b", tokens("b", 1, "1")],
  ]);
  const [late, early] = [inbox("b", { position: 1n }), inbox("a")];
  reader.router.add(late);
  reader.poll(10);
  reader.router.add(early);
  assert.equal(reader.position, 0n);
  reader.poll(10);
  assert.deepEqual([late.waiting, early.waiting], [2, 1]);
});

test("what lies before a job's own start is not for it, wherever the reader goes", () => {
  const reader = new Reader([
    ["a", tokens("a", 0, "old")],
    ["b", tokens("b", 0, "b")],
    ["a", tokens("a", 0, "new", { epoch: [2, 1] })],
  ]);
  const [late, early] = [inbox("a", { position: 2n }), inbox("b")];
  reader.router.add(late);
  reader.router.add(early);
  reader.poll(10);
  assert.deepEqual([taken(late), taken(early)], [["new"], ["b"]]);
});

test("when the log's start moves, jobs that still have their records go on", () => {
  const reader = new Reader(of("a", Array.from({ length: 6 }, (_, index) => tokens("a", index, "x"))));
  const [gone, kept] = [inbox("b"), inbox("a", { position: 4n })];
  reader.router.add(gone);
  reader.router.add(kept);
  reader.router.trim(0, 3n, 6n);
  assert.ok(gone.failure instanceof StreamLost);
  assert.deepEqual([kept.failure, reader.position], [null, 4n]);
});

test("when all that was waited for is gone, the partition is left alone", () => {
  const reader = new Reader([]);
  reader.router.add(inbox("a"));
  reader.router.trim(0, 3n, 6n);
  assert.deepEqual([reader.router.following, reader.position], [false, null]);
});

test("a failed job that is emptied by its caller moves no reader", () => {
  const reader = new Reader(of("a", Array.from({ length: 4 }, (_, index) => tokens("a", index, "x"))));
  const box = inbox("a", { limit: 2 });
  reader.router.add(box);
  reader.poll(4);
  reader.router.failAll(() => new BrokerUnavailable("gone"));
  assert.deepEqual(taken(box), ["x", "x"]);
  reader.router.taken(box);
  assert.deepEqual([reader.router.following, reader.position], [false, null]);
});

for (const [count, left] of [[0, 4], [1, 3], [3, 1]] as const) {
  test(`resumed behind ${count} tokens, only the rest is given`, () => {
    const reader = new Reader(of("a", answer("a", ["x", "y", "z"])));
    const box = inbox("a", { resumeAt: { resets: 0, tokens: count } });
    reader.router.add(box);
    reader.poll(10);
    assert.equal(taken(box).length, left);
    assert.equal(box.stream.text, "xyz");
  });
}

test("a reset that the caller was not told of is given, and what follows it", () => {
  const entries: Entry[] = [
    ["a", tokens("a", 0, "abc")],
    ["a", tokens("a", 0, "xy", { epoch: [2, 1] })],
    ["a", claim("a", { epoch: [3, 1], worker: "v" })],
    ["a", tokens("a", 2, "z", { epoch: [3, 1], worker: "v" })],
  ];
  const seen = (resets: number, count: number): string[] => {
    const reader = new Reader(entries);
    const box = inbox("a", { resumeAt: { resets, tokens: count } });
    reader.router.add(box);
    reader.poll(10);
    return taken(box);
  };
  assert.deepEqual(seen(0, 3), ["reset", "xy", "z"]);
  assert.deepEqual(seen(1, 0), ["xy", "z"]);
  assert.deepEqual(seen(1, 2), ["z"]);
});

for (const [why, mark] of [
  ["within a record", { resets: 0, tokens: 1 }],
  ["past the answer", { resets: 0, tokens: 9 }],
  ["past its resets", { resets: 1, tokens: 0 }],
] as const) {
  test(`a token that points ${why} fits no place`, () => {
    const reader = new Reader(of("a", answer("a", ["xy", "z"])));
    const box = inbox("a", { resumeAt: mark });
    reader.router.add(box);
    reader.poll(10);
    assert.ok(box.failure instanceof BadToken);
    assert.deepEqual(taken(box), []);
  });
}

test("a code that is unknown ends the job, but only where the rule counts the record", () => {
  const zombie = failed("a", 5, { code: "melted" });
  const reader = new Reader([["a", tokens("a", 0, "x")], ["a", zombie], ["a", failed("a", 1, { code: "melted" })]]);
  const box = inbox("a");
  reader.router.add(box);
  reader.poll(2);
  assert.deepEqual([box.stream.terminal, box.failure], [null, null]);
  reader.poll(1);
  box.take();
  const event = box.take();
  assert.ok(event?.type === "error" && event.code === "melted");
});

test("a reply of another version, or a broken one, fails its job and no other", () => {
  const version2 = Buffer.from("82a17602a46b696e64a4646f6e65", "hex");
  const reader = new Reader([["a", version2], ["b", tokens("b", 0, "x")], ["c", Buffer.from([0xc1])]]);
  const boxes = ["a", "b", "c"].map((job) => inbox(job));
  boxes.forEach((box) => reader.router.add(box));
  reader.poll(10);
  assert.ok(boxes[0]!.failure instanceof ReplyUnreadable);
  assert.deepEqual(taken(boxes[1]!), ["x"]);
  assert.ok(boxes[2]!.failure instanceof ReplyUnreadable);
  assert.deepEqual(reader.router.jobs(), ["b"]);
});

test("a record of another job under this key is none of this job", () => {
  const reader = new Reader([["a", tokens("b", 0, "x")], ["a", tokens("a", 0, "y")]]);
  const box = inbox("a");
  reader.router.add(box);
  reader.poll(10);
  assert.deepEqual(taken(box), ["y"]);
});
