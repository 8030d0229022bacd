import assert from "node:assert/strict";
import { test } from "node:test";

import { decodeReply } from "../dist/decode-reply.js";
import { DecodeError } from "../dist/fields.js";
import { type ReaderEvent, VisibleStream } from "../dist/reader.js";
import type { ReplyRecord } from "../dist/reply.js";
import { bytesOf, load, type Vector } from "./vectors.js";

/** An event as the vectors write it. */
function described(event: ReaderEvent): unknown {
  switch (event.type) {
    case "tokens":
      return { tokens: { index: event.index, ids: event.ids, text: event.text } };
    case "reset":
      return { reset: { withdrawn: event.withdrawn } };
    case "done":
      return { done: { index: event.index, text: event.text } };
    case "error":
      return { error: { index: event.index, code: event.code } };
  }
}

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
