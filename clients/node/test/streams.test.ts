import assert from "node:assert/strict";
import { test } from "node:test";

import { decodeReply } from "../dist/decode-reply.js";
import { DecodeError } from "../dist/fields.js";
import { VisibleStream } from "../dist/reader.js";
import type { ReplyRecord } from "../dist/reply.js";
import { described } from "./described.js";
import { bytesOf, load, type Vector } from "./vectors.js";

function decoded(step: Vector): ReplyRecord | null {
  try {
    return decodeReply(bytesOf(step));
  } catch (error) {
    assert.ok(error instanceof DecodeError);
    return null;
  }
}

for (const vector of load("streams").vectors) {
  test(`streams: ${vector.name}`, () => {
    const stream = new VisibleStream();
    for (const step of vector.log) {
      const record = decoded(step);
      const events = record === null ? [] : stream.feed(record);
      assert.deepEqual(events.map(described), step.events);
    }
    assert.deepEqual(vector.visible, {
      epoch: stream.epoch,
      writer: stream.writer,
      token_ids: stream.tokenIds,
      text: stream.text,
      terminal: stream.terminal?.type ?? null,
      resets: stream.resets,
    });
  });
}
