#!/usr/bin/env python3
"""Checks of CuPy, JAX, Triton, CUDA's bindings for Python and Numba, like those of `checks.py`; each library in a process of
its own, all at the same time. A library that is not installed is said to be so.

    others.py --json found.json [--only GLOB,…] [--library NAME]
"""

import argparse
import fnmatch
import importlib
import importlib.util
import json
import os
import subprocess
import sys
import tempfile
import time

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, HERE)

# The module that a library is, and ours with its checks.
LIBRARIES = {"cupy": "cupy_", "jax": "jax_", "triton": "triton_", "drivers": "drivers"}
NEEDED = {"drivers": "numpy"}  # its parts are looked for by the checks
LIMIT = 200  # seconds for a library


def alone(library, only, target):
    """Runs the checks of one library in this process."""
    import registry

    importlib.import_module(f"libraries.{LIBRARIES[library]}")
    results = {}
    for entry in registry.CHECKS.values():
        if any(fnmatch.fnmatch(word, glob) for glob in only.split(",") for word in (entry.name, library)):
            results[entry.name] = registry.perform(entry, None)
            # Written each time: what a crash leaves is what was found before it.
            with open(target, "w") as file:
                json.dump(results, file)


def version(library):
    """Of an installed library; none where it is not."""
    if importlib.util.find_spec(NEEDED.get(library, library)) is None:
        return None
    from importlib import metadata

    for name in (library, f"{library}-cuda13x", f"{library}-cuda12x", "cuda-bindings"):
        try:
            return metadata.version(name)
        except metadata.PackageNotFoundError:
            pass
    return "unknown"


def main():
    arguments = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    arguments.add_argument("--json")
    arguments.add_argument("--only", default="*", help="names of checks or libraries, as globs with commas between")
    arguments.add_argument("--library", help="only this one, in this process")
    asked = arguments.parse_args()
    if asked.library:
        alone(asked.library, asked.only, asked.json)
        return 0
    results, seconds, running = {}, {}, {}
    versions = {library: version(library) for library in LIBRARIES}
    begun = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        # At the same time: most of it is compiling, each with one thread.
        for library in LIBRARIES:
            if versions[library] is None:
                print(f"{library} is not installed: its checks are left out")
                continue
            target = os.path.join(folder, library)
            command = [sys.executable, __file__, "--library", library, "--only", asked.only, "--json", target]
            running[library] = subprocess.Popen(command)
        for library, process in running.items():
            try:
                code = process.wait(max(1.0, begun + LIMIT - time.monotonic()))
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
                code = "a time-out"
            seconds[library] = round(time.monotonic() - begun, 3)
            target = os.path.join(folder, library)
            if os.path.exists(target):
                with open(target) as file:
                    results |= json.load(file)
            ended = {"status": "done", "values": {"code": {"kind": "exact", "value": 0}}}
            if code != 0:
                ended = {"status": "failed", "error": f"ended with {code}"}
            results[f"{library}_ends_well"] = ended | {"group": library}
    for name, result in results.items():
        if result["status"] != "done":
            print(f"{name}: {result['status']}: {result.get('error') or result.get('why')}")
    states = [result["status"] for result in results.values()]
    found = {"program": "others", "versions": versions, "seconds": seconds, "checks": results}
    if asked.json:
        with open(asked.json, "w") as file:
            json.dump(found, file, indent=1)
    print(f"{states.count('done')} done, {states.count('failed')} failed, {states.count('skipped')} skipped, {seconds}")
    return 1 if "failed" in states or "done" not in states else 0


if __name__ == "__main__":
    sys.exit(main())
