#!/usr/bin/env bash
# Runs every test of the main module. Packages whose tests start whole meshes or
# load real peers run one after the other, so that they do not starve each other.
set -euo pipefail
cd "$(dirname "$0")/.."

mapfile -t all < <(go list ./...)
unit=() system=()
for pkg in "${all[@]}"; do
  case "$pkg" in
    */e2e/*|*/e2e|*/meshctl/local*) system+=("$pkg") ;;
    *) unit+=("$pkg") ;;
  esac
done
go test -race -timeout 10m "${unit[@]}"
if [ ${#system[@]} -gt 0 ]; then
  go test -race -p 1 -timeout 15m "${system[@]}"
fi
