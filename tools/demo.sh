#!/usr/bin/env bash
# Runs CUDA programs through shim and server, on the GPU of this machine or else on softgpu, and shows the server's status.
#
#   tools/demo.sh FOLDER-WITH-THE-BINARIES
set -euo pipefail
bin=$(cd "$1" && pwd)
root=$(cd "$(dirname "$0")/.." && pwd)
dir=$(mktemp -d)
trap 'kill "$server" 2> /dev/null || true; wait "$server" 2> /dev/null || true; rm -rf "$dir"' EXIT

"$bin/pxos-server" --listen "unix:$dir/gpu.sock" --control "$dir/control.sock" --driver auto > "$dir/server.log" 2>&1 &
server=$!
for _ in $(seq 100); do
    [ -S "$dir/gpu.sock" ] && break
    kill -0 "$server" 2> /dev/null || { cat "$dir/server.log" >&2; exit 1; }
    sleep 0.1
done
export PXOS_SERVER="unix:$dir/gpu.sock"
guest() { LD_PRELOAD="$bin/libpxshim.so" "$@"; }

if [[ $("$bin/pxctl" --control "$dir/control.sock" status --json) =~ '"software": true' ]]; then
    printf '*** No GPU here: everything below runs on softgpu, a device made of this CPU. ***\n\n'
fi
for program in deviceQuery vectorAdd matrixMul reduction printf callbacks nbody multiThread; do
    printf -- '--- %s\n' "$program"
    guest "$root/out/samples/$program" | tail -n 4
done

# One guest is still at work while the status is shown.
guest "$root/out/samples/orderAcrossThreads" 3000 > "$dir/order.txt" &
worker=$!
sleep 0.3
printf -- '--- pxctl status\n'
"$bin/pxctl" --control "$dir/control.sock" status
wait "$worker"
tail -n 1 "$dir/order.txt"
echo "demo: ok"
