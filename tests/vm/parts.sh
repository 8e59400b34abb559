#!/usr/bin/env bash
# Prepares what real guests are made of: a Linux kernel, an initramfs with our init, and vhost-device-vsock. No root; nothing
# is installed on this machine.
#
#   tests/vm/parts.sh [--dir .toolchain/vm]
#
# The kernel and busybox are Debian packages, which are only unpacked; vhost-device-vsock is built by cargo into DIR. QEMU
# itself has to be there (apt install qemu-system-x86). What is there already costs nothing. To use a kernel of your own:
#
#   KERNEL=bzImage MODULES=folder-with-.ko-files tests/vm/parts.sh
#
# with MODULES empty where the kernel has virtio-pci, virtio-console and virtio-vsock built in.
set -euo pipefail

vsock_version=0.3.0
packages='linux-image-cloud-amd64 busybox-static'
# In the order in which the guest loads them: there is no modprobe. Kernels from 6.12 on have some of them built in.
modules='virtio_ring virtio virtio_pci_legacy_dev virtio_pci_modern_dev virtio_pci vsock vmw_vsock_virtio_transport_common
  vmw_vsock_virtio_transport virtio_console'

say() { printf 'vm parts: %s\n' "$*" >&2; }
die() { say "error: $*"; exit 1; }

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
dir=$root/.toolchain/vm
case ${1:-} in
  --dir) [ $# -eq 2 ] || die "--dir needs a folder"; dir=$(realpath -m "$2") ;;
  '') ;;
  *) sed -n '2,/^set /p' "$0" | sed '$d; s/^# \{0,1\}//' >&2; exit 2 ;;
esac

mkdir -p "$dir"
exec 9> "$dir/.lock"
flock 9

vsock_device() {
  [ -x "$dir/bin/vhost-device-vsock" ] && return
  say "building vhost-device-vsock $vsock_version (about a minute)"
  cargo install vhost-device-vsock --version "$vsock_version" --locked --root "$dir" --quiet
}

# Unpacks the newest version of a Debian package, or of what a meta package depends on, into $work/$1.
unpack() {
  local name=$1 real
  real=$(apt-cache depends "$name" | awk '/Depends: linux-image-[0-9]/ { print $2; exit }')
  (cd "$work" && apt-get download -qq -o APT::Sandbox::User=root "${real:-$name}" > /dev/null) || die "cannot download $name: is there a Debian mirror?"
  dpkg -x "$work/${real:-$name}"_*.deb "$work/$name"
}

initramfs() {
  local tree=$work/tree module file
  mkdir -p "$tree"/{bin,dev,proc,sys,tmp,run,etc,root,lib/modules}
  chmod 755 "$tree"
  cp "$busybox" "$tree/bin/busybox"
  local applet
  for applet in sh mount mkdir insmod cat echo ls sleep poweroff uname ln chmod stty kill ps wc head tail grep seq dd cmp tr \
    su env date rm cp true id ip sed sha256sum; do
    ln -s busybox "$tree/bin/$applet"
  done
  : > "$tree/lib/modules/order"
  for module in $modules; do
    [ -n "$folder_of_modules" ] || break
    file=$(find "$folder_of_modules" -name "$module.ko*" -print -quit)
    [ -n "$file" ] || continue # built in
    case $file in
      *.xz) xz -dc "$file" > "$tree/lib/modules/$module.ko" ;;
      *.zst) zstd -qdc "$file" > "$tree/lib/modules/$module.ko" ;;
      *) cp "$file" "$tree/lib/modules/$module.ko" ;;
    esac
    strip --strip-debug "$tree/lib/modules/$module.ko" 2> /dev/null || true
    echo "$module" >> "$tree/lib/modules/order"
  done
  echo 'root:x:0:0:root:/root:/bin/sh' > "$tree/etc/passwd"
  echo 'user:x:1000:1000:user:/tmp:/bin/sh' >> "$tree/etc/passwd"
  install -m 755 "$root/tests/vm/init" "$tree/init"
  (cd "$tree" && find . -print0 | LC_ALL=C sort -z | cpio -0 -o -H newc --quiet --owner 0:0 | gzip -9n) > "$work/base.cpio.gz"
  mv "$work/base.cpio.gz" "$dir/base.cpio.gz"
}

vsock_device
stamp="$packages $(cat "$root/tests/vm/init" "$0" | sha256sum) ${KERNEL:-} ${MODULES:-}"
if [ "$(cat "$dir/stamp" 2> /dev/null)" = "$stamp" ] && [ -f "$dir/vmlinuz" ] && [ -f "$dir/base.cpio.gz" ]; then
  exit 0
fi
for tool in cpio dpkg gzip; do command -v $tool > /dev/null || die "$tool is missing"; done
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
say "unpacking kernel and busybox"
busybox=$(command -v busybox || true)
if [ -z "$busybox" ] || ldd "$busybox" > /dev/null 2>&1; then
  unpack busybox-static
  busybox=$(find "$work/busybox-static" -path '*/bin/busybox' -type f -print -quit)
  [ -x "$busybox" ] || die "no busybox in its package"
fi
if [ -n "${KERNEL:-}" ]; then
  folder_of_modules=${MODULES:-}
  cp "$KERNEL" "$dir/vmlinuz"
else
  unpack linux-image-cloud-amd64
  folder_of_modules=$(echo "$work"/linux-image-cloud-amd64/lib/modules/*)
  [ -d "$folder_of_modules" ] || folder_of_modules=$(echo "$work"/linux-image-cloud-amd64/usr/lib/modules/*)
  cp "$work"/linux-image-cloud-amd64/boot/vmlinuz-* "$dir/vmlinuz"
fi
initramfs
echo "$stamp" > "$dir/stamp"
say "ready in $dir"
