#!/usr/bin/env bash
# The test of two guests on another machine, such as one with a GPU: guest processors are emulated where there is no KVM, the
# device is real. That machine needs nothing installed and no network.
#
#   tests/vm/gpu.sh bundle [FILE]           here: packs QEMU with its libraries, kernel, initramfs, vsock device, server and
#                                           programs into FILE (default: out/vm-bundle.tar.gz, below 45 MB)
#   tests/vm/gpu.sh run [FILE] [DRIVER]     there: unpacks it and runs the test. DRIVER is auto (the default: the GPU, or an error
#                                           where none is there), soft, or the path of a libcuda
#
# bundle wants `make build`, `make programs`, `make vm` and QEMU to have been done; BIN names another folder of binaries.
set -euo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
say() { printf 'vm bundle: %s\n' "$*" >&2; }
die() { say "error: $*"; exit 1; }

# The libraries of programs, and the loader, as the dynamic linker resolves them here.
libraries() {
  ldd "$@" 2> /dev/null | awk '$2 == "=>" && $3 ~ /^\// { print $3 } $1 ~ /^\// && $1 !~ /:$/ { print $1 }' | sort -u
}

# A script that runs a program of the bundle with the bundle's own loader and libraries.
wrap() {
  local script=$1 program=$2 up=$3
  cat > "$script" << END
#!/bin/sh
B=\$(cd "\$(dirname "\$0")/$up" && pwd)
QEMU_MODULE_DIR=\$B/modules exec "\$B/lib/ld-linux-x86-64.so.2" --library-path "\$B/lib" "\$B/$program" "\$@"
END
  chmod 755 "$script"
}

bundle() {
  local out=${1:-$root/out/vm-bundle.tar.gz} bin=${BIN:-$root/target/debug} parts=$root/.toolchain/vm
  local qemu work b file name
  qemu=$(command -v qemu-system-x86_64) || die "qemu-system-x86_64 is missing (apt install qemu-system-x86)"
  [ -f "$parts/vmlinuz" ] || die "run \`make vm\` first"
  work=$(mktemp -d)
  # shellcheck disable=SC2064 # the folder of now
  trap "rm -rf '$work'" EXIT
  b=$work/vm-bundle
  mkdir -p "$b"/{bin,lib,modules,share/qemu,programs,parts/bin,samples}

  cp "$qemu" "$b/programs/qemu"
  cp "$parts/bin/vhost-device-vsock" "$b/programs/"
  for file in /usr/lib/*/qemu/accel-tcg-x86_64.so; do [ -f "$file" ] && cp "$file" "$b/modules/"; done
  libraries "$b"/programs/* "$b"/modules/*.so | while read -r file; do cp -L "$file" "$b/lib/"; done
  # Of the firmware only what -machine pc with -kernel loads.
  for name in bios-256k.bin kvmvapic.bin linuxboot.bin linuxboot_dma.bin; do
    for file in /usr/share/qemu/$name /usr/share/seabios/$name; do
      [ -f "$file" ] && cp -L "$file" "$b/share/qemu/" && break
    done
  done
  # shellcheck disable=SC2016 # the script that is written expands it
  wrap "$b/qemu" 'programs/qemu" -L "$B/share/qemu' .
  wrap "$b/parts/bin/vhost-device-vsock" programs/vhost-device-vsock ../..
  cp "$parts/vmlinuz" "$parts/base.cpio.gz" "$b/parts/"

  for name in pxos-server pxos-probe pxos-vm libpxsoft.so; do
    [ -f "$bin/$name" ] || die "$bin/$name is missing: run \`make build\`"
    strip -o "$b/bin/$name" --strip-unneeded "$bin/$name"
    chmod 755 "$b/bin/$name"
  done
  for name in vectorAdd matrixMul reduction streams printf; do
    cp "${PXOS_SAMPLES_DIR:-$root/out/samples}/$name" "$b/samples/"
  done
  "$bin/pxos-vm" payload "$b/payload.cpio"

  mkdir -p "$(dirname "$out")"
  tar -C "$work" -cf - vm-bundle | gzip -9n > "$out"
  say "$out: $(($(stat -c %s "$out") >> 20)) MB"
}

run() {
  local file=${1:-$root/out/vm-bundle.tar.gz} driver=${2:-auto} work b
  [ -f "$file" ] || die "$file is missing: tests/vm/gpu.sh bundle makes it"
  work=$(mktemp -d)
  # shellcheck disable=SC2064 # the folder of now
  trap "rm -rf '$work'" EXIT
  tar -C "$work" -xzf "$file"
  b=$work/vm-bundle
  # Nothing of this machine but its kernel, its C library and its driver.
  env -i HOME="$work" PATH=/usr/bin:/bin LD_LIBRARY_PATH="${LD_LIBRARY_PATH:-}" TMPDIR="${TMPDIR:-/tmp}" \
    PXOS_QEMU="$b/qemu" PXOS_VM_PARTS="$b/parts" PXOS_VM_PAYLOAD="$b/payload.cpio" PXOS_BIN_DIR="$b/bin" \
    PXOS_SAMPLES_DIR="$b/samples" PXOS_TEST_DRIVER="$driver" ${PXOS_VM_ACCEL:+PXOS_VM_ACCEL="$PXOS_VM_ACCEL"} \
    "$b/bin/pxos-vm" two-guests
}

case ${1:-} in
  bundle) shift; bundle "$@" ;;
  run) shift; run "$@" ;;
  *) sed -n '2,/^set /p' "$0" | sed '$d; s/^# \{0,1\}//' >&2; exit 2 ;;
esac
