#!/usr/bin/env bash
# Compares what PyTorch, CuPy, JAX, Triton and others compute natively and remoted (tests/torch/run.py), on the GPU of this machine.
# PYTHON names the interpreter that has PyTorch.
#
#   tools/torch.sh FOLDER-WITH-THE-BINARIES [run.py arguments]
set -euo pipefail
bin=$(cd "$1" && pwd)
shift
root=$(cd "$(dirname "$0")/.." && pwd)
python=${PYTHON:-python3}
# shellcheck source=tools/here.sh
. "$root/tools/here.sh"
need_torch "$python"
exec "$python" "$root/tests/torch/run.py" --bin "$bin" --out "$root/out/torch" "$@"
