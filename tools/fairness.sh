#!/usr/bin/env bash
# Measures how guests share a device (out/benches/pxshare): on the GPU of this machine, or else on softgpu with its model of
# time. docs/scheduling.md explains the table.
#
#   tools/fairness.sh FOLDER-WITH-THE-BINARIES [pxos-bench fairness arguments]
#
# FAIRNESS_JSON names the file for everything that was measured; without it, out/fairness.json.
set -euo pipefail
bin=$(cd "$1" && pwd)
shift
root=$(cd "$(dirname "$0")/.." && pwd)
# shellcheck source=tools/here.sh
. "$root/tools/here.sh"
json=${FAIRNESS_JSON:-$root/out/fairness.json}
mkdir -p "$(dirname "$json")"
arguments=(--bin "$bin" --json "$json")
if ! gpu_here; then
    echo "No GPU here: guests share softgpu, where a kernel takes as long as a model says." >&2
    arguments+=(--soft)
fi
exec "$bin/pxos-bench" fairness "$root/out/benches/pxshare" "${arguments[@]}" "$@"
