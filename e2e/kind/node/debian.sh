#!/usr/bin/env bash
# Makes the Debian that a node image begins with. It needs the network, and is the slow part: it is made
# once for each list of packages.
set -euo pipefail

cache=$1
packages=(
  systemd systemd-sysv dbus containerd runc containernetworking-plugins
  conntrack ebtables ethtool iproute2 iptables nftables socat
  ca-certificates curl hostname iputils-ping jq kmod libseccomp2 mount netbase openssl pigz procps rsync util-linux
)
list=$(IFS=,; echo "${packages[*]}")
[ ! -e "$cache/debian.tar" ] || [ "$(cat "$cache/debian.list")" != "$list" ] || exit 0

echo "node image: installing Debian, a minute or two"
mkdir -p "$cache"
root=$(mktemp -d "$cache/debian.XXXX")
trap 'rm -rf "$root"' EXIT
chmod 0755 "$root"
log=$cache/debootstrap.log
# What it mounts is seen by nobody else, and goes with it.
if ! unshare --mount --pid --fork --kill-child debootstrap --variant=minbase --include="$list" bookworm "$root" >"$log" 2>&1; then
  tail -n 20 "$log" >&2
  echo "node image: debootstrap failed; all it said is in $log" >&2
  exit 1
fi
rm -rf "$root"/var/cache/apt/archives/*.deb "$root"/var/lib/apt/lists/*
tar --numeric-owner --one-file-system -C "$root" -cf "$cache/debian.tar" .
echo "$list" >"$cache/debian.list"
