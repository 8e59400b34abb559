#!/usr/bin/env bash
# Three VMs share a device at 50, 30 and 20 %, with 8000, 4000 and 2000 MB of its memory: on the GPU of this machine, or else on
# softgpu with a model of time. Shows pxctl top while they work, and a table of what was measured.
#
#   tools/demo-sharing.sh FOLDER-WITH-THE-BINARIES
set -euo pipefail
bin=$(cd "$1" && pwd)
root=$(cd "$(dirname "$0")/.." && pwd)
share="$root/out/benches/pxshare"
dir=$(mktemp -d)
pids=()
end() {
    for pid in "${pids[@]}"; do kill "$pid" 2> /dev/null || true; done
    wait 2> /dev/null || true
    rm -rf "$dir"
}
trap end EXIT

# What softgpu does with these, where there is no GPU: a block takes 100 us, all processes share one device of 16 GiB.
export PXSOFT_BLOCK_US=100 PXSOFT_LAB="$dir/lab" PXSOFT_MEMORY=16384
vm() { printf '[[vm]]\nname = "%s"\nsocket = "%s"\nweight = %s\nmemory_max = %s\n' "$1" "$dir/$1.sock" "$2" "$3"; }
{
    printf '[pool]\nsize = 3\n'
    vm red 50 8000000000
    vm blue 30 4000000000
    vm green 20 2000000000
} > "$dir/server.toml"
"$bin/pxos-server" --config "$dir/server.toml" --listen "unix:$dir/gpu.sock" --control "$dir/control.sock" \
    > "$dir/server.log" 2>&1 &
pids+=($!)
pxctl() { "$bin/pxctl" --control "$dir/control.sock" "$@"; }
for _ in $(seq 300); do
    pxctl status 2> /dev/null | grep ' running,' > /dev/null && break
    kill -0 "${pids[0]}" 2> /dev/null || { cat "$dir/server.log" >&2; exit 1; }
    sleep 0.1
done
guest() {
    local vm=$1
    shift
    PXOS_SERVER="unix:$dir/$vm.sock" LD_PRELOAD="$bin/libpxshim.so" "$@"
}
iterations=0
if pxctl status --json | grep '"software": *true' > /dev/null; then
    printf '*** No GPU here: softgpu with a model of time; its memory is addresses, of which nobody touches much. ***\n\n'
else
    iterations=$(guest red "$share" calibrate | tail -n 1)
fi

# Each VM fills its quota in steps of 10 MB; then one more is refused.
printf '%-8s %12s %12s   %s\n' VM QUOTA 'GUEST SEES' 'ALLOCATIONS OF 10 MB'
for vm in red blue green; do
    guest "$vm" "$bin/pxos-probe" init meminfo fill cuMemAlloc_v2 10000000 drop > "$dir/memory"
    awk -v vm="$vm" -v quota="$(pxctl vm show --json "$vm" | awk -F'[:,]' '/"memory_max"/ { printf "%.0f", $2 }')" \
        '/^meminfo/ { total = $4 } /^fill/ { sub(/^fill [^ ]* /, ""); said = $0 }
         END { printf "%-8s %12.0f %12.0f   %s\n", vm, quota, total, said }' "$dir/memory"
done

# All three keep the device busy with kernels of half a millisecond, beginning together.
for vm in red blue green; do
    (until [ -e "$dir/go" ]; do sleep 0.05; done; echo) |
        guest "$vm" "$share" busy "$iterations" 500 14 > "$dir/$vm.out" 2> "$dir/$vm.err" &
    pids+=($!)
done
for vm in red blue green; do
    for _ in $(seq 300); do
        grep -q '^ready' "$dir/$vm.out" 2> /dev/null && break
        sleep 0.1
    done
done
touch "$dir/go"
sleep 2
printf '\n--- pxctl top --once --interval 8\n'
pxctl top --once --interval 8 | tee "$dir/top"

printf '\n%-8s %8s %9s %10s\n' VM WEIGHT WANTED MEASURED
awk '$1 == "red" || $1 == "blue" || $1 == "green" { share[$1] = $2 + 0; sum += $2 }
     END {
         split("red blue green", vms); split("50 30 20", weights); worst = 0
         for (i = 1; i <= 3; i++) {
             measured = sum > 0 ? share[vms[i]] * 100 / sum : 0
             error = measured - weights[i]; if (error < 0) error = -error; if (error > worst) worst = error
             printf "%-8s %8d %8d%% %9.1f%%\n", vms[i], weights[i], weights[i], measured
         }
         printf "worst error: %.1f points\n", worst
         exit sum == 0
     }' "$dir/top"
echo "demo-sharing: ok"
