"""The list of checks, and how one is run: here, or in a process of its own.

The process that runs them has imported PyTorch and never touches CUDA, so that it can fork. Checks run one after another in
a forked process; one that ends its CUDA context, or that wants another allocator, runs `alone`, in a forked process of its
own. That costs the context, not the import.
"""

import json
import os
import re
import select
import signal
import struct
import subprocess
import sys
import tempfile
import time
import traceback
import zlib

from record import record

CHECKS = {}
LIMIT = 120  # seconds for a check in a process of its own: it hangs


class Skip(Exception):
    """The check cannot run here; the text says why."""


class Check:
    """One check and what it needs."""

    def __init__(self, group, body, alone, cpu, environment, fresh):
        self.name, self.group, self.body = body.__name__, group, body
        self.alone, self.cpu, self.environment, self.fresh = alone, cpu, environment, fresh


def check(body=None, *, alone=False, cpu=False, environment=None, fresh=False):
    """Registers a check: `alone` in a process of its own, with `environment`; `cpu` where it can run on the CPU as well;
    `fresh` where the environment must be there before PyTorch is loaded."""

    def register(body):
        group = body.__module__.rpartition(".")[2]
        assert body.__name__ not in CHECKS, body.__name__
        CHECKS[body.__name__] = Check(group, body, alone or environment is not None, cpu, environment or {}, fresh)
        return body

    return register(body) if body else register


def seed(name):
    """The same numbers in every run of a check, whatever ran before it."""
    number = zlib.crc32(name.encode())
    if "torch" in sys.modules:
        sys.modules["torch"].manual_seed(number)
    if "numpy" in sys.modules:
        sys.modules["numpy"].random.seed(number)


def perform(entry, device):
    """Runs a check in this process; its result as JSON."""
    begun = time.monotonic()
    try:
        seed(entry.name)
        found = entry.body(device) if device else entry.body()
        if device == "cuda" and not entry.alone:
            sys.modules["torch"].cuda.synchronize()  # what the check left behind is its own, not the next one's
        result = {"status": "done", "values": {name: record(value) for name, value in found.items()}}
        assert result["values"], "a check without a value shows nothing"
    except Skip as skip:
        result = {"status": "skipped", "why": str(skip)}
    except BaseException as error:  # a check's failure is its own, whatever it is
        result = {
            "status": "failed",
            "error": f"{type(error).__name__}: {neutral(str(error))}"[:600],
            "trace": traceback.format_exc()[-2000:],
        }
        if isinstance(error, KeyboardInterrupt):
            raise
    return result | {"group": entry.group, "seconds": round(time.monotonic() - begun, 3)}


def neutral(text):
    """An error's text without what differs from run to run: addresses, process numbers, amounts of memory in use."""
    text = re.sub(r"0x[0-9a-f]+", "0x…", text)
    text = re.sub(r"\b(pid|process|PID|Process) \d+", r"\1 …", text)
    return re.sub(r"\b\d+(\.\d+)? (bytes|KiB|MiB|GiB)\b", r"… \2", text)


class Common:
    """A process that runs one check after another, as a program does many things; forked from one that never touches CUDA.

    If a check ends the process, or its context, that check has failed, and the next one gets a new process.
    """

    def __init__(self, device):
        sys.stdout.flush()
        asks, self.ask = os.pipe()
        self.told, tells = os.pipe()
        self.pid = os.fork()
        if self.pid == 0:
            os.close(self.ask)
            os.close(self.told)
            while (name := receive(asks)) is not None:
                send(tells, self.perform(CHECKS[name], device))
            # An ordinary exit, with everything alive that the checks have left behind.
            sys.exit(0)
        os.close(asks)
        os.close(tells)

    @staticmethod
    def perform(entry, device):
        result = perform(entry, device)
        if result["status"] == "failed" and device == "cuda":
            try:
                sys.modules["torch"].cuda.synchronize()
            except Exception as error:
                result["broken"] = neutral(str(error).partition("\n")[0])
        return result

    def run(self, entry):
        """Runs a check; its result, and whether the process is still of use."""
        begun = time.monotonic()
        send(self.ask, entry.name)
        result = receive(self.told, LIMIT)
        if result is not None:
            return result, "broken" not in result
        late = time.monotonic() - begun > LIMIT - 1
        os.kill(self.pid, signal.SIGKILL)
        error = "no answer: it hung" if late else "the process died"
        return {"status": "failed", "error": error, "group": entry.group, "seconds": time.monotonic() - begun}, False

    def end(self):
        """Lets it go; its exit code."""
        os.close(self.ask)
        os.close(self.told)
        return os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])


def run(entries, device):
    """Runs checks, each where it belongs; results by name."""
    results, common = {}, None
    for entry in entries:
        if entry.alone:
            results[entry.name] = isolated(entry, device)
        else:
            common = common or Common(device)
            results[entry.name], useful = common.run(entry)
            if not useful:
                common.end()
                common = None
        result = results[entry.name]
        if result["status"] != "done":
            print(f"{entry.name}: {result['status']}: {result.get('error') or result.get('why')}", flush=True)
    if common:
        code = common.end()
        ended = {"status": "done", "values": {"exit": record(code)}} if code == 0 else {"status": "failed", "error": f"exit {code}"}
        results["exit_with_everything_alive"] = ended | {"group": "processes", "seconds": 0.0}
    return results


def isolated(entry, device):
    """Runs a check in a forked process of its own; what it printed is part of the result where it fails."""
    begun = time.monotonic()
    sys.stdout.flush()
    result, write = os.pipe()
    with tempfile.TemporaryFile() as said:
        pid = os.fork()
        if pid == 0:
            os.close(result)
            os.setpgid(0, 0)
            os.environ.update(entry.environment)
            os.dup2(said.fileno(), 1)
            os.dup2(said.fileno(), 2)
            done = perform_afresh(entry) if entry.fresh else perform(entry, device)
            sys.stdout.flush()
            send(write, done)
            os._exit(0)
        os.close(write)
        done = receive(result, LIMIT)
        if done is None:
            kill(pid)
            late = time.monotonic() - begun > LIMIT - 1
            done = {"status": "failed", "error": "no answer: it hung" if late else "its process died"}
        os.close(result)
        _, status = os.waitpid(pid, 0)
        said.seek(0)
        text = said.read().decode(errors="replace")
    if done["status"] == "failed":
        done["output"] = text[-2000:]
        done["exit"] = status
    return {"group": entry.group, "seconds": round(time.monotonic() - begun, 3)} | done


def perform_afresh(entry):
    """Runs a check in a new interpreter."""
    with tempfile.NamedTemporaryFile(suffix=".json") as file:
        command = [sys.executable, sys.modules["__main__"].__file__, "--only", entry.name, "--here", "--json", file.name]
        code = subprocess.run(command).returncode
        content = file.read()
    return json.loads(content)["checks"][entry.name] if content else {"status": "failed", "error": f"ended with {code}"}


def kill(pid):
    """Ends a check's process group."""
    try:
        os.killpg(pid, signal.SIGKILL)
    except ProcessLookupError:
        pass


def send(descriptor, message):
    """One message: its length, then JSON."""
    content = json.dumps(message).encode()
    content = struct.pack("<I", len(content)) + content
    while content:
        content = content[os.write(descriptor, content) :]


def receive(descriptor, limit=None):
    """One message, or None at the end or after `limit` seconds."""
    content = b""
    until = time.monotonic() + limit if limit else None
    while len(content) < 4 or len(content) < 4 + struct.unpack("<I", content[:4])[0]:
        if until and not select.select([descriptor], [], [], max(0.0, until - time.monotonic()))[0]:
            return None
        piece = os.read(descriptor, 1 << 16)
        if not piece:
            return None
        content += piece
    return json.loads(content[4:])
