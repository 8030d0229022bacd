#!/usr/bin/env bash
# Makes sure that the base images of compose.yaml are on this machine. One that no registry gives is
# replaced by a local stand-in under the same name, so that the stack can be run for real anyway:
#   python:3.11-slim-bookworm  Debian's own Python 3.11, by debootstrap (root)
#   apache/kafka:4.1.0         the jars of deploy/kafka/pom.xml on Debian's Java 17; reads KAFKA_*
#                              through Kafka's own KafkaDockerWrapper, as the official image does
# A stand-in carries the label aril.standin=1, and each line printed here says what was used.
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
root=$(cd "$here/../.." && pwd)
python=python:3.11-slim-bookworm
kafka=apache/kafka:4.1.0
# A network that drops packets must not hold this up for ever.
pull_seconds=300

scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT

here_already() { docker image inspect "$1" >/dev/null 2>&1; }
pulled() { timeout "$pull_seconds" docker pull -q "$1" >/dev/null 2>&1; }

python_standin() {
  command -v debootstrap >/dev/null || apt-get install -y -qq debootstrap >/dev/null
  local tree=$scratch/root authorities=/etc/ssl/certs/ca-certificates.crt
  debootstrap --variant=minbase --include=python3,python3-venv,python3-pip,ca-certificates \
    bookworm "$tree" >"$scratch/log" 2>&1 || { tail "$scratch/log" >&2; return 1; }
  # The official image has python in /usr/local/bin and lets pip install there.
  ln -s /usr/bin/python3 "$tree/usr/local/bin/python"
  rm -f "$tree"/usr/lib/python3*/EXTERNALLY-MANAGED
  rm -rf "$tree"/var/cache/apt/archives/*.deb
  cp -L "$authorities" "$tree$authorities"
  tar -C "$tree" -c . | docker import -c 'LABEL aril.standin=1' -c 'CMD ["python3"]' \
    -c "ENV PIP_CERT=$authorities SSL_CERT_FILE=$authorities" - "$python" >/dev/null
}

kafka_standin() {
  "$root/deploy/kafka/fetch.sh"
  cp -r "$here/kafka" "$scratch/kafka"
  cp -rL "$root/build/kafka/libs" "$scratch/kafka/libs"
  # The plain builder: buildx may not be there.
  DOCKER_BUILDKIT=0 docker build -q -t "$kafka" --build-arg "BASE=$python" "$scratch/kafka" >/dev/null
}

for image in "$python" "$kafka"; do
  if ! here_already "$image" && ! pulled "$image"; then
    echo "no registry gives $image: making a stand-in"
    case $image in
      python:*) python_standin ;;
      *) kafka_standin ;;
    esac
  fi
  docker image inspect --format \
    '{{index .RepoTags 0}} {{if index .Config.Labels "aril.standin"}}(stand-in){{else}}(official){{end}}' \
    "$image"
done
