#!/usr/bin/env bash
# Runs Google's own clients (google-cloud-run, google-api-python-client, gcloud) against the emulator, and clients of
# SCIM (scim2-tester, scim2-client) against rolecall with its store.
#
#   ROLECALL_EMULATOR_BIN  the emulator to test; without it, it is built first
#   ROLECALL_BIN           the rolecall to test; without it, it is built first
#   XDG_CACHE_HOME         where the Python environment is kept (default ~/.cache)
#
# The last line is `N passed, N failed`, with the number of skipped cases if there are any; the exit status is 0 only
# when nothing failed.
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
root=$(cd "$here/../.." && pwd)

if [[ -z ${ROLECALL_EMULATOR_BIN:-} ]]; then
  echo "conformance: building the emulator"
  (cd "$root" && cargo build --quiet --package rolecall-emulator)
  ROLECALL_EMULATOR_BIN=${CARGO_TARGET_DIR:-$root/target}/debug/rolecall-emulator
fi
if [[ -z ${ROLECALL_BIN:-} ]]; then
  echo "conformance: building rolecall"
  (cd "$root" && cargo build --quiet --package rolecall)
  ROLECALL_BIN=${CARGO_TARGET_DIR:-$root/target}/debug/rolecall
fi
export ROLECALL_BIN
for binary in "$ROLECALL_EMULATOR_BIN" "$ROLECALL_BIN"; do
  if [[ ! -x $binary ]]; then
    echo "conformance: $binary is not an executable" >&2
    exit 2
  fi
done

# One environment per list of requirements and Python version; an unfinished one is made anew.
key=$({ cat "$here/requirements.txt"; python3 --version; } | sha256sum | cut -c1-12)
cache=${XDG_CACHE_HOME:-$HOME/.cache}/rolecall
venv=$cache/conformance-$key
if [[ ! -f $venv/.complete ]]; then
  echo "conformance: installing the Python clients into $venv (about a minute)"
  mkdir -p "$cache"
  rm -rf "$venv"
  python3 -m venv "$venv"
  "$venv/bin/pip" install --quiet --disable-pip-version-check --requirement "$here/requirements.txt"
  touch "$venv/.complete"
fi

scratch=$(mktemp -d)
emulator=
cleanup() {
  if [[ -n $emulator ]]; then kill "$emulator" 2>/dev/null || true; fi
  rm -rf "$scratch"
}
trap cleanup EXIT

"$ROLECALL_EMULATOR_BIN" --listen 127.0.0.1:0 >"$scratch/listening" &
emulator=$!
for _ in $(seq 100); do
  if [[ -s $scratch/listening ]]; then break; fi
  sleep 0.1
done
endpoint=$(sed -n 's/^listening on //p' "$scratch/listening")
if [[ -z $endpoint ]]; then
  echo "conformance: the emulator did not start" >&2
  exit 2
fi

export PYTHONDONTWRITEBYTECODE=1
status=0
for suite in python_clients gcloud_cli scim_clients; do
  "$venv/bin/python" "$here/$suite.py" "$endpoint" "$scratch/$suite.counts" || status=1
  if [[ ! -s $scratch/$suite.counts ]]; then
    echo "conformance: $suite ended without a result"
    echo "0 1 0" >"$scratch/$suite.counts"
    status=1
  fi
done
cat "$scratch"/*.counts | awk '
  { passed += $1; failed += $2; skipped += $3 }
  END { printf "%d passed, %d failed%s\n", passed, failed, skipped ? ", " skipped " skipped" : "" }'
exit "$status"
