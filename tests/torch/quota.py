"""What PyTorch in a VM with a memory quota is told, beside what the server counts.

As a program it is the guest: it does a step for each line that it is given, and says what it sees then.
"""

import json
import os
import subprocess
import sys

LIMIT = "8G"
BYTES = 8 << 30
BLOCK = 2 << 30


def measure(server, vm, preload):
    """Runs the guest step by step; what both sides said at each."""
    environment = os.environ | server.environment(vm, preload)
    guest = subprocess.Popen(
        [sys.executable, os.path.abspath(__file__)], env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    steps = {}
    try:
        for step in ("start", "allocate", "fill", "free", "empty"):
            guest.stdin.write(step + "\n")
            guest.stdin.flush()
            line = guest.stdout.readline()
            if not line:
                break
            (shown,) = server.ask(op="vm.show", name=vm)["vms"]
            steps[step] = json.loads(line) | {"charged": shown["memory"]["charged"], "limit": shown["memory"]["limit"]}
    finally:
        guest.stdin.close()
        guest.wait(60)
    return {"steps": steps, "left": server.held(vm)}


def table(found):
    """Prints what was seen; whether both sides say the same."""
    steps = found["steps"]
    print(f"\nquota of {LIMIT}\n{'step':<10}{'total MiB':>11}{'free MiB':>10}{'reserved':>10}{'charged':>10}")
    for name, step in steps.items():
        numbers = (step[key] >> 20 for key in ("total", "free", "reserved", "charged"))
        print(f"{name:<10}" + "".join(f"{number:>{width}}" for number, width in zip(numbers, (11, 10, 10, 10))))
    if len(steps) < 5:
        print("the guest did not do all steps")
        return False
    start, allocated, full, free, empty = steps.values()
    wanted = {
        "the device's memory is the quota": start["total"] == start["properties"] == start["limit"] == BYTES,
        "free is what is not charged": all(step["total"] - step["free"] == step["charged"] for step in steps.values()),
        "a block is charged once": BLOCK <= allocated["charged"] - start["charged"] < BLOCK + (64 << 20),
        "out of memory tells the quota": f"total capacity of {BYTES / (1 << 30):.2f} GiB" in full.get("error", ""),
        "out of memory at the quota": BYTES - (1 << 30) < full["charged"] <= BYTES,
        "freed blocks stay charged while cached": free["charged"] == full["charged"],
        "empty_cache gives everything back": empty["charged"] <= start["charged"],
        "nothing is left after the end": found["left"] == 0,
    }
    for text, holds in wanted.items():
        print(f"  {'yes' if holds else 'NO ':<4}{text}")
    found["holds"] = wanted
    return all(wanted.values())


def guest():
    """The program in the VM."""
    import torch

    torch.empty(1, device="cuda")
    torch.cuda.empty_cache()
    held, error = [], ""
    for line in sys.stdin:
        step = line.strip()
        if step == "allocate":
            held.append(torch.empty(BLOCK, dtype=torch.uint8, device="cuda"))
        elif step == "fill":
            try:
                while True:
                    held.append(torch.empty(BLOCK // 4, dtype=torch.uint8, device="cuda"))
            except torch.OutOfMemoryError as refused:
                error = str(refused)
        elif step == "free":
            held.clear()
        elif step == "empty":
            torch.cuda.empty_cache()
        torch.cuda.synchronize()
        free, total = torch.cuda.mem_get_info()
        properties = torch.cuda.get_device_properties(0).total_memory
        said = {"free": free, "total": total, "properties": properties, "reserved": torch.cuda.memory_reserved()}
        print(json.dumps(said | {"error": error}), flush=True)


if __name__ == "__main__":
    guest()
