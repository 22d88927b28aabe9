#!/usr/bin/env bash
# Runs every test of the main module. Packages whose tests start an API server of
# Kubernetes run after the rest, and those that start whole meshes or load real
# peers after them, so that they do not starve each other.
set -euo pipefail
cd "$(dirname "$0")/.."

# The race detector is written in C.
race=(-race)
if [ "$(go env CGO_ENABLED)" = 0 ]; then
  if [ "${TULLE_FORBID_SKIP:-}" = 1 ]; then
    echo "test: the race detector needs a C compiler (Debian packages gcc and libc6-dev) and CGO_ENABLED=1" >&2
    exit 1
  fi
  echo "test: no C compiler, so the race detector stays out; on Debian: sudo apt-get install gcc libc6-dev" >&2
  race=()
fi
# By default every program with the race detector sleeps a second at its end.
export GORACE=atexit_sleep_ms=50
mapfile -t kube < <(go list -f '{{.ImportPath}} {{.TestImports}} {{.XTestImports}}' ./... | awk '/internal\/kubetest/ {print $1}')
mapfile -t all < <(go list ./...)
unit=() system=()
for pkg in "${all[@]}"; do
  case "$pkg" in
    */e2e/mesh|*/meshctl/local) system+=("$pkg") ;;
    *) [[ " ${kube[*]} " == *" $pkg "* ]] || unit+=("$pkg") ;;
  esac
done
# `make test` has vetted everything; what debuggers read takes a third of the time to link.
quick=(-vet=off -ldflags='-s -w')
go test "${race[@]}" "${quick[@]}" -timeout 10m "${unit[@]}"
go test "${race[@]}" "${quick[@]}" -p 2 -timeout 15m "${kube[@]}"
go test "${race[@]}" "${quick[@]}" -p 2 -timeout 15m "${system[@]}"
