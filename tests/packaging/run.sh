#!/usr/bin/env bash
# The life of the Debian packages in clean roots of Debian 12 and 13: installed, used, changed, upgraded, removed, purged.
#
#   tests/packaging/run.sh [--from target/debug] [SUITE…]
#
# Needs root and debootstrap; where one is missing it says that it is skipped. Roots are made once, into .toolchain/roots,
# and used as copies. A guest is a program in the same root, over the server's unix socket, on the software device.
set -euo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
from=$root/target/debug suites=()
while [ $# -gt 0 ]; do
  case $1 in
    --from) from=$(realpath "$2"); shift 2 ;;
    -*) sed -n '2,/^set /p' "$0" | sed '$d; s/^# \{0,1\}//' >&2; exit 2 ;;
    *) suites+=("$1"); shift ;;
  esac
done
[ ${#suites[@]} -gt 0 ] || suites=(bookworm trixie)

skip() { printf '\n*** SKIPPED: the packages are not tested: %s\n\n' "$*" >&2; exit 0; }
[ "$(id -u)" = 0 ] || skip "chroot needs root"
command -v debootstrap > /dev/null || skip "no debootstrap (apt install debootstrap)"
unshare --mount --pid --fork true 2> /dev/null || skip "no namespaces for mounts and processes"
mirror=${MIRROR:-http://deb.debian.org/debian}

# A clean root, with what the packages depend on and what a Debian machine has (systemd), from the cache or newly made.
clean() {
  local suite=$1 cached=$root/.toolchain/roots/$1.tar
  if [ ! -f "$cached" ]; then
    echo "making a root of $suite (about a minute)" >&2
    mkdir -p "$root/.toolchain/roots"
    local fresh
    fresh=$(mktemp -d)
    if ! debootstrap --variant=minbase --include=adduser,systemd,procps "$suite" "$fresh" "$mirror" > "$fresh.log" 2>&1; then
      tail -n 5 "$fresh.log" >&2
      rm -rf "$fresh"
      return 1
    fi
    rm -rf "$fresh"/var/cache/apt/archives/*.deb
    tar -C "$fresh" -cf "$cached.new" .
    rm -rf "$fresh" "$fresh.log"
    mv "$cached.new" "$cached"
  fi
  mkdir -p "$2"
  tar -C "$2" -xf "$cached"
  chmod 755 "$2" # a temporary folder's own mode keeps others than root out of everything
}

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
next=9.0.0
export COMPRESS=none
"$root/packaging/deb.sh" --from "$from" --out "$work/first" > /dev/null
VERSION=$next "$root/packaging/deb.sh" --from "$from" --out "$work/second" > /dev/null

# Without packages.
make -s -C "$root" install DESTDIR="$work/installed" BUILT="$from" > /dev/null 2>&1
find "$work/installed" -type f \( -name 'lib*.so' -o -path '*/bin/*' \) -exec strip --strip-unneeded {} +

# A package that installs a libcuda.so.1 where NVIDIA's has it.
driver=$work/driver/usr/lib/x86_64-linux-gnu
mkdir -p "$driver" "$work/driver/DEBIAN"
echo 'int cuInit(unsigned flags) { return (int)flags; }' | cc -shared -fPIC -x c - -Wl,-soname,libcuda.so.1 -o "$driver/libcuda.so.1"
printf '%s\n' 'Package: libcuda1' 'Version: 1' 'Architecture: amd64' 'Maintainer: a test' 'Description: a driver' \
  > "$work/driver/DEBIAN/control"
dpkg-deb --root-owner-group --build "$work/driver" "$work/libcuda1.deb" > /dev/null

for suite in "${suites[@]}"; do
  tree=$work/$suite
  clean "$suite" "$tree" || skip "no root of $suite: is there a Debian mirror?"
  mkdir "$tree/t"
  cp "$work"/first/*.deb "$work/libcuda1.deb" "$tree/t/"
  mkdir "$tree/t/next"
  cp "$work"/second/*.deb "$tree/t/next/"
  cp "$root/out/samples/vectorAdd" "$root/tests/packaging/life.sh" "$root/docs/operations.md" "$tree/t/"
  cp -a "$work/installed" "$tree/t/"
  start=$SECONDS
  # Mounts and processes end with the namespace.
  # shellcheck disable=SC2016 # the inner shell expands it
  if ! unshare --mount --pid --fork --kill-child bash -c '
    mount --make-rprivate / && mount -t proc proc "$1/proc" && mount -t tmpfs -o mode=1777 tmpfs "$1/run" &&
      mount --rbind /dev "$1/dev" && exec chroot "$1" /bin/bash /t/life.sh "$2"' - "$tree" "$next" > "$work/$suite.log" 2>&1; then
    cat "$work/$suite.log"
    echo "FAILED: the packages on $suite" >&2
    exit 1
  fi
  grep '^ok ' "$work/$suite.log" | sed "s/^/$suite: /"
  echo "$suite: passed in $((SECONDS - start)) s"
  rm -rf "$tree"
done
