#!/usr/bin/env bash
# Runs a fuzz target of fuzz/ with libFuzzer, on the stable toolchain: coverage comes from the compiler's own pass.
#
#   tools/fuzz.sh TARGET [seconds] [libFuzzer options]
set -euo pipefail
root=$(cd "$(dirname "$0")/.." && pwd)
target=${1:?a target, such as primitive}
seconds=${2:-60}
shift $(($# > 1 ? 2 : 1))
flags="-Cpasses=sancov-module -Cllvm-args=-sanitizer-coverage-level=4 -Cllvm-args=-sanitizer-coverage-inline-8bit-counters"
flags+=" -Cllvm-args=-sanitizer-coverage-pc-table -Cllvm-args=-sanitizer-coverage-trace-compares --cfg fuzzing -Ccodegen-units=1"
cd "$root/fuzz"
# The flags must not reach build scripts, which only a named target keeps apart.
triple=$(rustc -vV | sed -n 's/^host: //p')
RUSTFLAGS="$flags" cargo build --release --target "$triple" --bin "$target"
mkdir -p "$root/out/fuzz/$target" "$root/out/fuzz/found"
# Programs of the language to begin with.
corpus="$root/primitives/examples"
exec "target/$triple/release/$target" "$root/out/fuzz/$target" "$corpus" -max_total_time="$seconds" \
    -rss_limit_mb=2048 -timeout=25 -max_len=8192 -artifact_prefix="$root/out/fuzz/found/" "$@"
