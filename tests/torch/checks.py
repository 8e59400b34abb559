#!/usr/bin/env python3
"""Checks of PyTorch on a CUDA device. Each computes from seeded inputs and returns values; `run.py` compares those of a
native and a remoted run. Alone, it says which checks could not be done.

    checks.py --json found.json [--device cpu] [--only GLOB,…] [--list]
"""

import argparse
import fnmatch
import glob
import importlib
import json
import os
import shutil
import sys
import sysconfig
import time

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))

GROUPS = [
    "blas", "dnn", "solvers", "attention", "elements", "memory", "streams", "graphs",
    "compiled", "training", "processes", "errors", "device",
]  # fmt: skip


def find_headers():
    """CUDA's headers, for what is compiled at run time, from PyTorch's own packages where no toolkit is installed."""
    if "CUDA_HOME" not in os.environ and not shutil.which("nvcc"):
        for path in glob.glob(os.path.join(sysconfig.get_paths()["purelib"], "nvidia", "cu1?")):
            os.environ["CUDA_HOME"] = path


def main():
    arguments = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    arguments.add_argument("--json", help="where the values go")
    arguments.add_argument("--device", default="cuda", help="cuda, or cpu for those checks that can")
    arguments.add_argument("--only", default="*", help="names or groups, as globs with commas between")
    arguments.add_argument("--here", action="store_true", help="all in this process, even what ends it")
    arguments.add_argument("--list", action="store_true", help="prints names and groups")
    asked = arguments.parse_args()

    begun = time.monotonic()
    find_headers()
    import torch

    import registry

    for group in GROUPS:
        importlib.import_module(f"groups.{group}")
    wanted = asked.only.split(",")
    entries = [
        entry
        for entry in registry.CHECKS.values()
        if any(fnmatch.fnmatch(word, glob) for glob in wanted for word in (entry.name, entry.group))
        and (entry.cpu or asked.device != "cpu")
    ]
    if asked.list:
        for entry in entries:
            print(f"{entry.group:<12} {entry.name}")
        return 0
    imported = time.monotonic() - begun
    torch.backends.cuda.matmul.allow_tf32 = False
    torch.backends.cudnn.allow_tf32 = False
    if asked.here:
        results = {entry.name: registry.perform(entry, asked.device) for entry in entries}
    else:
        results = registry.run(entries, asked.device)
    states = [result["status"] for result in results.values()]
    found = {
        "program": "torch",
        "versions": {"torch": torch.__version__, "cuda": torch.version.cuda, "python": sys.version.split()[0]},
        "seconds": {"import": round(imported, 3), "all": round(time.monotonic() - begun, 3)},
        "checks": results,
    }
    if asked.json:
        with open(asked.json, "w") as file:
            json.dump(found, file, indent=1)
    print(f"{states.count('done')} done, {states.count('failed')} failed, {states.count('skipped')} skipped,"
          f" {found['seconds']['all']:.1f} s")  # fmt: skip
    return 1 if "failed" in states or "done" not in states else 0


if __name__ == "__main__":
    sys.exit(main())
