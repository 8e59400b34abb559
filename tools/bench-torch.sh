#!/usr/bin/env bash
# Measures PyTorch natively and remoted in turns (tests/torch/bench.py), on the GPU of this machine. PYTHON names the interpreter
# that has PyTorch.
#
#   tools/bench-torch.sh FOLDER-WITH-THE-BINARIES [bench.py arguments]
set -euo pipefail
bin=$(cd "$1" && pwd)
shift
root=$(cd "$(dirname "$0")/.." && pwd)
python=${PYTHON:-python3}
# shellcheck source=tools/here.sh
. "$root/tools/here.sh"
need_torch "$python"
mkdir -p "$root/out"
exec "$python" "$root/tests/torch/bench.py" --bin "$bin" --json "$root/out/bench-torch.json" "$@"
