"""A fleet for real: twenty worker processes, ten thousand tenants, a thousand jobs partitions.

    python -m benchmarks.fleet_real    # writes fleet_real.csv, in a quarter of an hour

One Apache Kafka, N processes of the worker itself around an engine that brings tokens at a pace, a
load of all tenants, and a reader of every reply topic that checks every answer; on one machine. It
starts the fleet, loads it, has a worker join beside a long queue, restarts all workers one after
another, and kills one, and several at once. Sizes are flags.
"""
