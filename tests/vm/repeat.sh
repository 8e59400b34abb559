#!/usr/bin/env bash
# Runs the faults of real guests again and again: a race that shows once in ten runs is a bug.
#
#   tests/vm/repeat.sh [RUNS] [LOG]      10 runs into out/vm-repeat.log without arguments
#
# Machines stand still for 30 s, not for the 4 s of `make test`. Wants what `make test-vm` wants.
set -euo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
runs=${1:-10} log=${2:-$root/out/vm-repeat.log}
cd "$root"
mkdir -p "$(dirname "$log")"
: > "$log"
export PXOS_VM_PAUSE=${PXOS_VM_PAUSE:-30}
PXOS_SKIPS=$(mktemp)
export PXOS_SKIPS
trap 'rm -f "$PXOS_SKIPS"' EXIT
passed=0
for run in $(seq "$runs"); do
  start=$SECONDS
  if cargo nextest run -p pxos-vm-tests --test faults --retries 0 >> "$log" 2>&1 && [ ! -s "$PXOS_SKIPS" ]; then
    passed=$((passed + 1))
    echo "run $run: passed in $((SECONDS - start)) s" | tee -a "$log"
  else
    cat "$PXOS_SKIPS" >> "$log"
    echo "run $run: FAILED after $((SECONDS - start)) s" | tee -a "$log"
  fi
done
echo "$passed passed, $((runs - passed)) failed" | tee -a "$log"
[ "$passed" = "$runs" ]
