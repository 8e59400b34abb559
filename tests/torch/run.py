#!/usr/bin/env python3
"""Runs the checks natively, remoted twice, and in several VMs at once; compares what they found with the native run's.

    run.py --bin target/release --out DIR [--suites torch,others] [--only GLOB,…] [--guests 2] [--once] [--no-quota]

The other libraries run remoted once.

Without a GPU, softgpu takes its place on both sides: --direct-preload libpxsoft.so --server-arg=--driver --server-arg=soft.
Its exit code is 0 where everything that could be done natively gave the same remoted, within rounding (`record.py` says how
much that is), and at least as many checks as `ENOUGH` says were compared.
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, HERE)

import quota
from record import difference, same_bits
from server import Server

PROGRAMS = {"torch": "checks.py", "others": "others.py"}
ENOUGH = {"torch": 60, "others": 10}  # checks that must have been compared, or the run shows nothing
LIMIT = 400  # seconds for one run of a program


class Runner:
    """How the programs are started."""

    def __init__(self, asked):
        self.asked = asked
        self.out = os.path.abspath(asked.out)
        self.work = tempfile.mkdtemp(prefix="pxos-torch-run-")
        self.findings = {}
        os.makedirs(self.out, exist_ok=True)

    def start(self, suite, way, environment, cache):
        """Starts a suite; its process, its file of findings and the time."""
        found = os.path.join(self.work, f"{suite}-{way}.json")
        caches = os.path.join(self.work, "caches", cache)
        whole = os.environ | environment | {
            "TRITON_CACHE_DIR": os.path.join(caches, "triton"),
            "TORCHINDUCTOR_CACHE_DIR": os.path.join(caches, "inductor"),
            "CUPY_CACHE_DIR": os.path.join(caches, "cupy"),
            "TORCHINDUCTOR_COMPILE_THREADS": "1",  # processes that would compile beside us take longer to start than that
            "XLA_PYTHON_CLIENT_PREALLOCATE": "false",
            "PYTHONWARNINGS": "ignore",
        }  # fmt: skip
        # Addresses of the machine's own routing would only be guessed at by NCCL; one process needs none.
        whole.setdefault("NCCL_SOCKET_IFNAME", "lo")
        if "PXOS_SERVER" in environment or self.asked.direct_preload:
            self.tell_triton(whole)
        command = [sys.executable, os.path.join(HERE, PROGRAMS[suite]), "--json", found, "--only", self.asked.only]
        with open(found + ".log", "w") as log:
            process = subprocess.Popen(command, env=whole, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        return process, found, time.monotonic()

    def tell_triton(self, environment):
        """Triton asks ldconfig for libcuda to link with; where only the guest's library is, it is told so."""
        if "libcuda.so" not in subprocess.run(["ldconfig", "-p"], capture_output=True, text=True).stdout:
            folder = os.path.join(self.work, "libcuda")
            os.makedirs(folder, exist_ok=True)
            for name in ("libcuda.so", "libcuda.so.1"):
                link = os.path.join(folder, name)
                if not os.path.lexists(link):
                    os.symlink(self.asked.preload[0], link)
            environment["TRITON_LIBCUDA_PATH"] = folder

    def finish(self, process, found, begun):
        """Waits for it; what it found, with its wall time."""
        try:
            process.wait(max(1.0, begun + LIMIT - time.monotonic()))
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        seconds = time.monotonic() - begun
        name = os.path.basename(found).removesuffix(".json")
        print(f"{name}: {seconds:.1f} s", flush=True)
        with open(found + ".log", errors="replace") as file:
            log = file.read()[-20_000:]
        if os.path.exists(found):
            with open(found) as file:
                result = json.load(file)
        else:
            result = {"checks": {}, "broken": f"ended with {process.returncode} and without findings: {log[-500:]}"}
        self.findings[name] = result | {"wall": seconds, "log": log}
        # Written each time: what a limit cuts off leaves what was found before it.
        with open(os.path.join(self.out, "findings.json"), "w") as file:
            json.dump(self.findings, file)
        return self.findings[name]

    def end(self):
        """Nothing stays but what was found."""
        shutil.rmtree(self.work, ignore_errors=True)

    def native(self, suite):
        preload = {"LD_PRELOAD": " ".join(self.asked.direct_preload)} if self.asked.direct_preload else {}
        return self.finish(*self.start(suite, "native", preload, "native"))

    def remoted(self, suite, server, way, vms):
        """The suite in each of these VMs at the same time; a list of findings."""
        before = server.warm()["totals"]["sessions"]
        # The first remoted run compiles anew; those after it load what it compiled.
        begun = [
            self.start(suite, f"{way}-{vm}", server.environment(vm, self.asked.preload), "remoted") for vm in vms
        ]
        found = [self.finish(*each) for each in begun]
        held = {vm: server.held(vm) for vm in vms}
        sessions = server.warm()["totals"]["sessions"] - before
        for each, vm in zip(found, vms):
            each["held"] = held[vm]
            if sessions < len(vms):
                each["broken"] = f"only {sessions} sessions reached the server: this was no remoted run"
            elif held[vm]:
                each["broken"] = f"{held[vm]} bytes stay charged to the VM after its end"
        return found


def judge(native, found):
    """What became of each check: a verdict and its reason."""
    verdicts = {}
    for name, one in native["checks"].items():
        other = found["checks"].get(name, {"status": "missing", "error": found.get("broken", "not in the findings")})
        if one["status"] != "done":
            same = one["status"] == other["status"]
            verdicts[name] = ("unjudged", f"natively {one['status']}" + ("" if same else f", then {other['status']}"))
        elif other["status"] != "done":
            verdicts[name] = ("failed", other.get("error") or other.get("why") or other["status"])
        elif one["values"].keys() != other["values"].keys():
            verdicts[name] = ("differs", "other names of values")
        else:
            pairs = [(value, one["values"][value], other["values"][value]) for value in one["values"]]
            wrong = [f"{value}: {text}" for value, *pair in pairs if (text := difference(*pair))]
            bits = all(same_bits(*pair) for _, *pair in pairs)
            verdicts[name] = ("differs", wrong[0]) if wrong else ("bits" if bits else "rounding", "")
    return verdicts


def table(suite, native, ways):
    """The table of a suite, 80 columns, and every verdict that is not a good one."""
    print(f"\n{suite}: {native.get('versions')}")
    print(f"{'run':<14}{'wall s':>8}{'ratio':>7}{'same bits':>11}{'rounding':>10}{'differ':>8}{'failed':>8}{'unjudged':>10}")
    print(f"{'native':<14}{native['wall']:>8.1f}{1:>7.2f}{len(native['checks']):>11}{'':>10}{'':>8}"
          f"{sum(check['status'] == 'failed' for check in native['checks'].values()):>8}")  # fmt: skip
    summary = {}
    for way, found in ways.items():
        verdicts = judge(native, found)
        kinds = [verdict for verdict, _ in verdicts.values()]
        counts = {kind: kinds.count(kind) for kind in ("bits", "rounding", "differs", "failed", "unjudged")}
        print(f"{way:<14}{found['wall']:>8.1f}{found['wall'] / native['wall']:>7.2f}{counts['bits']:>11}"
              f"{counts['rounding']:>10}{counts['differs']:>8}{counts['failed']:>8}{counts['unjudged']:>10}")  # fmt: skip
        summary[way] = counts | {"wall": found["wall"], "broken": found.get("broken"), "verdicts": verdicts}
    for way, result in summary.items():
        if result["broken"]:
            print(f"{way}: {result['broken']}")
        for name, (verdict, why) in result["verdicts"].items():
            if verdict in ("differs", "failed"):
                print(f"{way}: {name} {verdict}: {why[:300]}")
    slowest = sorted(native["checks"].items(), key=lambda pair: -pair[1].get("seconds", 0))[:6]
    print("slowest natively: " + ", ".join(f"{name} {check.get('seconds', 0):.1f}" for name, check in slowest))
    for name, check in native["checks"].items():
        if check["status"] != "done":
            why = (check.get("error") or check.get("why")).partition("\n")[0]
            print(f"native: {name} {check['status']}: {why[:200]}")
    return summary


def good(suite, summary, enough):
    """Whether every way of a suite is as the native one."""
    return all(
        not result["broken"]
        and result["differs"] == result["failed"] == 0
        and result["bits"] + result["rounding"] >= enough
        for result in summary.values()
    )


def main():
    arguments = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    arguments.add_argument("--bin", default="target/release", help="folder of pxos-server and libpxshim.so")
    arguments.add_argument("--preload", action="append", help="the guest's libraries, instead of --bin's libpxshim.so")
    arguments.add_argument("--server", help="the server, instead of --bin's")
    arguments.add_argument("--server-arg", action="append", default=[])
    arguments.add_argument("--direct-preload", action="append", default=[], help="a library for the native run")
    arguments.add_argument("--out", default="out/torch")
    arguments.add_argument("--suites", default="torch,others")
    arguments.add_argument("--only", default="*")
    arguments.add_argument("--guests", type=int, default=2, help="VMs at the same time; 0 leaves that run out")
    arguments.add_argument("--memory", default="30G", help="what each VM may hold, so that one that fills it leaves the others theirs")
    arguments.add_argument("--once", action="store_true", help="one remoted run instead of two")
    arguments.add_argument("--no-quota", action="store_true", help="leaves out what a VM with a memory quota is told")
    asked = arguments.parse_args()
    asked.preload = [os.path.abspath(path) for path in asked.preload or [os.path.join(asked.bin, "libpxshim.so")]]
    asked.direct_preload = [os.path.abspath(path) for path in asked.direct_preload]
    program = os.path.abspath(asked.server or os.path.join(asked.bin, "pxos-server"))

    runner = Runner(asked)
    vms = [f"vm{index}" for index in range(max(asked.guests, 1))]
    rules = {vm: f'memory_max = "{asked.memory}"' for vm in vms} | {"quota": f'memory_max = "{quota.LIMIT}"'}
    verdict, report = True, {}
    suites = asked.suites.split(",")
    # Natively without a server: its warm workers would hold device memory.
    natives = {suite: runner.native(suite) for suite in suites}
    with Server(program, rules, 2, asked.server_arg, os.path.join(runner.out, "server.log")) as server:
        for suite in suites:
            runs = {"remoted": vms[:1]}
            if suite == "torch" and not asked.once:
                runs["again"] = vms[:1]
            if suite == "torch" and asked.guests > 1:
                runs["at once"] = vms
            ways = {}
            for way, which in runs.items():
                try:
                    found = runner.remoted(suite, server, way.replace(" ", "-"), which)
                except (RuntimeError, OSError) as error:
                    # A server that is stuck or gone must not cost what was found before.
                    found = [{"checks": {}, "wall": 0.0, "broken": str(error)}] * len(which)
                ways |= {way if len(which) == 1 else f"{way}, {vm}": each for vm, each in zip(which, found)}
            report[suite] = table(suite, natives[suite], ways)
            verdict &= good(suite, report[suite], ENOUGH[suite] if asked.only == "*" else 1)
        if not asked.no_quota:
            report["quota"] = quota.measure(server, "quota", asked.preload)
            verdict &= quota.table(report["quota"])
        report["ended"] = server.status()["totals"]["ended"]
    runner.end()
    report["good"] = verdict
    with open(os.path.join(runner.out, "summary.json"), "w") as file:
        json.dump(report, file, indent=1)
    print(f"\nsessions by their end: {report['ended']}")
    print("torch: ok" if verdict else "torch: NOT as natively")
    return 0 if verdict else 1


if __name__ == "__main__":
    sys.exit(main())
