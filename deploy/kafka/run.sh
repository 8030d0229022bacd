#!/usr/bin/env bash
# Runs an Apache Kafka broker (KRaft, no replication) on loopback in the foreground, until Ctrl-C.
# Needs Java 17 or later and, the first time, Maven for the jars. Settings, by environment:
#   KAFKA_PORT             client port, default 9092
#   KAFKA_CONTROLLER_PORT  quorum port, default the client port + 1
#   KAFKA_DATA             data folder, default build/kafka/data; kept between runs
#   KAFKA_CLUSTER_ID       of a new data folder
#   KAFKA_NODE_ID          default 1
#   KAFKA_JOINS            host:port of node 1's quorum, for a further broker of its cluster
#   KAFKA_PROPERTIES       file of further properties, stronger than those below
#   KAFKA_FORMAT_OPTS      options for the formatting of a new data folder, such as users to add
#   KAFKA_HEAP_OPTS        default -Xms256m -Xmx512m
set -euo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
libs=$root/build/kafka/libs
port=${KAFKA_PORT:-9092}
controller=${KAFKA_CONTROLLER_PORT:-$((port + 1))}
data=${KAFKA_DATA:-$root/build/kafka/data}
node=${KAFKA_NODE_ID:-1}
roles=broker,controller
own=,CONTROLLER://127.0.0.1:$controller
if [ -n "${KAFKA_JOINS:-}" ]; then roles=broker own=; fi

"$root/deploy/kafka/fetch.sh"
mkdir -p "$data"
# Indexes are small, since the first entry of one reads ahead as far as the disk's settings say: with
# 8 MiB, seen on a virtual machine, a first append of 4 kB to each of 400 topics stops all for 5 s.
cat >"$data/server.properties" <<PROPERTIES
process.roles=$roles
node.id=$node
controller.quorum.voters=1@${KAFKA_JOINS:-127.0.0.1:$controller}
listeners=PLAINTEXT://127.0.0.1:$port$own
advertised.listeners=PLAINTEXT://127.0.0.1:$port
controller.listener.names=CONTROLLER
listener.security.protocol.map=CONTROLLER:PLAINTEXT,PLAINTEXT:PLAINTEXT
log.dirs=$data/log
log.index.size.max.bytes=131072
auto.create.topics.enable=false
group.initial.rebalance.delay.ms=0
group.consumer.min.session.timeout.ms=1000
group.consumer.session.timeout.ms=6000
group.consumer.min.heartbeat.interval.ms=100
group.consumer.heartbeat.interval.ms=500
offsets.topic.replication.factor=1
offsets.topic.num.partitions=4
transaction.state.log.replication.factor=1
transaction.state.log.min.isr=1
PROPERTIES
if [ -n "${KAFKA_PROPERTIES:-}" ]; then cat "$KAFKA_PROPERTIES" >>"$data/server.properties"; fi
cat >"$data/log4j2.yaml" <<'LOGGING'
Configuration:
  Appenders:
    Console:
      name: STDOUT
      PatternLayout: {pattern: "%d{HH:mm:ss.SSS} %p %m (%c)%n"}
  Loggers:
    Root: {level: "${env:KAFKA_LOG_LEVEL:-WARN}", AppenderRef: {ref: STDOUT}}
LOGGING

# Quick to start rather than quick for hours: this broker serves tests and a person who looks round.
java=(java -XX:TieredStopAtLevel=1 -XX:+UseSerialGC -cp "$libs/*"
  "-Dlog4j2.configurationFile=$data/log4j2.yaml")
if [ ! -e "$data/log/meta.properties" ]; then
  # shellcheck disable=SC2086  # several options in one variable, as Kafka's own scripts take it
  "${java[@]}" kafka.tools.StorageTool format --config "$data/server.properties" \
    ${KAFKA_FORMAT_OPTS:-} \
    --cluster-id="${KAFKA_CLUSTER_ID:-$("${java[@]}" kafka.tools.StorageTool random-uuid)}"
fi
echo "Apache Kafka on 127.0.0.1:$port, data in $data"
# shellcheck disable=SC2086  # several options in one variable, as Kafka's own scripts take it
exec "${java[@]}" ${KAFKA_HEAP_OPTS:--Xms256m -Xmx512m} kafka.Kafka "$data/server.properties"
