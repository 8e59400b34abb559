#!/usr/bin/env bash
# Measures primitives against hand-written CUDA in one remoted process (out/benches/primitives), on the GPU of this machine or
# else on softgpu with small sizes, where only the results count.
#
#   tools/bench-primitives.sh FOLDER-WITH-THE-BINARIES [MiB of each array] [rounds] [order of the product]
set -euo pipefail
bin=$(cd "$1" && pwd)
shift
root=$(cd "$(dirname "$0")/.." && pwd)
dir=$(mktemp -d)
trap 'kill "$server" 2> /dev/null || true; wait "$server" 2> /dev/null || true; rm -rf "$dir"' EXIT

"$bin/pxos-server" --listen "unix:$dir/gpu.sock" --control "$dir/control.sock" --driver auto > "$dir/server.log" 2>&1 &
server=$!
export PXOS_SERVER="unix:$dir/gpu.sock"
for _ in $(seq 300); do
    device=$("$bin/pxctl" gpu-test status 2> /dev/null) && break
    kill -0 "$server" 2> /dev/null || { cat "$dir/server.log" >&2; exit 1; }
    sleep 0.1
done
software=no
if [[ $device == *softgpu* ]]; then
    software=yes
    echo "No GPU here: this is softgpu, with small sizes; only the results count." >&2
    [ $# -gt 0 ] || set -- 1 2 128
fi
result=0
LD_PRELOAD="$bin/libpxshim.so" "$root/out/benches/primitives" "$@" || result=$?
if [ "$software" = yes ] && [ "$result" = 1 ]; then
    exit 0
fi
exit "$result"
