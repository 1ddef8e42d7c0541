#!/usr/bin/env bash
# Runs go build with these arguments and says how far it is: on a terminal in one line, elsewhere once a minute.
# The last argument is the package. What go build says besides the packages that it has compiled is passed on.
set -euo pipefail

flags=()
for flag in "$@"; do
  case $flag in -trimpath | -buildvcs=* | -tags=*) flags+=("$flag") ;; esac
done
total=$(go list -deps "${flags[@]}" -f '{{if .Stale}}{{.ImportPath}}{{end}}' "${@: -1}" | wc -l)

[ -t 2 ] && every=1 end='\r' || every=60 end='\n'
said=0 built=0 SECONDS=0

# The first packages are small ones, and the linker comes last, so the time that is left is a guess.
say() {
  local left=$((SECONDS * (total - built) / built))
  printf "  %d of %d packages after %d:%02d, about %d min to go    $end" \
    "$built" "$total" $((SECONDS / 60)) $((SECONDS % 60)) $((left / 60 + 1)) >&2
  said=$SECONDS
}

{ go build -v "$@" 2>&1 && echo "ended" || echo "failed $?"; } | {
  while IFS= read -r line; do
    case $line in
      ended) [ "$said" -eq 0 ] || printf '  %d packages in %d:%02d                                  \n' "$built" $((SECONDS / 60)) $((SECONDS % 60)) >&2; exit 0 ;;
      "failed "*) exit "${line#failed }" ;;
      *[!A-Za-z0-9._/~+-]* | "") printf '%s\n' "$line" >&2 ;;
      *)
        built=$((built + 1))
        [ $((SECONDS - said)) -lt "$every" ] || say
        ;;
    esac
  done
}
