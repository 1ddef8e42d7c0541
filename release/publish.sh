#!/usr/bin/env bash
# Pushes the image and the chart of build/release to the registry, and signs them with the identity of the workflow that
# runs it. Prints their digests in the form of a workflow's outputs.
set -euo pipefail
cd "$(dirname "$0")/.."
version=$VERSION
registry=ghcr.io/heraldlb
: "${GITHUB_ACTOR:?the release workflow publishes, after a tag is pushed: docs/releasing.md}"

crane() { go tool -modfile=tools/go.mod crane "$@"; }
layout=$(mktemp -d)
trap 'rm -rf "$layout"' EXIT
tar -x -C "$layout" -f "build/release/herald-image_$version.tar"
crane auth login ghcr.io --username "$GITHUB_ACTOR" --password-stdin <<<"$GITHUB_TOKEN" >&2
image=$(crane push "$layout" "$registry/herald:$version")
pushed=$(build/bin/helm push "build/release/herald-${version#v}.tgz" "oci://$registry/charts" 2>&1 | tee /dev/stderr)
chart=$registry/charts/herald@$(sed -n 's/^Digest: //p' <<<"$pushed")
cosign sign --yes "$image" "$chart" >&2
echo "image=${image#*@}"
echo "chart=${chart#*@}"
