#!/usr/bin/env bash
# Brings the jars of deploy/kafka/pom.xml to build/kafka/libs, once for each version of that file.
set -euo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
pom=$root/deploy/kafka/pom.xml
build=$root/build/kafka

cmp -s "$pom" "$build/pom.xml" && exit 0
for tool in java mvn; do
  command -v $tool >/dev/null && continue
  echo "Apache Kafka needs Java 17 and Maven here: apt-get install openjdk-17-jre-headless maven" >&2
  exit 1
done
mkdir -p "$build"
fresh=$(mktemp -d "$build/libs.XXXXXX")
trap 'rm -rf "$fresh"' EXIT
mvn -q -B -f "$pom" dependency:copy-dependencies "-DoutputDirectory=$fresh"
chmod 755 "$fresh"
# A broker that runs from the old folder keeps its open files.
rm -rf "$build/libs"
mv -T "$fresh" "$build/libs"
cp "$pom" "$build/pom.xml"
