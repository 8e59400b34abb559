#!/bin/bash
# Runs in a clean Debian root, with /t from outside (tests/packaging/run.sh): the first release and the next one of both
# packages, a package with a libcuda.so.1, and a CUDA program.
set -euo pipefail
next=$1
export DEBIAN_FRONTEND=noninteractive LC_ALL=C.UTF-8 PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin

ok() { echo "ok $*"; }
fail() {
  echo "FAIL $*"
  cat /var/log/pxos/server.log 2> /dev/null || true
  exit 1
}
apt() { apt-get -qq -o Dpkg::Options::=--force-confdef -o Dpkg::Options::=--force-confold "$@"; }
# Every path of the root, but for what package managers keep for themselves.
paths() {
  find / -xdev \( -path /proc -o -path /t -o -path /tmp -o -path /var/lib/dpkg -o -path /var/cache -o -path /var/lib/apt \
    -o -path /var/log -o -path /var/lib/systemd \) -prune -o -print | grep -Ev '^/etc/(passwd|group|shadow|gshadow|subuid|subgid)-$' | sort
}
pid() { cat /run/pxos/pxos-server.pid; }
# Whether a command prints a line like that, and succeeds. (`command | grep -q` ends a command that has more to say by SIGPIPE.)
says() {
  local pattern=$1
  shift
  "$@" > /tmp/said && grep -q "$pattern" /tmp/said
}
adds() { /t/vectorAdd > /tmp/out 2>&1 && grep -q '^PASS' /tmp/out; }

# A machine that runs has an init system; in a root without one Debian starts services only where this says so.
printf '#!/bin/sh\nexit 0\n' > /usr/sbin/policy-rc.d && chmod 755 /usr/sbin/policy-rc.d
paths > /tmp/before
apt install /t/pxos-server_*.deb /t/pxos-guest_*.deb > /tmp/apt 2>&1 || { cat /tmp/apt; fail "apt install"; }
ok "apt install of both packages"
[ "$(ps -o user= -p "$(pid)")" = pxos ] || fail "the server does not run as pxos"
pxctl status > /tmp/status || fail "pxctl status"
grep -q 'NO GPU' /tmp/status || fail "without a GPU the status has to say so: $(cat /tmp/status)"
ok "the server runs as pxos, and says that it has no GPU"

# The installed settings are the defaults; an operator says that the CPU is meant, and where the log goes.
sed -i 's/^#driver = .*/driver = "soft"/; s/^#output = .*/output = "\/var\/log\/pxos\/server.log"/' /etc/pxos/server.toml
pxos-server --check-config > /dev/null || fail "the changed configuration"
/etc/init.d/pxos-server restart || fail "restart"
grep -q 'ready: guests are let in' /var/log/pxos/server.log || fail "the log does not say that guests are let in"
/etc/init.d/pxos-server status > /dev/null || fail "status"
/etc/init.d/pxos-server start > /dev/null || fail "a second start is no error"
ok "init script: restart, status, start again"

[ "$(ldconfig -p | grep -c 'libcuda.so.1 .*=> /usr/lib/pxos/cuda/')" = 1 ] || fail "libcuda.so.1 is not ours: $(ldconfig -p | grep cuda)"
adds || fail "vectorAdd: $(cat /tmp/out)"
grep -q 'program="vectorAdd"' /var/log/pxos/server.log || fail "the server does not know of it"
ok "a CUDA program runs through the installed libcuda.so.1"
useradd --no-create-home outsider
useradd --no-create-home insider && usermod --append --groups pxos insider
says '^PASS' su insider -s /bin/sh -c /t/vectorAdd || fail "a member of the group pxos has no GPU"
if su outsider -s /bin/sh -c /t/vectorAdd > /tmp/out 2>&1; then fail "everybody has the GPU"; fi
userdel outsider && userdel insider
ok "members of the group pxos may use it, and nobody else"

pxctl doctor > /tmp/doctor || fail "doctor: $(cat /tmp/doctor)"
says '"ok": true' pxctl doctor --json || fail "doctor in JSON"
grep -q "find the shim as libcuda.so.1" /tmp/doctor || fail "doctor: $(cat /tmp/doctor)"
grep -q 'a vector add runs' /tmp/doctor || fail "doctor runs nothing: $(cat /tmp/doctor)"
grep -q 'MB/s to the device' /tmp/doctor || fail "doctor times nothing: $(cat /tmp/doctor)"
ok "pxctl doctor finds nothing wrong"
systemd-analyze verify /usr/lib/systemd/system/pxos-server.service /usr/lib/systemd/system/pxos-guest-*.service > /tmp/units 2>&1 ||
  fail "units: $(cat /tmp/units)"
if grep -q 'pxos.*\(Unknown\|ignoring\)' /tmp/units; then fail "units: $(cat /tmp/units)"; fi
ok "systemd takes the units: $(systemd-analyze security --offline=true pxos-server.service 2> /dev/null | tail -n 1 | sed 's/.*: //; s/ [^ -~]*$//')"

# As logrotate does it.
mv /var/log/pxos/server.log /var/log/pxos/server.log.1
sed -n '/postrotate/,/endscript/p' /etc/logrotate.d/pxos-server | sed '1d;$d' > /tmp/rotate && sh /tmp/rotate
for _ in $(seq 100); do grep -qs 'the log goes on here' /var/log/pxos/server.log && break; sleep 0.1; done
grep -q 'the log goes on here' /var/log/pxos/server.log || fail "the log is not opened anew"
/etc/init.d/pxos-server reload > /dev/null || fail "reload"
for _ in $(seq 100); do grep -qs 'configuration is read again' /var/log/pxos/server.log && break; sleep 0.1; done
grep -q 'configuration is read again' /var/log/pxos/server.log || fail "reload is not in the log"
ok "the log is rotated, the configuration read again"

apt install /t/libcuda1.deb > /tmp/apt 2>&1 || fail "apt install of a driver: $(cat /tmp/apt)"
if says /usr/lib/pxos/ ldconfig -p; then fail "our libcuda.so.1 stands beside a driver's"; fi
LD_PRELOAD=/usr/lib/pxos/libpxshim.so adds || fail "vectorAdd beside a driver: $(cat /tmp/out)"
apt purge libcuda1 > /tmp/apt 2>&1 || fail "purge of a driver"
says 'libcuda.so.1 .*=> /usr/lib/pxos/cuda/' ldconfig -p || fail "libcuda.so.1 is not ours again"
ok "beside an NVIDIA driver it is found by LD_PRELOAD alone, and again without it"

before=$(pid)
apt install /t/next/*.deb > /tmp/apt 2>&1 || { cat /tmp/apt; fail "upgrade"; }
[ "$(dpkg-query -W -f '${Version}' pxos-server)" = "$next" ] || fail "the version after the upgrade"
[ "$(pid)" != "$before" ] || fail "the server was not restarted"
grep -q '^driver = "soft"' /etc/pxos/server.toml || fail "the operator's settings are gone"
[ "$(stat -c '%a %G' /etc/pxos/server.toml)" = '640 pxos' ] || fail "rights of server.toml: $(stat -c '%a %G' /etc/pxos/server.toml)"
adds || fail "vectorAdd after the upgrade: $(cat /tmp/out)"
ok "upgrade: restarted, settings kept, programs run"

before=$(pid)
apt remove pxos-server pxos-guest > /tmp/apt 2>&1 || { cat /tmp/apt; fail "remove"; }
if [ -d "/proc/$before" ]; then fail "the server outlives its package"; fi
for file in server client; do [ -f "/etc/pxos/$file.toml" ] || fail "$file.toml does not outlive a removal"; done
if says pxos ldconfig -p; then fail "libcuda.so.1 outlives its package"; fi
apt purge pxos-server pxos-guest > /tmp/apt 2>&1 || { cat /tmp/apt; fail "purge"; }
paths > /tmp/after
diff /tmp/before /tmp/after || fail "something is left behind"
for path in /run/pxos /run/pxos-gpu.sock /var/log/pxos; do
  if [ -e "$path" ] || [ -L "$path" ]; then fail "$path is left behind"; fi
done
if getent passwd pxos || getent group pxos; then fail "the user is left behind"; fi
if pgrep pxos-server; then fail "a process is left behind"; fi
ok "remove and purge leave nothing"

# Without the packages: what `make install` makes, and the commands of docs/operations.md that go with it.
cp -a /t/installed/. /
hash -r # pxctl lies elsewhere now
# The block's commands that need no init system, as they stand there; there is no sudo.
sed -n '/^    # on the host: the user that the unit names/,/^$/p' /t/operations.md | tr '&' '\n' | sed 's/sudo //g; s/^ *//' |
  grep -Ev '^(systemctl .*|#.*|)$' > /tmp/by-hand
for command in useradd chgrp systemd-tmpfiles ldconfig; do
  grep -q "$command" /tmp/by-hand || fail "docs/operations.md has no $command"
done
sh -e /tmp/by-hand > /tmp/out 2>&1 || fail "by hand: $(cat /tmp/by-hand /tmp/out)"
sed -i 's/^#driver = .*/driver = "soft"/' /etc/pxos/server.toml
su pxos -s /bin/sh -c '/usr/local/bin/pxos-server --check-config' > /dev/null || fail "the server's user cannot read its settings"
/etc/init.d/pxos-server start > /dev/null || fail "the installed init script"
[ "$(ps -o user= -p "$(pid)")" = pxos ] || fail "the server that was installed by hand does not run as pxos"
says '=> /usr/local/lib/pxos/cuda/' ldconfig -p || fail "libcuda.so.1 is not the one of /usr/local"
adds || fail "vectorAdd: $(cat /tmp/out)"
systemd-analyze verify /usr/local/lib/systemd/system/pxos-*.service > /tmp/units 2>&1 || fail "units: $(cat /tmp/units)"
pxctl doctor > /tmp/doctor || fail "doctor: $(cat /tmp/doctor)"
/etc/init.d/pxos-server stop > /dev/null || fail "stop"
ok "make install, and what goes with it by hand"
