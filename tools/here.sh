# shellcheck shell=bash
# Sourced by the scripts beside it: what this machine has.

# An NVIDIA driver and a device. A pipe into `grep -q` would end ldconfig before it has printed all, which pipefail takes for a failure.
gpu_here() {
    [[ $(ldconfig -p) == *libcuda.so.1* ]] && [ -e /dev/nvidiactl ]
}

# Ends the script, saying why, where PyTorch or a GPU for it is missing. softgpu is no substitute: PyTorch's kernels come as
# machine code alone.
need_torch() {
    if ! "$1" -c 'import torch' 2> /dev/null; then
        echo "*** SKIPPED: $1 has no PyTorch. PYTHON=… names another interpreter. ***" >&2
        exit 0
    fi
    if ! gpu_here; then
        echo "*** SKIPPED: no GPU here, and PyTorch's kernels do not run on softgpu. ***" >&2
        exit 0
    fi
}
