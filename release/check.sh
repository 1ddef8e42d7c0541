#!/usr/bin/env bash
# Builds a release of this tree twice: in two directories, with two umasks and in two time zones. What comes out has to be
# the same, and krew has to accept it. Go's cache is shared, so this finds what depends on place and time; the release
# workflow compares with another machine's.
set -euo pipefail
cd "$(dirname "$0")/.."

tmp=$(mktemp -d)
trap 'rm -rf "$tmp"' EXIT
SOURCE_DATE_EPOCH=$(git log -1 --format=%ct)
export SOURCE_DATE_EPOCH

for tree in "$tmp/one" "$tmp/the/other"; do
	mkdir -p "$tree/build/bin"
	git ls-files -z --cached --others --exclude-standard | tar -c --null -T - | tar -x -m -C "$tree"
	sed -i 's/^## \[Unreleased\]$/## [0.0.0-check] - 2026-01-01/' "$tree/CHANGELOG.md"
	cp build/bin/helm build/bin/cyclonedx-gomod "$tree/build/bin/"
done
make -C "$tmp/one" release VERSION=v0.0.0-check
(umask 077 && TZ=Asia/Tokyo make -C "$tmp/the/other" release VERSION=v0.0.0-check)
diff -r "$tmp/one/build/release" "$tmp/the/other/build/release"

cd "$tmp/one/build/release"
sha256sum --check --quiet checksums.txt
cp krew.yaml "$tmp/herald.yaml" # A plugin's manifest has its name.
# Not in tools/go.mod: what it requires does not go together with Helm.
go run sigs.k8s.io/krew/cmd/validate-krew-manifest@v0.4.3 -manifest "$tmp/herald.yaml" -skip-install
ls -l
