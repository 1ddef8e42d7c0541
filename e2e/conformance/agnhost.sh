#!/usr/bin/env bash
# Fills the folder that is named with what the image of Kubernetes' test pods consists of: their one program,
# agnhost, and those that the specs run beside it in a pod, which are this machine's own.
set -euo pipefail

program=$1 root=$2
rm -rf "$root"
install -D "$program" "$root/agnhost"

copy() { # a program, under its name in the image
  local file path=$(readlink -f "$(command -v "$1")")
  install -D "$path" "$root/bin/$2"
  for file in $(ldd "$path" | grep -o '/[^ ]*'); do install -D "$file" "$root$file"; done
}
copy sh sh
copy curl curl
copy nc.openbsd nc # The others called nc know other options.
copy wget wget
# The specs expect a wget that gives up.
install -d "$root/etc"
echo "tries = 1" >"$root/etc/wgetrc"
