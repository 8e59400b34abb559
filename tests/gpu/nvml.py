"""Compares what CUDA, NVML, nvidia-smi and PyTorch say of a VM's memory. Run by nvml.sh, as a guest."""

import ctypes
import json
import os
import re
import subprocess
import sys
import time

QUOTA = int(os.environ["PXOS_QUOTA"])
MIB = 1 << 20
differences = []
figures = {}


def same(what, one, other, within=0):
    """Notes a difference of more than `within`."""
    if abs(one - other) > within:
        differences.append(f"{what}: {one} and {other}")


def holds(what, good):
    """Notes what does not hold."""
    if not good:
        differences.append(what)


def smi(*args, server=None):
    """Runs the real nvidia-smi with the guest's NVML."""
    env = dict(os.environ, **({"PXOS_SERVER": server} if server else {}))
    started = time.monotonic()
    done = subprocess.run(["nvidia-smi", *args], env=env, capture_output=True, text=True, timeout=60, check=False)
    figures.setdefault("nvidia_smi_seconds", []).append(round(time.monotonic() - started, 3))
    holds(f"nvidia-smi {' '.join(args)} ends with {done.returncode}: {done.stdout} {done.stderr}", done.returncode == 0)
    return done.stdout


class Torch:
    """Memory as PyTorch takes it."""

    def __init__(self):
        import torch

        self.torch = torch
        torch.zeros(1, device="cuda")
        self.held = None

    def take(self, size):
        self.held = self.torch.empty(size, dtype=self.torch.uint8, device="cuda")

    def give_back(self):
        self.held = None
        self.torch.cuda.synchronize()

    def empty(self):
        self.torch.cuda.empty_cache()
        self.torch.cuda.synchronize()

    def info(self):
        return self.torch.cuda.mem_get_info()

    def total(self):
        return self.torch.cuda.get_device_properties(0).total_memory

    def overflow(self):
        """Asks for more than the quota; what the error says."""
        try:
            self.torch.empty(QUOTA + (1 << 30), dtype=self.torch.uint8, device="cuda")
        except self.torch.OutOfMemoryError as error:
            return str(error)
        return ""


class Driver:
    """Memory as a program of the driver API takes it."""

    def __init__(self):
        self.cuda = ctypes.CDLL("libcuda.so.1")
        self.held = []
        context = ctypes.c_void_p()
        for result in (
            self.cuda.cuInit(0),
            self.cuda.cuDevicePrimaryCtxRetain(ctypes.byref(context), 0),
            self.cuda.cuCtxSetCurrent(context),
        ):
            assert result == 0, result

    def take(self, size):
        address = ctypes.c_uint64()
        result = self.cuda.cuMemAlloc_v2(ctypes.byref(address), ctypes.c_size_t(size))
        assert result == 0, result
        self.held.append(address)

    def give_back(self):
        pass

    def empty(self):
        for address in self.held:
            self.cuda.cuMemFree_v2(address)
        self.held = []
        self.info()

    def info(self):
        free, total = ctypes.c_size_t(), ctypes.c_size_t()
        assert self.cuda.cuMemGetInfo_v2(ctypes.byref(free), ctypes.byref(total)) == 0
        return free.value, total.value

    def total(self):
        total = ctypes.c_size_t()
        assert self.cuda.cuDeviceTotalMem_v2(ctypes.byref(total), 0) == 0
        return total.value

    def overflow(self):
        address = ctypes.c_uint64()
        result = self.cuda.cuMemAlloc_v2(ctypes.byref(address), ctypes.c_size_t(QUOTA + (1 << 30)))
        return f"result {result}"


class Nvml:
    """pynvml where it is installed, else the same calls by hand."""

    def __init__(self):
        try:
            import pynvml
        except ImportError:
            pynvml = None
        self.pynvml = pynvml
        figures["pynvml"] = bool(pynvml)
        if pynvml:
            pynvml.nvmlInit()
            self.device = pynvml.nvmlDeviceGetHandleByIndex(0)
            return
        self.library = ctypes.CDLL("libnvidia-ml.so.1")
        self.device = ctypes.c_void_p()
        assert self.library.nvmlInit_v2() == 0
        assert self.library.nvmlDeviceGetHandleByIndex_v2(0, ctypes.byref(self.device)) == 0

    def memory(self):
        """Total, free, used."""
        if self.pynvml:
            memory = self.pynvml.nvmlDeviceGetMemoryInfo(self.device)
            return memory.total, memory.free, memory.used
        memory = (ctypes.c_uint64 * 3)()
        assert self.library.nvmlDeviceGetMemoryInfo(self.device, memory) == 0
        return tuple(memory)

    def processes(self):
        """Bytes by process id."""
        if self.pynvml:
            return {p.pid: p.usedGpuMemory for p in self.pynvml.nvmlDeviceGetComputeRunningProcesses(self.device)}
        count, infos = ctypes.c_uint(64), (ctypes.c_uint64 * (3 * 64))()
        assert self.library.nvmlDeviceGetComputeRunningProcesses_v3(self.device, ctypes.byref(count), infos) == 0
        return {infos[3 * i] & 0xFFFFFFFF: infos[3 * i + 1] for i in range(count.value)}


def compare(program, nvml):
    """All of them at one moment."""
    free, total = program.info()
    nvml_total, nvml_free, nvml_used = nvml.memory()
    same("total by cuMemGetInfo and the quota", total, QUOTA)
    same("total by the driver API and by cuMemGetInfo", program.total(), total)
    same("total by NVML and by cuMemGetInfo", nvml_total, total)
    same("free by NVML and by cuMemGetInfo", nvml_free, free)
    same("used by NVML and the rest of its total", nvml_used, nvml_total - nvml_free)
    processes = nvml.processes()
    holds(f"process {os.getpid()} is in {processes}", os.getpid() in processes)
    same("used by the VM's one process and by the VM", processes.get(os.getpid(), 0), nvml_used)

    query = "memory.total,memory.used,memory.free,uuid,name,temperature.gpu,power.draw,clocks.sm,utilization.gpu"
    row = [cell.strip() for cell in smi(f"--query-gpu={query}", "--format=csv,noheader,nounits").split(",")]
    figures["query"] = row
    for name, cell, wanted in zip(("total", "used", "free"), row, (nvml_total, nvml_used, nvml_free)):
        # nvidia-smi rounds to MiB.
        same(f"{name} by nvidia-smi and by NVML", int(cell), wanted // MIB, within=1)
    apps = smi("--query-compute-apps=pid,used_memory", "--format=csv,noheader,nounits")
    holds(f"nvidia-smi lists this process: {apps}", str(os.getpid()) in apps)

    q = smi("-q")
    block = re.search(r"FB Memory Usage\s*\n((?:\s+\w+\s+: .*\n)+)", q)
    amounts = dict(re.findall(r"(\w+)\s+: (\d+) MiB", block.group(1))) if block else {}
    same("total by nvidia-smi -q and the quota", int(amounts.get("Total", 0)), QUOTA // MIB)
    same("used by nvidia-smi -q and by NVML", int(amounts.get("Used", 0)), nvml_used // MIB, within=1)
    holds("nvidia-smi -q names this process", re.search(rf"Process ID\s+: {os.getpid()}\b", q) is not None)

    table = smi()
    holds(f"nvidia-smi shows the quota:\n{table}", re.search(rf"/ +{QUOTA // MIB}MiB", table) is not None)
    holds(f"nvidia-smi shows this process:\n{table}", re.search(rf"\b{os.getpid()}\b", table) is not None)
    return nvml_used


def main():
    without_torch = "--without-torch" in sys.argv
    program = Driver() if without_torch else Torch()
    nvml = Nvml()
    program.empty()
    base = compare(program, nvml)
    program.take(1 << 30)
    held = compare(program, nvml)
    same("what 1 GiB adds to the VM's use", held - base, 1 << 30, within=2 * MIB)

    error = program.overflow()
    figures["out_of_memory"] = error
    wanted = "result 2" if without_torch else f"total capacity of {QUOTA / (1 << 30):.2f} GiB"
    holds(f"out of memory says '{wanted}': {error}", wanted in error)
    if not without_torch:
        # What PyTorch has from NVML: it looks for its own process id. It writes up to 1 GiB as MiB.
        told = re.search(r"this process has ([\d.]+) ([MG])iB memory in use", error)
        holds(f"out of memory says what this process holds: {error}", told is not None)
        if told:
            unit = MIB if told.group(2) == "M" else 1 << 30
            same("held by PyTorch's text and by NVML", float(told.group(1)) * unit, held, within=0.01 * unit)
    same("use before and after out of memory", nvml.memory()[2], held)

    program.give_back()
    if not without_torch:
        same("what PyTorch keeps when a tensor goes", nvml.memory()[2], held)
    program.empty()
    same("use after empty_cache", nvml.memory()[2], base)

    other = smi("--query-gpu=memory.total,memory.used", "--format=csv,noheader,nounits", server=os.environ["PXOS_OTHER"])
    holds(f"another VM sees its own quota and no use: {other}", other.split() == ["1000,", "0"])
    apps = smi("--query-compute-apps=pid", "--format=csv,noheader", server=os.environ["PXOS_OTHER"])
    holds(f"another VM sees no process: {apps}", not re.search(r"\d", apps))

    if "--json" in sys.argv:
        with open(sys.argv[sys.argv.index("--json") + 1], "w", encoding="utf-8") as file:
            json.dump({"differences": differences, **figures}, file, indent=1)
    for difference in differences:
        print(f"differs: {difference}")
    print("nvml: ok" if not differences else f"nvml: {len(differences)} differences")
    return 1 if differences else 0


if __name__ == "__main__":
    sys.exit(main())
