#!/usr/bin/env bash
# Measures out/benches/pxbench natively and remoted in turns, on the GPU of this machine or else on softgpu with small sizes.
#
#   tools/bench.sh FOLDER-WITH-THE-BINARIES [pxos-bench arguments]
set -euo pipefail
bin=$(cd "$1" && pwd)
shift
root=$(cd "$(dirname "$0")/.." && pwd)
# shellcheck source=tools/here.sh
. "$root/tools/here.sh"
arguments=(--remote-preload "$bin/libpxshim.so" --start-server "$bin/pxos-server" --json "$root/out/bench.json")
if gpu_here; then
    arguments+=(--socket-only)
else
    echo "No GPU here: both ways run on softgpu, with small sizes." >&2
    arguments+=(--direct-preload "$bin/libpxsoft.so" --server-arg=--driver --server-arg=soft)
    arguments+=(--largest 16 --divisor 50 --at-once 2 --idle 20)
fi
exec "$bin/pxos-bench" "$root/out/benches/pxbench" "${arguments[@]}" "$@"
