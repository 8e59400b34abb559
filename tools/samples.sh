#!/usr/bin/env bash
# Runs a folder of built CUDA programs directly and remoted, on the GPU of this machine or else on softgpu.
#
#   tools/samples.sh FOLDER-WITH-THE-BINARIES FOLDER-OF-PROGRAMS [pxos-samples arguments]
set -euo pipefail
bin=$(cd "$1" && pwd)
programs=$2
shift 2
arguments=(--remote-preload "$bin/libpxshim.so" --start-server "$bin/pxos-server")
if ldconfig -p | grep -q 'libcuda\.so\.1' && [ -e /dev/nvidiactl ]; then
    arguments+=(--server-arg=--driver --server-arg=auto)
else
    echo "No GPU here: both ways run on softgpu." >&2
    arguments+=(--direct-preload "$bin/libpxsoft.so" --server-arg=--driver --server-arg=soft)
fi
list=$(cd "$(dirname "$0")/.." && pwd)/tests/cuda-samples/samples.toml
[ "$(basename "$(cd "$programs" && pwd)")" = samples ] && arguments+=(--args-file "$list")
exec "$bin/pxos-samples" "$programs" "${arguments[@]}" "$@"
