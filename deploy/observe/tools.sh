#!/usr/bin/env bash
# Brings prometheus and promtool to build/observe, once for each version: the one of compose.yaml,
# from its Go module, without the service discoveries that prometheus.yml does not use and without
# the web pages. Needs Go 1.26 or later; some minutes.
set -euo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
build=$root/build/observe
release=$(sed -n 's/^    image: prom\/prometheus:v3\.\(.*\)$/\1/p' "$root/compose.yaml")
module=github.com/prometheus/prometheus
# Release 3.a.b is version 0.3aa.b of the module.
version=$(printf 'v0.3%02d.%d' "${release%.*}" "${release#*.}")

[ "$(cat "$build/made-from" 2>/dev/null)" = "$version" ] && exit 0
if ! command -v go >/dev/null; then
  echo "prometheus and promtool need Go 1.26 or later here: https://go.dev/doc/install" >&2
  exit 1
fi
mkdir -p "$build"
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
cd "$scratch"
# `go install` refuses a module that excludes versions of others, so a module of our own asks for it.
go mod init aril/observe >/dev/null 2>&1
go get "$module/cmd/prometheus@$version" "$module/cmd/promtool@$version" 2>/dev/null
GOBIN=$build go install -tags remove_all_sd,enable_dns_sd "$module/cmd/prometheus" "$module/cmd/promtool"
echo "$version" >"$build/made-from"
