#!/usr/bin/env bash
# Brings kustomize and kubeconform to build/kubernetes, once for each version. Needs Go 1.24 or later.
set -euo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
build=$root/build/kubernetes
modules="sigs.k8s.io/kustomize/kustomize/v5@v5.8.1 github.com/yannh/kubeconform/cmd/kubeconform@v0.7.0"

[ "$(cat "$build/made-from" 2>/dev/null)" = "$modules" ] && exit 0
if ! command -v go >/dev/null; then
  echo "kustomize and kubeconform need Go 1.24 or later here: https://go.dev/doc/install" >&2
  exit 1
fi
mkdir -p "$build"
for module in $modules; do
  GOBIN=$build go install "$module"
done
echo "$modules" >"$build/made-from"
