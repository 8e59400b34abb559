#!/usr/bin/env bash
# NVML as guests on a GPU see it: nvidia-smi, nvidia-smi -q, pynvml and PyTorch against each other and the VM's quota.
#
#   tests/gpu/nvml.sh BIN [OUT]     BIN holds pxos-server, libpxshim.so and libpxnvml.so; figures go to OUT/nvml.json
#
# Needs nvidia-smi, and a python3 (PYTHON names another) with torch. Without torch, --without-torch as the first argument
# tries the rest through the driver API, which works on softgpu too (DRIVER=soft QUOTA=2000; softgpu has 4096 MB).
# Ends with "nvml: ok", or with what differs.
set -euo pipefail
without=()
if [ "${1:-}" = --without-torch ]; then without=(--without-torch); shift; fi
bin=$(cd "${1:?the folder of binaries}" && pwd)
out=${2:-}
quota=${QUOTA:-8000}
here=$(cd "$(dirname "$0")" && pwd)
dir=$(mktemp -d)
server=
trap 'kill "$server" 2> /dev/null || true; wait "$server" 2> /dev/null || true; rm -rf "$dir"' EXIT

# Two VMs: the one that is looked at, and one that must see nothing of it.
cat > "$dir/server.toml" << END
listen = ["unix:$dir/gpu.sock"]
control = "$dir/control.sock"
driver = "${DRIVER:-auto}"
guest_sensors = true
[default]
memory_max = "${quota}M"
[[vm]]
name = "other"
socket = "$dir/other.sock"
memory_max = "1000M"
END
env -u LD_PRELOAD "$bin/pxos-server" --config "$dir/server.toml" > "$dir/server.log" 2>&1 &
server=$!
for _ in $(seq 300); do
    [ -S "$dir/other.sock" ] && grep -q 'driver is ready' "$dir/server.log" && break
    kill -0 "$server" 2> /dev/null || { cat "$dir/server.log" >&2; exit 1; }
    sleep 0.1
done
export PXOS_SERVER="unix:$dir/gpu.sock" PXOS_OTHER="unix:$dir/other.sock" PXOS_QUOTA=$((quota << 20))
if ! LD_PRELOAD="$bin/libpxshim.so:$bin/libpxnvml.so" "${PYTHON:-python3}" "$here/nvml.py" "${without[@]}" ${out:+--json "$out/nvml.json"}; then
    tail -n 20 "$dir/server.log" >&2
    exit 1
fi
