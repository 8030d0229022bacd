#!/usr/bin/env bash
# aiokafka 0.14.0: a batch that cannot be unpacked costs the records of other partitions.
#
# A consumer without the lz4 codec has fetched two partitions: one with plain records, one with a
# batch that an honest producer packed with lz4. What `getmany` calls raises UnsupportedCodecError,
# as one expects. But the plain records that the same call had gathered by then are gone: their
# partition's position stands behind them, and no later call brings them. Whoever catches the
# exception and polls on, or commits the positions, loses records without a word.
#
# Seen:  raised True; position of the plain partition 5; brought later {}
#
# The fetched batches are made by aiokafka's own builder and laid into its Fetcher, so that no broker
# is needed. Exit code 0: as described; 1: this has changed.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/plain"
python3 -m venv "$work/packs"
"$work/plain/bin/pip" install --quiet --disable-pip-version-check aiokafka==0.14.0
"$work/packs/bin/pip" install --quiet --disable-pip-version-check aiokafka==0.14.0 cramjam==2.14.0

cat >"$work/pack.py" <<'PYTHON'
import sys
from aiokafka.record.default_records import DefaultRecordBatchBuilder

NONE, LZ4 = 0, 3  # the attributes of a batch, by the protocol
for codec, file in (NONE, sys.argv[1]), (LZ4, sys.argv[2]):
    builder = DefaultRecordBatchBuilder(2, codec, 0, -1, -1, -1, 1 << 16)
    for offset in range(5):
        builder.append(offset, 1, b"key", b"value " * 20, [])
    with open(file, "wb") as out:
        out.write(builder.build())
PYTHON
"$work/packs/bin/python" "$work/pack.py" "$work/none" "$work/lz4"

cat >"$work/read.py" <<'PYTHON'
import asyncio, sys
from aiokafka import TopicPartition
from aiokafka.client import AIOKafkaClient
from aiokafka.consumer.fetcher import Fetcher, FetchResult, PartitionRecords
from aiokafka.consumer.subscription_state import SubscriptionState
from aiokafka.errors import UnsupportedCodecError
from aiokafka.record.memory_records import MemoryRecords

async def main():
    plain, packed = TopicPartition("t", 0), TopicPartition("t", 1)
    subscriptions = SubscriptionState()
    subscriptions.assign_from_user([plain, packed])
    assignment = subscriptions.subscription.assignment
    fetcher = Fetcher(AIOKafkaClient(bootstrap_servers="127.0.0.1:1"), subscriptions)
    for where, file in (plain, sys.argv[1]), (packed, sys.argv[2]):
        assignment.state_value(where).reset_to(0)
        with open(file, "rb") as data:
            records = PartitionRecords(
                where, MemoryRecords(data.read()), [], 0, None, None, True, 0
            )
        fetcher._records[where] = FetchResult(
            where, assignment=assignment, partition_records=records, backoff=0
        )
    try:
        await fetcher.fetched_records((), timeout=0)
        raised = False
    except UnsupportedCodecError:
        raised = True
    del fetcher._records[packed]
    later = await fetcher.fetched_records((), timeout=0.1)
    position = assignment.state_value(plain).position
    print(f"raised {raised}; position of the plain partition {position}; brought later {later}")
    await fetcher.close()
    return raised and position == 5 and later == {}

sys.exit(0 if asyncio.run(main()) else 1)
PYTHON
if "$work/plain/bin/python" "$work/read.py" "$work/none" "$work/lz4"; then
  echo "as described"
else
  echo "this has changed"
  exit 1
fi
