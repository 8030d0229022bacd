import assert from "node:assert/strict";
import { test } from "node:test";

import { murmur2, partitionOf } from "../dist/partition.js";
import { load } from "./vectors.js";

for (const vector of load("partitions").vectors) {
  test(`partitions: ${vector.meaning} (${vector.job})`, () => {
    const data = Buffer.from(vector.hex, "hex");
    assert.equal(data.toString(), vector.job);
    assert.equal(murmur2(data), vector.murmur2_signed);
    for (const [count, partition] of Object.entries(vector.partition_of)) {
      assert.equal(partitionOf(vector.job, Number(count)), partition);
    }
  });
}

test("a topic without partitions has no place for a job", () => {
  assert.throws(() => partitionOf("j1", 0), RangeError);
});
