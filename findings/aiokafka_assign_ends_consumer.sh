#!/usr/bin/env bash
# aiokafka 0.14.0: a second `assign` while the group's coordinator is looked up ends the consumer.
#
# A consumer with a `group_id`, for the group's offsets, may have its partitions assigned by hand,
# and assigned anew. Its coordinator's task takes the present assignment, waits until it knows the
# coordinator's broker, and then asserts that the assignment from before that wait is active. If
# `assign` was called meanwhile it is not: the task ends by AssertionError, and every later
# `getmany` or `commit` raises KafkaError for good. At any later time when the coordinator is
# looked up again, as when its broker is replaced, the same can happen.
#
# Seen:  KafkaError: Unexpected error during coordination AssertionError()
#
# The brokers are a stand-in for aiokafka's client that answers the look-up after 50 ms. Exit code
# 0: as described; 1: this has changed.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/env"
"$work/env/bin/pip" install --quiet --disable-pip-version-check aiokafka==0.14.0

cat >"$work/assign.py" <<'PYTHON'
import asyncio, logging
from aiokafka import TopicPartition, errors
from aiokafka.client import AIOKafkaClient
from aiokafka.consumer.fetcher import Fetcher
from aiokafka.consumer.group_coordinator import GroupCoordinator
from aiokafka.consumer.subscription_state import SubscriptionState

class Client(AIOKafkaClient):
    async def coordinator_lookup(self, *_):
        await asyncio.sleep(0.05)
        return 1

    async def ready(self, *_, **__):
        return True

async def main():
    subscriptions = SubscriptionState()
    client = Client(bootstrap_servers="127.0.0.1:1")
    fetcher = Fetcher(client, subscriptions)  # as a consumer has both
    coordinator = GroupCoordinator(client, subscriptions, group_id="g", enable_auto_commit=False)
    subscriptions.assign_from_user([TopicPartition("t", 0)])
    await asyncio.sleep(0.01)  # the look-up is under way
    subscriptions.assign_from_user([TopicPartition("t", 1)])
    await asyncio.sleep(0.2)
    try:
        coordinator.check_errors()  # as `getmany` does
    except errors.KafkaError as error:
        print(error)
    else:
        print("went on")
    await fetcher.close()

logging.disable()
asyncio.run(main())
PYTHON
told=$("$work/env/bin/python" "$work/assign.py" 2>/dev/null)
echo "$told"
[[ "$told" == "KafkaError: Unexpected error during coordination AssertionError()" ]]
