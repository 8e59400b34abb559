#!/usr/bin/env bash
# Tests and measurements on another machine, which has a GPU and its driver, but neither network nor compilers.
#
#   tools/gpu-machine.sh pack [FILE]            here: builds, and packs binaries, tests, programs and scripts into FILE
#                                               (out/gpu-machine.tar.xz)
#   tools/gpu-machine.sh run FILE OUT PART…     there: unpacks FILE and runs its parts one after the other. OUT gets a log of each,
#                                               their figures, and summary.txt: part, exit code, seconds
#
# A part is one of the following, or several words in quotes, where more arguments follow the part's own. Parts in one pair of
# quotes with ` + ` between them run side by side, which suits whatever measures nothing: 'tests + nvidia /samples + torch'.
#   tests [NAME…]      scenarios (all but the slowest: frames, leaks); each is a part of the summary
#   samples            our own programs, natively twice and remoted
#   nvidia FOLDER      built programs of NVIDIA's, likewise
#   bench, idle, fairness, neighbours, primitives     the measurements of docs/performance.md, scheduling.md and primitives.md
#   torch, others, torch-bench, nvml                  PyTorch and what is above it; PYTHON names the interpreter
#   profile BENCH [ARGUMENT…]    perf of out/benches/BENCH, natively and remoted; wants perf
set -euo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
usage() { sed -n '2,/^set /p' "${BASH_SOURCE[0]}" | sed '$d; s/^# \{0,1\}//' >&2; exit 2; }

# Executables of test targets, as cargo names them.
executables() {
    cargo test --no-run --message-format json "$@" 2> /dev/null | python3 -c '
import json, sys
for line in sys.stdin:
    item = json.loads(line)
    if item.get("profile", {}).get("test") and item.get("executable") and "test" in item["target"]["kind"]:
        print(item["target"]["name"], item["executable"])'
}

pack() {
    local file=${1:-$root/out/gpu-machine.tar.xz} work tree name path
    cd "$root"
    cargo build --release --workspace
    make --no-print-directory programs
    make --no-print-directory -C benches
    work=$(mktemp -d)
    # shellcheck disable=SC2064 # the folder of now
    trap "rm -rf '$work'" EXIT
    tree=$work/pxos
    mkdir -p "$tree/target/release" "$tree/out/tests"
    git ls-files -z -- tests tools primitives nvml/tests docs/*.md python Makefile | xargs -0 cp --parents -t "$tree"
    cp -a out/benches out/samples "$tree/out/"
    # The runtimes that some programs are linked with.
    cp --parents .toolchain/cudart-*/lib/libcudart.so.* "$tree"
    rm -rf "$tree"/out/*/.build
    for name in libpxshim.so libpxsoft.so libpxnvml.so pxctl pxos-bench pxos-probe pxos-samples pxos-server; do
        # Symbols stay, for profiles.
        strip --strip-debug -o "$tree/target/release/$name" "target/release/$name"
    done
    executables -p pxos-harness -p pxos-cudart | while read -r name path; do
        strip --strip-debug -o "$tree/out/tests/$name" "$path"
    done
    # Two crates have a target of this name.
    executables -p pxos-primitives | while read -r name path; do
        strip --strip-debug -o "$tree/out/tests/primitives-$name" "$path"
    done
    # Tests know the files that they read by the path of the sources they were built from.
    printf '%s\n' "$root" > "$tree/out/tests/root"
    mkdir -p "$(dirname "$file")"
    tar -C "$work" -c pxos | xz -T0 -3 > "$file"
    printf '%s: %s MB\n' "$file" $(($(stat -c %s "$file") / 1000000))
}

# Runs a part's command, of which the end is shown and the rest kept.
part() {
    local name=$1 begun=$SECONDS code=0
    shift
    printf '\n== %s\n' "$name"
    "$@" > "$out/$name.log" 2>&1 || code=$?
    tail -n 25 "$out/$name.log"
    printf '%-24s %3s %6s s\n' "$name" "$code" $((SECONDS - begun)) | tee -a "$out/summary.txt"
}

tests() {
    local path
    [ $# -gt 0 ] || set -- '*'
    for path in $(printf "out/tests/%s\n" "$@"); do
        case ${path##*/} in
            root) ;;
            frames | leaks | stress) [ "$*" = '*' ] || part "test-${path##*/}" "$path" --test-threads 8 ;;
            *) part "test-${path##*/}" "$path" --test-threads 8 ;;
        esac
    done
}

run_part() {
    local bin=target/release name=$1
    shift
    case $name in
        tests) tests "$@" ;;
        samples) part samples tools/samples.sh "$bin" out/samples --json "$out/samples.json" "$@" ;;
        nvidia) part nvidia tools/samples.sh "$bin" "$1" --jobs "${JOBS:-6}" --timeout 60 --json "$out/nvidia.json" "${@:2}" ;;
        bench) part bench tools/bench.sh "$bin" --json "$out/bench.json" --skip idle "$@" ;;
        idle) part idle tools/bench.sh "$bin" --json "$out/idle.json" --only idle --rounds 1 "$@" ;;
        fairness) FAIRNESS_JSON=$out/fairness.json part fairness tools/fairness.sh "$bin" "$@" ;;
        neighbours) FAIRNESS_JSON=$out/neighbours.json part neighbours tools/fairness.sh "$bin" --neighbours "$@" ;;
        primitives) part primitives tools/bench-primitives.sh "$bin" "$@" ;;
        torch) part torch env -u LD_LIBRARY_PATH tools/torch.sh "$bin" --suites torch --out "$out/torch" "$@" ;;
        others) part others env -u LD_LIBRARY_PATH tools/torch.sh "$bin" --suites others --no-quota --out "$out/others" "$@" ;;
        torch-bench) part torch-bench env -u LD_LIBRARY_PATH tools/bench-torch.sh "$bin" --json "$out/torch-bench.json" "$@" ;;
        nvml) part nvml env -u LD_LIBRARY_PATH tests/gpu/nvml.sh "$bin" "$out" "$@" ;;
        profile) part "profile-$1" tools/profile.sh "$bin" "out/benches/$1" "${@:2}" ;;
        *) usage ;;
    esac
}

run() {
    local file built words
    [ $# -ge 3 ] || usage
    file=$(realpath "$1")
    mkdir -p "$2"
    out=$(cd "$2" && pwd)
    shift 2
    tree=${TREE:-/tmp/pxos}
    [ -d "$tree" ] || { mkdir -p "$(dirname "$tree")" && tar -C "$(dirname "$tree")" -xJf "$file" && [ -d "$tree" ]; }
    built=$(cat "$tree/out/tests/root")
    if [ ! -e "$built" ] || [ -L "$built" ]; then
        mkdir -p "$(dirname "$built")"
        ln -sfn "$tree" "$built"
    fi
    # Programs know the runtimes that they are linked with by that path as well.
    [ -e "$built/.toolchain" ] || ln -s "$tree/.toolchain" "$built/.toolchain"
    cd "$tree"
    export PXOS_TEST_DRIVER=auto PXOS_BIN_DIR=$tree/target/release PXOS_SAMPLES_DIR=$tree/out/samples
    export LD_LIBRARY_PATH=/usr/local/cuda/lib64:/usr/local/cuda/nvvm/lib64${LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH}
    for words in "$@"; do
        while read -r words; do
            # shellcheck disable=SC2086 # a part and its arguments
            run_part $words < /dev/null &
        done <<< "${words// + /$'\n'}"
        wait
    done
    printf '\n'
    cat "$out/summary.txt"
}

case ${1:-} in
    pack) pack "${@:2}" ;;
    run) run "${@:2}" ;;
    *) usage ;;
esac
