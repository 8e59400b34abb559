"""A server of its own for a run: a unix socket for each VM, a control socket, everything in a folder that goes away."""

import json
import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time

START_LIMIT = 120  # seconds until a server that does not listen is broken: a driver may take long to start
SETTLE_LIMIT = 30  # seconds that guests' ends may take to reach the server's books


class Server:
    """`pxos-server` with these VMs: a mapping from a name to further lines of its rule."""

    def __init__(self, program, vms, pool=2, arguments=(), log=None):
        self.folder = tempfile.mkdtemp(prefix="pxos-torch-")
        self.control = os.path.join(self.folder, "control.sock")
        rules = "listen = []\n"
        for name, limits in vms.items():
            rules += f'[[vm]]\nname = "{name}"\nsocket = "{self.socket(name)}"\n{limits}\n'
        config = os.path.join(self.folder, "server.toml")
        with open(config, "w") as file:
            file.write(rules)
        self.log = log or os.path.join(self.folder, "log")
        with open(self.log, "w") as file:
            self.process = subprocess.Popen(
                [program, "--config", config, "--control", self.control, "--pool-size", str(pool),
                 "--pool-wait-timeout", "120s", *arguments],
                stdin=subprocess.DEVNULL, stdout=file, stderr=file, start_new_session=True,
            )  # fmt: skip
        self.pool = pool
        self.warm()

    def socket(self, vm):
        """Where guests of a VM connect."""
        return os.path.join(self.folder, f"{vm}.sock")

    def environment(self, vm, preload):
        """What makes a process a guest of a VM."""
        return {"PXOS_SERVER": f"unix:{self.socket(vm)}", "LD_PRELOAD": " ".join(preload)}

    def ask(self, **request):
        """One request to the control socket; what it answers."""
        with socket.socket(socket.AF_UNIX) as connection:
            connection.settimeout(20)
            connection.connect(self.control)
            connection.sendall(json.dumps(request).encode() + b"\n")
            reply = json.loads(connection.makefile().readline())
        if "error" in reply:
            raise RuntimeError(reply["error"])
        return reply["ok"]

    def status(self):
        return self.ask(op="status")["status"]

    def warm(self):
        """Waits until no worker is being started and nobody is served; what the status says then."""
        until = time.monotonic() + START_LIMIT
        while True:
            if self.process.poll() is not None:
                raise RuntimeError(f"the server has ended\n{self.tail()}")
            try:
                status = self.status()
                if status["pool"]["warm"] >= self.pool and not status["pool"]["starting"] and not status["sessions"]:
                    return status
            except OSError:
                pass
            if time.monotonic() > until:
                raise RuntimeError(f"the server is not ready\n{self.tail()}")
            time.sleep(0.02)

    def held(self, vm):
        """Bytes of device memory that count against a VM, once its guests have ended."""
        until = time.monotonic() + SETTLE_LIMIT
        while True:
            (shown,) = self.ask(op="vm.show", name=vm)["vms"]
            charged = shown["memory"]["charged"]
            if not charged or time.monotonic() > until:
                return charged
            time.sleep(0.05)

    def tail(self):
        with open(self.log, errors="replace") as file:
            return file.read()[-3000:]

    def end(self):
        """Stops it; its log stays where the caller asked for one."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
            try:
                self.process.wait(30)
            except subprocess.TimeoutExpired:
                os.killpg(self.process.pid, signal.SIGKILL)
                self.process.wait()
        shutil.rmtree(self.folder, ignore_errors=True)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.end()
