#!/usr/bin/env bash
# Installs the Debian packages that the lab and its tests call and that are missing; usually none. With the
# argument kind, those that a kind cluster needs, too; with conformance, those of Kubernetes' test pods; with bench,
# what Herald is measured against; with browser, the one that looks at the page of kubectl herald ui (400 MB).
# No daemon is started or left to start at the next boot: the lab runs its
# own, inside its own namespaces.
set -euo pipefail

packages=(
  iproute2       # ip: hosts, cables, addresses
  procps         # sysctl
  nftables       # nft, for kube-proxy
  iputils-arping # a client that asks who has an address
  frr            # routers
  bird2          # routers of another make
  prometheus     # promtool, and a Prometheus for the alerts
  gcc libc6-dev  # go test -race
)

programs=(ip sysctl nft arping /usr/lib/frr/zebra /usr/lib/frr/bgpd vtysh /usr/sbin/bird birdc prometheus promtool cc)
if [ "${1-}" = kind ]; then
  packages+=(debootstrap debian-archive-keyring jq curl) # the node image, runc's shim, and the quick start
  programs+=(debootstrap jq curl dockerd docker)
  # Docker's own packages serve as well, and would have to go for Debian's.
  command -v dockerd >/dev/null || packages+=(docker.io)
fi
if [ "${1-}" = conformance ]; then
  packages+=(curl netcat-openbsd wget)
  programs+=(curl nc.openbsd wget)
fi
if [ "${1-}" = bench ]; then
  packages+=(keepalived)
  programs+=(/usr/sbin/keepalived)
fi
if [ "${1-}" = browser ]; then
  packages+=(fonts-dejavu-core)
  programs+=(chromium)
  # Ubuntu has no such package. A Chromium from elsewhere serves as well.
  command -v chromium >/dev/null || packages+=(chromium)
fi

if ! command -v dpkg-query >/dev/null || ! command -v apt-get >/dev/null; then
  missing=()
  for p in "${programs[@]}"; do command -v "$p" >/dev/null || missing+=("$p"); done
  [ ${#missing[@]} -eq 0 ] && exit 0
  echo "packages: this is neither Debian nor Ubuntu, and the lab misses: ${missing[*]}" >&2
  echo "packages: install them by this system's means (on Debian they come with ${packages[*]}), or use a Debian container run with --privileged" >&2
  exit 1
fi

missing=()
for p in "${packages[@]}"; do
  [ "$(dpkg-query -W -f '${db:Status-Status}' "$p" 2>/dev/null)" = installed ] || missing+=("$p")
done
[ ${#missing[@]} -eq 0 ] && exit 0

if [ "$(id -u)" -ne 0 ]; then
  echo "packages: the lab misses ${missing[*]}" >&2
  echo "packages: run this once, and again what you wanted: sudo $0" >&2
  exit 1
fi

echo "packages: installing ${missing[*]}"
log=$(mktemp)
policy=/usr/sbin/policy-rc.d
wrote_policy=
tidy_up() {
  [ -z "$wrote_policy" ] || rm -f "$policy"
  rm -f "$log"
}
trap tidy_up EXIT

# Debian starts what it installs, unless this program says no (101).
if [ ! -e "$policy" ]; then
  wrote_policy=yes
  printf '#!/bin/sh\nexit 101\n' >"$policy"
  chmod +x "$policy"
fi

install() { DEBIAN_FRONTEND=noninteractive apt-get install -qq --no-install-recommends "${missing[@]}" >"$log" 2>&1; }
# The package lists may be absent, or too old to find what they name.
if ! install && ! { apt-get update -qq >"$log" 2>&1 && install; }; then
  cat "$log" >&2
  echo "packages: apt-get could not install ${missing[*]}: see above" >&2
  exit 1
fi

for p in "${missing[@]}"; do
  case $p in
    frr) services=(frr) ;;
    bird2) services=(bird) ;;
    prometheus) services=(prometheus) ;;
    keepalived) services=(keepalived) ;;
    docker.io) services=(docker.socket docker containerd) ;;
    *) continue ;;
  esac
  if [ -d /run/systemd/system ]; then systemctl disable --now --quiet "${services[@]}"; fi
done
