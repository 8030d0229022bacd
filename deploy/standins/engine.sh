#!/usr/bin/env bash
# Gives a bare Debian machine a Docker engine and compose v2, for `make test-compose`. As root; about
# three minutes the first time, nothing to do after that. Needs Go for the compose plugin, which
# Debian does not package. The engine keeps running; `engine.sh stop` ends the one started here.
set -euo pipefail

build=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)/build/engine
compose=v2.32.4
mkdir -p "$build"

answers() { docker info >/dev/null 2>&1; }

if [ "${1:-}" = stop ]; then
  [ -s "$build/dockerd.pid" ] && kill "$(cat "$build/dockerd.pid")" && rm "$build/dockerd.pid"
  exit
fi

if ! command -v dockerd >/dev/null; then
  apt-get update -qq
  DEBIAN_FRONTEND=noninteractive apt-get install -y -qq docker.io iptables >/dev/null
fi
if ! answers; then
  nohup dockerd >"$build/dockerd.log" 2>&1 </dev/null &
  echo $! >"$build/dockerd.pid"
  for _ in $(seq 60); do
    answers && break
    sleep 0.5
  done
  answers || { echo "dockerd did not start: see $build/dockerd.log" >&2; exit 1; }
fi
if ! docker compose version >/dev/null 2>&1; then
  GOBIN=$build go install "github.com/docker/compose/v2/cmd@$compose"
  mkdir -p ~/.docker/cli-plugins
  mv "$build/cmd" ~/.docker/cli-plugins/docker-compose
fi
docker info --format 'Docker engine {{.ServerVersion}}, {{.Driver}}'
docker compose version
