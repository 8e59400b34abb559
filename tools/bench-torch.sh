#!/usr/bin/env bash
# Measures PyTorch natively and remoted in turns (tests/torch/bench.py), on the GPU of this machine. PYTHON names the interpreter
# that has PyTorch. softgpu is no substitute: PyTorch's kernels come as machine code alone.
#
#   tools/bench-torch.sh FOLDER-WITH-THE-BINARIES [bench.py arguments]
set -euo pipefail
bin=$(cd "$1" && pwd)
shift
root=$(cd "$(dirname "$0")/.." && pwd)
python=${PYTHON:-python3}
if ! "$python" -c 'import torch' 2> /dev/null; then
    echo "*** SKIPPED: $python has no PyTorch. PYTHON=… names another interpreter. ***" >&2
    exit 0
fi
if ! { ldconfig -p | grep -q 'libcuda\.so\.1' && [ -e /dev/nvidiactl ]; }; then
    echo "*** SKIPPED: no GPU here, and PyTorch's kernels do not run on softgpu. ***" >&2
    exit 0
fi
mkdir -p "$root/out"
exec "$python" "$root/tests/torch/bench.py" --bin "$bin" --json "$root/out/bench-torch.json" "$@"
