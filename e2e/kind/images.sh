#!/usr/bin/env bash
# Builds Herald's image, and test/app for the pods of the stories, from the programs in build/bin.
#
# The last stage of the Dockerfile takes them out of the build's context instead of the first stage. So it
# needs no base image, and any builder will do: the classic one would run the first stage too.
set -euo pipefail
cd "$(dirname "$0")/../.."

herald=$(mktemp -d)
trap 'rm -r "$herald"' EXIT
sed '/^FROM scratch/,$!d; s|--from=build /out/herald-ccm /out/herald-speaker|herald-ccm herald-speaker|' Dockerfile >"$herald/Dockerfile"
tar -c -C "$herald" Dockerfile -C "$PWD/build/bin" herald-ccm herald-speaker | docker build -q -t "$1" -
tar -c -C e2e/app Dockerfile -C "$PWD/build/bin" app | docker build -q -t test/app -
