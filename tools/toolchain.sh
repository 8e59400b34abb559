#!/usr/bin/env bash
# Installs the CUDA 13.0 compiler (and, on request, more) from PyPI into the tree. No GPU, no driver, no root.
#
#   tools/toolchain.sh [--dir .toolchain] [--math] [--contract]
#
#   --dir DIR    where to install; relative paths are relative to the repository root
#   --math       also cuBLAS, cuFFT, cuRAND, cuSOLVER, cuSPARSE, NPP, nvJitLink, nvJPEG, NVML, CUPTI (2.2 GB)
#   --contract   also the CUDA runtimes 11.8 … 13.5 for the runtime contract test (30 MB), each as
#                DIR/cudart-<major.minor>/{include,lib}
#
# Standard output is one line: the CUDA_HOME to use. Progress goes to standard error.
# A part that is already there costs nothing: each part has a stamp holding what was installed, and a part
# whose stamp differs is installed anew. Two runs at once are safe: the second waits for the first.
# PIP_INDEX_URL and the other settings of pip are respected.
set -euo pipefail

toolkit=13.0.2
core="cuda-toolkit[nvcc,crt,nvvm,cudart,cccl,nvrtc,profiler]==$toolkit"
math="cuda-toolkit[cublas,cufft,curand,cusolver,cusparse,npp,nvjitlink,nvjpeg,nvml,cupti]==$toolkit"

# major.minor and the PyPI requirement that holds it. From 12.9 on the wheels hold libcudart_static.a too.
runtimes=(
  "11.8 nvidia-cuda-runtime-cu11==11.8.89"
  "12.0 nvidia-cuda-runtime-cu12==12.0.146"
  "12.4 nvidia-cuda-runtime-cu12==12.4.127"
  "12.8 nvidia-cuda-runtime-cu12==12.8.90"
  "12.9 nvidia-cuda-runtime-cu12==12.9.79"
  "13.0 nvidia-cuda-runtime==13.0.96"
  "13.1 nvidia-cuda-runtime==13.1.80"
  "13.2 nvidia-cuda-runtime==13.2.86"
  "13.3 nvidia-cuda-runtime==13.3.29"
  "13.4 nvidia-cuda-runtime==13.4.92"
  "13.5 nvidia-cuda-runtime==13.5.37"
)

say() { printf 'toolchain: %s\n' "$*" >&2; }
die() { say "error: $*"; exit 1; }
usage() { sed -n '2,/^set /p' "$0" | sed '$d; s/^# \{0,1\}//' >&2; }

dir=.toolchain want_math=0 want_contract=0
while [ $# -gt 0 ]; do
  case $1 in
    --dir) [ $# -ge 2 ] || die "--dir needs a folder"; dir=$2; shift ;;
    --dir=*) dir=${1#--dir=} ;;
    --math) want_math=1 ;;
    --contract) want_contract=1 ;;
    -h | --help) usage; exit 0 ;;
    *) usage; die "unknown argument '$1'" ;;
  esac
  shift
done

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
case $dir in /*) ;; *) dir=$root/$dir ;; esac

[ "$(uname -s)-$(uname -m)" = Linux-x86_64 ] || die "only Linux on x86_64 is supported, this is $(uname -s) on $(uname -m)"
command -v flock >/dev/null || die "flock is missing (package util-linux)"

mkdir -p "$dir"
exec 9>"$dir/.lock"
flock -n 9 || { say "another run holds $dir/.lock, waiting"; flock 9; }

venv=$dir/venv
# Prints CUDA_HOME, or nothing while the compiler is not installed.
cuda_home() { local home; for home in "$venv"/lib/python3*/site-packages/nvidia/cu13; do [ -d "$home" ] && echo "$home" && return; done; true; }
stamped() { [ "$(cat "$dir/.stamp-$1" 2>/dev/null)" = "$2" ]; }
stamp() { printf '%s\n' "$2" >"$dir/.stamp-$1.new" && mv "$dir/.stamp-$1.new" "$dir/.stamp-$1"; }

# Checked only where something has to be installed, so that a finished toolchain needs no Python.
python=
need_python() {
  [ -z "$python" ] || return 0
  command -v python3 >/dev/null || die "python3 is missing (3.9 or newer, with venv)"
  python3 -c 'import sys; sys.exit(sys.version_info < (3, 9))' || die "python3 is older than 3.9: $(python3 --version)"
  python3 -c 'import venv, ensurepip' 2>/dev/null || die "python3 has no venv or no pip (Debian, Ubuntu: apt install python3-venv)"
  if [ ! -x "$venv/bin/pip" ] || ! "$venv/bin/pip" --version >/dev/null 2>&1; then
    say "making the virtual environment $venv"
    rm -rf "$venv"
    python3 -m venv "$venv" || die "python3 -m venv failed (Debian, Ubuntu: apt install python3-venv)"
  fi
  python=$venv/bin/python
}

# pip_do WHAT ARGUMENTS…: runs pip quietly, showing its last lines if it fails.
pip_do() {
  local what=$1 log=$dir/pip.log
  shift
  if ! "$python" -m pip --disable-pip-version-check "$@" >"$log" 2>&1; then
    tail -n 15 "$log" >&2
    die "pip could not get $what (whole output: $log)"
  fi
}

# The names that the linker and nvcc.profile expect and that wheels cannot hold.
development_links() {
  ( cd "$1/lib"; for so in lib*.so.*; do
      case $so in *.alt.*) continue ;; esac
      link=${so%%.so.*}.so; [ -e "$so" ] && [ ! -e "$link" ] && ln -s "$so" "$link"
    done; true )
}

install_part() { # NAME REQUIREMENT SIZE
  stamped "$1" "$2" && [ -n "$(cuda_home)" ] && return 0
  need_python
  say "installing $2 ($3)"
  local begun=$SECONDS home
  pip_do "$2" install "$2"
  home=$(cuda_home)
  [ -n "$home" ] || die "the packages were installed but hold no nvidia/cu13 folder below $venv"
  ln -sfn lib "$home/lib64"
  development_links "$home"
  stamp "$1" "$2"
  say "installed in $((SECONDS - begun)) s"
}

install_runtime() { # VERSION REQUIREMENT NUMBER OF
  local version=$1 requirement=$2 target=$dir/cudart-$1
  stamped "cudart-$version" "$requirement" && [ -d "$target/lib" ] && return 0
  need_python
  say "runtime $3 of $4: $requirement"
  local work=$dir/.cudart-$version.new
  rm -rf "$work" "$target"
  mkdir -p "$work"
  pip_do "$requirement" download --no-deps --only-binary=:all: --dest "$work" "$requirement"
  # Wheels put the files below nvidia/cuda_runtime (11, 12) or nvidia/cu13; here they lie in one place.
  "$python" - "$work" <<'PY' || die "$requirement: the wheel does not have the expected layout"
import pathlib, sys, zipfile
work = pathlib.Path(sys.argv[1])
(wheel,) = work.glob("*.whl")
for name in zipfile.ZipFile(wheel).namelist():
    parts = pathlib.PurePosixPath(name).parts
    if len(parts) > 3 and parts[0] == "nvidia" and parts[2] in ("include", "lib") and ".." not in parts:
        to = work.joinpath(*parts[2:])
        to.parent.mkdir(parents=True, exist_ok=True)
        to.write_bytes(zipfile.ZipFile(wheel).read(name))
wheel.unlink()
sys.exit(not list(work.glob("lib/libcudart.so.*")))
PY
  development_links "$work"
  mv "$work" "$target"
  stamp "cudart-$version" "$requirement"
}

install_part core "$core" "250 MB"
[ $want_math = 0 ] || install_part math "$math" "2.2 GB"
if [ $want_contract = 1 ]; then
  number=0
  for entry in "${runtimes[@]}"; do
    number=$((number + 1))
    install_runtime "${entry% *}" "${entry#* }" $number ${#runtimes[@]}
  done
fi

home=$(cuda_home)
[ -x "$home/bin/nvcc" ] || die "$home/bin/nvcc is missing: remove $dir and run again"
echo "$home"
