#!/usr/bin/env bash
# Installs the Debian packages whose programs the tests use as real peers. As
# root on Debian it installs what is missing; elsewhere it names what is missing
# and goes on, and the tests that need it are skipped.
set -euo pipefail

# program:package
wanted=(
  nft:nftables haproxy:haproxy nginx:nginx-light curl:curl redis-server:redis-server redis-benchmark:redis-tools
  # the nodes of the cluster of the end-to-end tests
  runc:runc conntrack:conntrack iptables:iptables ethtool:ethtool nsenter:util-linux mount:mount
  psql:postgresql-client iperf3:iperf3 nghttpx:nghttp2-proxy h2load:nghttp2-client openssl:openssl ip:iproute2 ss:iproute2
  slowhttptest:slowhttptest
  python3:python3 gcc:gcc # the race detector's, with the headers below
)
# Programs outside PATH, and libraries: path:package
wanted_paths=(
  /usr/lib/postgresql:postgresql
  /usr/lib/python3/dist-packages/h2:python3-h2
  /usr/lib/python3/dist-packages/websockets:python3-websockets
  /usr/include/stdlib.h:libc6-dev
)

export PATH="$PATH:/usr/sbin:/sbin"
missing=()
for entry in "${wanted[@]}"; do
  command -v "${entry%%:*}" >/dev/null || missing+=("${entry##*:}")
done
for entry in "${wanted_paths[@]}"; do
  [ -e "${entry%%:*}" ] || missing+=("${entry##*:}")
done
[ ${#missing[@]} -eq 0 ] && exit 0
mapfile -t missing < <(printf '%s\n' "${missing[@]}" | sort -u)

if [ "$(id -u)" -ne 0 ] || ! command -v apt-get >/dev/null; then
  echo "packages: missing: ${missing[*]}" >&2
  echo "packages: the tests that need them are skipped; on Debian: sudo apt-get install ${missing[*]}" >&2
  exit 0
fi
echo "packages: installing ${missing[*]}"
export DEBIAN_FRONTEND=noninteractive
# Servers must not start by themselves: the tests run their own.
if [ ! -e /usr/sbin/policy-rc.d ]; then
  printf '#!/bin/sh\nexit 101\n' >/usr/sbin/policy-rc.d
  chmod 0755 /usr/sbin/policy-rc.d
  trap 'rm -f /usr/sbin/policy-rc.d' EXIT
fi
log=$(mktemp)
if ! { apt-get update && apt-get install -y --no-install-recommends "${missing[@]}"; } >"$log" 2>&1; then
  tail -20 "$log" >&2
  echo "packages: installation failed" >&2
  exit 1
fi
rm -f "$log"
