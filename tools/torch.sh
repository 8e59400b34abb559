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
if ! "$python" -c 'import torch' 2> /dev/null; then
    echo "*** SKIPPED: $python has no PyTorch. PYTHON=… names another interpreter. ***" >&2
    exit 0
fi
if ! { ldconfig -p | grep -q 'libcuda\.so\.1' && [ -e /dev/nvidiactl ]; }; then
    echo "*** SKIPPED: no GPU here, and PyTorch's kernels do not run on softgpu. ***" >&2
    exit 0
fi
exec "$python" "$root/tests/torch/run.py" --bin "$bin" --out "$root/out/torch" "$@"
