#!/usr/bin/env bash
# Where the time of a CUDA program goes, natively and remoted: perf of both runs, by process, library and function.
#
#   tools/profile.sh FOLDER-WITH-THE-BINARIES PROGRAM [ARGUMENT…]
#
# SERVER_ARGS has more arguments for pxos-server. Wants perf (Debian: linux-perf) and the right to use it; libpxshim.so and
# pxos-server tell their functions' names where they are not stripped of symbols.
set -euo pipefail
bin=$(cd "$1" && pwd)
shift
root=$(cd "$(dirname "$0")/.." && pwd)
# shellcheck source=tools/here.sh
. "$root/tools/here.sh"
command -v perf > /dev/null || { echo "perf is missing (Debian: apt install linux-perf)" >&2; exit 1; }
dir=$(mktemp -d)
server=
trap 'kill "$server" 2> /dev/null || true; wait "$server" 2> /dev/null || true; rm -rf "$dir"' EXIT

driver=auto native=()
if ! gpu_here; then
    echo "No GPU here: both ways run on softgpu." >&2
    driver=soft native=(env LD_PRELOAD="$bin/libpxsoft.so")
fi
# shellcheck disable=SC2086 # several arguments
"$bin/pxos-server" --listen "unix:$dir/gpu.sock" --control "$dir/control.sock" --driver "$driver" ${SERVER_ARGS:-} > "$dir/server.log" 2>&1 &
server=$!
for _ in $(seq 300); do
    grep -q 'worker is warm' "$dir/server.log" && break
    kill -0 "$server" 2> /dev/null || { cat "$dir/server.log" >&2; exit 1; }
    sleep 0.1
done
record() { perf record -a -F 4000 -e cpu-clock -o "$dir/perf.data" -- "$@" 2> "$dir/perf.log"; }
report() {
    # The idle loop and the profiler itself are nobody's.
    perf report -i "$dir/perf.data" --stdio --no-children --sort comm,dso,symbol --percent-limit 0.4 2> /dev/null |
        grep -Ev '^(#|$)|swapper|perf ' | head -n 40
}
printf '== natively\n'
record "${native[@]}" "$@" || { cat "$dir/perf.log" >&2; exit 1; }
report
printf '\n== remoted\n'
record env PXOS_SERVER="unix:$dir/gpu.sock" LD_PRELOAD="$bin/libpxshim.so" "$@" || { cat "$dir/perf.log" "$dir/server.log" >&2; exit 1; }
report
