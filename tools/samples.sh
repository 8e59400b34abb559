#!/usr/bin/env bash
# Runs a folder of built CUDA programs directly and remoted, on the GPU of this machine (directly twice, to see what
# varies by itself) or else on softgpu.
#
# A folder called samples holds this repository's own; any other is taken to hold NVIDIA's.
#
#   tools/samples.sh FOLDER-WITH-THE-BINARIES FOLDER-OF-PROGRAMS [pxos-samples arguments]
set -euo pipefail
bin=$(cd "$1" && pwd)
programs=$2
shift 2
root=$(cd "$(dirname "$0")/.." && pwd)
# shellcheck source=tools/here.sh
. "$root/tools/here.sh"
arguments=(--remote-preload "$bin/libpxshim.so" --start-server "$bin/pxos-server")
if gpu_here; then
    arguments+=(--server-arg=--driver --server-arg=auto --repeat-native)
else
    echo "No GPU here: both ways run on softgpu." >&2
    arguments+=(--direct-preload "$bin/libpxsoft.so" --server-arg=--driver --server-arg=soft)
fi
lists=$root/tests/cuda-samples
if [ "$(basename "$(cd "$programs" && pwd)")" = samples ]; then
    arguments+=(--args-file "$lists/samples.toml")
else
    arguments+=(--args-file "$lists/nvidia.toml" --varying "$lists/varying.toml")
fi
exec "$bin/pxos-samples" "$programs" "${arguments[@]}" "$@"
