#!/usr/bin/env bash
# Builds the Debian packages pxos-server and pxos-guest from what `make install` installs.
#
#   packaging/deb.sh [--from target/release] [--out out/packages]
#
# FROM is the folder of built binaries, which the packages get stripped. VERSION names another version than Cargo.toml's,
# COMPRESS another way to compress than xz (none, for tests). The packages run wherever the C library is as new as the
# one that they were built with.
set -euo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
from=$root/target/release out=$root/out/packages
while [ $# -gt 0 ]; do
  case $1 in
    --from) from=$(realpath "$2"); shift 2 ;;
    --out) out=$(realpath -m "$2"); shift 2 ;;
    *) sed -n '2,/^set /p' "$0" | sed '$d; s/^# \{0,1\}//' >&2; exit 2 ;;
  esac
done
version=${VERSION:-$(sed -n 's/^version = "\(.*\)"/\1/p' "$root/Cargo.toml" | head -n 1)}

stage=$(mktemp -d)
trap 'rm -rf "$stage"' EXIT
chmod 755 "$stage"

# The oldest C library that has all functions that these files take from it.
libc() {
  local newest
  newest=$(objdump -T "$@" | grep -o 'GLIBC_2\.[0-9]*' | sort -Vu | tail -n 1)
  echo "libc6 (>= ${newest#GLIBC_}), libgcc-s1"
}

package() {
  local name=$1 tree=$stage/$1 files depends size file
  # Both packages have pxctl; the alternatives system makes /usr/bin/pxctl of one of them.
  make -s -C "$root" "install-${name#pxos-}" DESTDIR="$tree" PREFIX=/usr BUILT="$from" \
    PXCTL="/usr/lib/pxos/${name#pxos-}"
  mapfile -t files < <(find "$tree" -type f \( -name 'lib*.so' -o -path '*/bin/*' -o -name pxctl \))
  strip --strip-unneeded "${files[@]}"
  depends=$(libc "${files[@]}")
  mkdir -p "$tree/usr/share/doc/$name"
  cp "$root/CHANGELOG.md" "$tree/usr/share/doc/$name/"
  { echo "Copyright: the pxOS contributors"; echo; cat "$root/LICENSE"; } > "$tree/usr/share/doc/$name/copyright"
  chmod -R u=rwX,go=rX "$tree"
  mkdir "$tree/DEBIAN"
  size=$(du -sk --apparent-size "$tree" | cut -f 1)
  sed -e "s/@VERSION@/$version/; s/@DEPENDS@/$depends/; s/@SIZE@/$size/" "$root/packaging/debian/$name.control" \
    > "$tree/DEBIAN/control"
  for file in conffiles triggers postinst prerm postrm; do
    [ -f "$root/packaging/debian/$name.$file" ] || continue
    install -m "$(case $file in p*) echo 755 ;; *) echo 644 ;; esac)" "$root/packaging/debian/$name.$file" "$tree/DEBIAN/$file"
  done
  (cd "$tree" && find . -path ./DEBIAN -prune -o -type f -printf '%P\0' | sort -z | xargs -0 md5sum > DEBIAN/md5sums)
  mkdir -p "$out"
  dpkg-deb --root-owner-group "-Z${COMPRESS:-xz}" --build "$tree" "$out/${name}_${version}_amd64.deb" > /dev/null
  echo "$out/${name}_${version}_amd64.deb"
}

package pxos-server
package pxos-guest
