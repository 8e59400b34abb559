#!/usr/bin/env python3
"""Measures PyTorch natively and remoted in turns: blocks of steps alternate between a process of each kind, so that both see the
same machine. Prints means, their ratio, and how many messages a step sends, those that the guest waits for by name.

A virtual processor that shares its core with somebody else's work is slower, by half in places, for seconds at a time. A median
of such figures is that of whichever state was seen more often; so means are compared, over several pairs of processes. Where
microseconds count, both sides run on the same two processors, which change their parts with every round, and two others are
taken for each pair.

    bench.py --bin target/release [--json FILE] [--quick] [--only gpt,graph] [--check]
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import time

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, HERE)

from server import Server

# Steps of a block: about a quarter of a second natively on an H200.
BLOCKS = {"gpt": 40, "gpt-item": 40, "resnet": 30, "loader": 30, "inference": 100, "graph": 1600}
PLACED = {"graph"}  # works of one thread whose sides run on the same processors
TRIMMED = 0.1  # of the slowest and of the fastest blocks of each side, and one at least, which do not count
WARM_UP = 32  # steps before anything is measured: libraries load, the allocator and cuDNN settle
TARGETS = {"gpt": 1.05, "graph": 1.02, "start": 1.0}
SYNCHRONOUS = 4  # messages of an eager step that the guest may wait for
FIRST_RESULT = "import torch; one = torch.ones(64, 64, device='cuda'); print((one @ one).sum().item())"


class Side:
    """The process of one kind."""

    def __init__(self, environment):
        command = [sys.executable, os.path.join(HERE, "steps.py")]
        self.process = subprocess.Popen(
            command, env=os.environ | environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        self.begun = json.loads(self.process.stdout.readline())

    def run(self, work, steps):
        """A block; seconds for each step."""
        self.process.stdin.write(json.dumps({"work": work, "steps": steps}) + "\n")
        self.process.stdin.flush()
        line = self.process.stdout.readline()
        if not line:
            raise RuntimeError(f"the process that does '{work}' has ended with {self.process.wait()}")
        return json.loads(line)["seconds"] / steps

    def place(self, server, processors):
        """Has the program run on the first of two processors, and what serves it on the second."""
        pid = self.begun["pid"]
        os.sched_setaffinity(pid, processors[:1])
        for session in server.status()["sessions"]:
            if session["pid"] == pid:
                for thread in lanes(session["worker"]):
                    os.sched_setaffinity(thread, processors[1:])

    def end(self):
        self.process.stdin.close()
        self.process.wait(60)


def lanes(worker):
    """The threads of a worker that run its guest's calls."""
    folder = f"/proc/{worker}/task"
    for thread in os.listdir(folder):
        with open(f"{folder}/{thread}/comm") as file:
            if file.read().strip() == "lane":
                yield int(thread)


def processors(pair):
    """Two for a pair of processes, of different cores as far as those are told; `None` where there are too few to give any away."""
    cores = {}
    for number in sorted(os.sched_getaffinity(0)):
        try:
            with open(f"/sys/devices/system/cpu/cpu{number}/topology/thread_siblings_list") as file:
                core = file.read()
        except OSError:
            core = str(number)
        cores.setdefault(core, number)
    first = list(cores.values())
    return [first[(2 * pair + place) % len(first)] for place in range(2)] if len(first) >= 4 else None


def counters(server, pid):
    """What the server has counted for a process."""
    sessions = [session for session in server.status()["sessions"] if session["pid"] == pid]
    if len(sessions) != 1:
        raise RuntimeError(f"{len(sessions)} sessions of process {pid}: this is no remoted run")
    return sessions[0]["counters"]


def messages(server, side, work, steps=10):
    """Messages for each step: a longer and a shorter block, so that what surrounds a block does not count."""

    def block(count):
        before = counters(server, side.begun["pid"])
        side.run(work, count)
        after = counters(server, side.begun["pid"])
        found = {name: after[name] - before[name] for name in ("messages_sync", "messages_async", "launches")}
        for kind in ("calls", "awaited"):
            found[kind] = {name: count - before[kind].get(name, 0) for name, count in after[kind].items()}
        return found

    short, long = block(steps), block(3 * steps)

    def each(one, other):
        return (other - one) / (2 * steps)

    found = {name: each(short[name], long[name]) for name in ("messages_sync", "messages_async", "launches")}
    for kind in ("calls", "awaited"):
        rates = {name: each(short[kind].get(name, 0), count) for name, count in long[kind].items()}
        found[kind] = {name: rate for name, rate in sorted(rates.items(), key=lambda pair: -pair[1]) if abs(rate) > 0.01}
    return found


def first_result(environment):
    """Seconds from exec to the first number of a matrix product."""
    begun = time.perf_counter()
    done = subprocess.run([sys.executable, "-c", FIRST_RESULT], env=os.environ | environment, capture_output=True, text=True)
    if done.stdout.strip() != "262144.0":
        raise RuntimeError(f"the first result was '{done.stdout}': {done.stderr[-500:]}")
    return time.perf_counter() - begun


def mean(times):
    """Without the extremes: a block that the machine has interrupted says nothing."""
    out = max(1, int(len(times) * TRIMMED)) if len(times) > 2 else 0
    return statistics.fmean(sorted(times)[out : len(times) - out])


def row(name, native, remoted, unit=1e3):
    """A line of the table; its figures."""
    one, other = mean(native), mean(remoted)
    ratio = other / one
    # Each round's own ratio says how far to trust the mean.
    ratios = [right / left for left, right in zip(native, remoted)]
    target = TARGETS.get(name)
    verdict = "" if target is None else f"<= {target:.2f} {'ok' if ratio <= target else 'MISSED'}"
    print(f"{name:<12}{one * unit:>11.3f}{other * unit:>11.3f}{ratio:>8.3f}{min(ratios):>8.3f}{max(ratios):>8.3f}  {verdict}", flush=True)
    return {"native": native, "remoted": remoted, "ratio": ratio, "target": target}


def told(name, found):
    """Lines about a step's messages."""
    print(f"{name:<12}{found['messages_async']:>9.1f} not awaited,{found['messages_sync']:>6.2f} awaited,"
          f"{found['launches']:>8.1f} launches")  # fmt: skip
    for call, rate in found["awaited"].items():
        print(f"{'':<12}{rate:>9.2f} {call}")


def measure(asked, server, environment):
    """All rounds; the report."""
    names = asked.only.split(",")
    works = [name for name in BLOCKS if name in names or asked.only == "*"]
    rounds = asked.rounds or (4 if asked.quick else 8)
    report = {"rounds": rounds, "pairs": 1 if asked.quick else asked.pairs}
    print(f"{'':<12}{'native ms':>11}{'remoted ms':>11}{'ratio':>8}{'least':>8}{'most':>8}  target")
    if asked.only == "*" or "start" in names:
        times = {"native": [], "remoted": []}
        first_result({})  # the files are in memory after it
        for _ in range(rounds):
            times["native"].append(first_result({}))
            times["remoted"].append(first_result(environment))
            server.warm()
        report["start"] = row("start", times["native"], times["remoted"])
    if not works:
        return report
    times, counted = {}, {}
    for pair in range(report["pairs"]):
        sides = {"native": Side({}), "remoted": Side(environment)}
        report["device"] = sides["native"].begun["device"]
        for work in works:
            steps = max(5, BLOCKS[work] // (2 if asked.quick else 1))
            for side in sides.values():
                side.run(work, WARM_UP)
            if pair == 0:
                counted[work] = messages(server, sides["remoted"], work)
            seen = times.setdefault(work, {"native": [], "remoted": []})
            places = processors(pair) if work in PLACED else None
            for index in range(rounds):
                if places:
                    for side in sides.values():
                        side.place(server, places if index % 2 == 0 else places[::-1])
                # Who goes first alternates, too.
                for kind in ("native", "remoted") if index % 4 < 2 else ("remoted", "native"):
                    seen[kind].append(sides[kind].run(work, steps))
        for side in sides.values():
            side.end()
    for work, seen in times.items():
        report[work] = row(work, seen["native"], seen["remoted"]) | {"messages": counted[work]}
    print("\nmessages of a step")
    for work, found in counted.items():
        told(work, found)
    return report


def main():
    arguments = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    arguments.add_argument("--bin", default="target/release", help="folder of pxos-server and libpxshim.so")
    arguments.add_argument("--preload", action="append", help="the guest's libraries, instead of --bin's libpxshim.so")
    arguments.add_argument("--server-arg", action="append", default=[])
    arguments.add_argument("--json")
    arguments.add_argument("--only", default="*", help=f"of start,{','.join(BLOCKS)}")
    arguments.add_argument("--rounds", type=int, help="blocks of each kind in each pair of processes")
    arguments.add_argument("--pairs", type=int, default=3, help="pairs of processes, one after the other")
    arguments.add_argument("--quick", action="store_true", help="four short rounds of one pair")
    arguments.add_argument("--check", action="store_true", help="a missed target is a failure")
    asked = arguments.parse_args()
    preload = [os.path.abspath(path) for path in asked.preload or [os.path.join(asked.bin, "libpxshim.so")]]
    program = os.path.abspath(os.path.join(asked.bin, "pxos-server"))
    with Server(program, {"bench": ""}, 2, asked.server_arg) as server:
        report = measure(asked, server, server.environment("bench", preload))
    missed = [name for name, target in TARGETS.items() if name in report and report[name]["ratio"] > target]
    if "gpt" in report and report["gpt"]["messages"]["messages_sync"] > SYNCHRONOUS:
        missed.append(f"more than {SYNCHRONOUS} awaited messages in a step of gpt")
    report["missed"] = missed
    if asked.json:
        with open(asked.json, "w") as file:
            json.dump(report, file, indent=1)
    print(f"missed: {', '.join(missed)}" if missed else "all targets are met")
    return 1 if missed and asked.check else 0


if __name__ == "__main__":
    sys.exit(main())
