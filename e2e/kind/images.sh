#!/usr/bin/env bash
# Builds the images from programs that are there (make build), on a machine that can pull none: Herald's is
# the last stage of its Dockerfile, and test/app is what runs in the pods of the stories.
set -euo pipefail
cd "$(dirname "$0")/../.."

context=$(mktemp -d)
trap 'rm -rf "$context"' EXIT
cp build/bin/herald-ccm build/bin/herald-speaker build/bin/app "$context"
sed -e '1,/^FROM scratch/{/^FROM scratch/!d}' -e 's# --from=build##; s#/out/##g' Dockerfile >"$context/Dockerfile"
printf 'FROM scratch\nCOPY app /app\nENTRYPOINT ["/app"]\n' >"$context/app.Dockerfile"

# The old builder is the one that every docker has.
export DOCKER_BUILDKIT=0
docker build -q -t ghcr.io/heraldlb/herald:dev "$context" 2>/dev/null
docker build -q -t test/app -f "$context/app.Dockerfile" "$context" 2>/dev/null
