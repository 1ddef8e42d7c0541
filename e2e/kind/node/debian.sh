#!/usr/bin/env bash
# Makes the Debian that the node image begins with, debian.tar in the folder that is named: once for each
# list of packages, since it is the one part that takes its time and needs a network.
set -euo pipefail

cache=$1
suite=bookworm
packages=(
  systemd systemd-sysv dbus # init
  containerd runc containernetworking-plugins
  conntrack ethtool hostname iproute2 iptables kmod mount nftables socat util-linux # for kubeadm, kubelet, kube-proxy
  ca-certificates curl jq libseccomp2 pigz procps # for kind's own scripts, and runc's shim
  iputils-ping netbase # for whoever looks around
)
list="$suite $(IFS=,; echo "${packages[*]}")"
[ ! -e "$cache/debian.tar" ] || [ "$(cat "$cache/debian.list")" != "$list" ] || exit 0

echo "node image: installing Debian, a minute or two"
mkdir -p "$cache"
root=$(mktemp -d "$cache/debian.XXXX")
trap 'rm -rf "$root" "$cache/debian.tar.new"' EXIT
chmod 0755 "$root"
log=$cache/debootstrap.log
# What it mounts is seen by nobody else and, like the daemons that a package might start, goes with it.
if ! unshare --mount --pid --fork --kill-child \
  debootstrap --variant=minbase --include="${list#* }" "$suite" "$root" >"$log" 2>&1; then
  tail -n 20 "$log" >&2
  echo "node image: debootstrap failed; all it said is in $log" >&2
  exit 1
fi
rm -rf "$root"/var/cache/apt/* "$root"/var/lib/apt/lists/* "$root"/usr/share/{doc,man,locale}/*
tar --numeric-owner --one-file-system -C "$root" -cf "$cache/debian.tar.new" .
mv "$cache/debian.tar.new" "$cache/debian.tar"
echo "$list" >"$cache/debian.list"
