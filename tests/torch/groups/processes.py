"""Several processes: CUDA IPC, DataLoader workers, NCCL."""

import os
import tempfile

import torch
import torch.distributed as distributed
import torch.multiprocessing as multiprocessing
from torch.utils.data import DataLoader, Dataset

from groups.blas import normal
from registry import check

PATIENCE = 60  # seconds until a queue's silence is a failure


class Squares(Dataset):
    """Rows that anybody can compute."""

    def __init__(self, count):
        self.count = count

    def __len__(self):
        return self.count

    def __getitem__(self, index):
        return torch.full((100,), float(index * index)), index


def loaded(device, **options):
    """Sums of all batches, moved to the device without waiting."""
    loader = DataLoader(Squares(64), batch_size=8, num_workers=2, pin_memory=True, **options)
    sums, pinned = [], []
    for _ in range(2):
        for rows, indices in loader:
            pinned.append(rows.is_pinned())
            sums.append(rows.to(device, non_blocking=True).sum() + indices.to(device, non_blocking=True).sum())
    return {"sums": torch.stack(sums), "pinned": all(pinned)}


@check
def loader_with_forked_workers(device):
    """Forked after this process has begun to use CUDA, which the workers do not."""
    torch.zeros(1, device=device)
    return loaded(device, multiprocessing_context="fork")


@check
def loader_with_spawned_workers(device):
    return loaded(device, multiprocessing_context="spawn", persistent_workers=True)


@check
def loader_collating_in_this_process(device):
    loader = DataLoader(Squares(40), batch_size=10, pin_memory=True, pin_memory_device="")
    return {"sums": torch.stack([rows.to(device, non_blocking=True).sum() for rows, _ in loader])}


def doubles(asks, tells):
    """A process that doubles what it is given, in place, and gives back something of its own."""
    while (given := asks.get(timeout=PATIENCE)) is not None:
        given.mul_(2)
        torch.cuda.synchronize()
        mine = torch.arange(1000, device="cuda", dtype=torch.float32) + given[0]
        tells.put(mine)
        asks.get(timeout=PATIENCE)  # mine has been read
        del mine, given


def shared_with_a_child(device, method):
    """Two rounds of handing tensors to a process and back, without copies."""
    context = multiprocessing.get_context(method)
    asks, tells = context.Queue(), context.Queue()
    child = context.Process(target=doubles, args=(asks, tells))
    child.start()
    found = {}
    for index in range(2):
        given = torch.full((100_000,), float(index + 1), device=device)
        part = given[50:]  # a view inside a block: an offset into what is shared
        asks.put(part)
        answer = tells.get(timeout=PATIENCE)
        found[f"doubled {index}"], found[f"answer {index}"] = given.clone(), answer.clone()
        del answer
        asks.put(True)
    asks.put(None)
    child.join(PATIENCE)
    return found | {"exit": child.exitcode}


@check(alone=True)
def tensors_shared_with_a_forked_process(device):
    # Forked before CUDA is used here, or it could not use it there.
    return shared_with_a_child(device, "fork")


@check
def tensors_shared_with_a_spawned_process(device):
    return shared_with_a_child(device, "spawn")


def waits_for(event_handle, given, tells):
    event = torch.cuda.Event.from_ipc_handle(torch.device("cuda", 0), event_handle)
    event.wait()
    tells.put(given.sum().item())


@check(alone=True)
def events_shared_with_a_process(device):
    """The other process's stream waits for an event of this one."""
    context = multiprocessing.get_context("fork")
    asks, tells = context.Queue(), context.Queue()

    child = context.Process(target=lambda: waits_for(*asks.get(timeout=PATIENCE), tells))
    child.start()
    given = torch.ones(1_000_000, device=device)
    event = torch.cuda.Event(interprocess=True)
    torch.cuda._sleep(20_000_000)
    given.mul_(3)
    event.record()
    asks.put((event.ipc_handle(), given))
    total = tells.get(timeout=PATIENCE)
    child.join(PATIENCE)
    return {"sum": total, "exit": child.exitcode}


def touches_cuda(tells):
    try:
        torch.zeros(1, device="cuda")
        tells.put("it worked")
    except RuntimeError as error:
        tells.put(str(error).splitlines()[0])


@check
def cuda_in_a_forked_process_is_refused(device):
    torch.zeros(1, device=device)
    context = multiprocessing.get_context("fork")
    tells = context.Queue()
    child = context.Process(target=touches_cuda, args=(tells,))
    child.start()
    said = tells.get(timeout=PATIENCE)
    child.join(PATIENCE)
    return {"said": said, "and here": torch.ones(10, device=device).sum()}


@check(alone=True)
def collectives(device):
    """NCCL with one process: communicators, and every kind of collective."""
    with tempfile.TemporaryDirectory() as folder:
        store = distributed.FileStore(os.path.join(folder, "store"), 1)
        torch.cuda.set_device(0)
        distributed.init_process_group("nccl", store=store, rank=0, world_size=1)
        given = normal(1000)
        found = {}
        summed = given.clone()
        distributed.all_reduce(summed)
        found["summed"] = summed
        parts = [torch.empty_like(given)]
        distributed.all_gather(parts, given)
        found["gathered"] = parts[0]
        scattered = torch.empty_like(given)
        distributed.reduce_scatter_tensor(scattered, given, op=distributed.ReduceOp.AVG)
        found["scattered"] = scattered
        distributed.broadcast(summed, 0)
        distributed.barrier()
        work = distributed.all_reduce(summed, async_op=True)
        work.wait()
        group = distributed.new_group([0])
        distributed.all_reduce(summed, group=group)
        model = torch.nn.parallel.DistributedDataParallel(torch.nn.Linear(20, 5).to(device), device_ids=[0])
        model(normal(8, 20)).sum().backward()
        found["gradient"] = model.module.weight.grad
        found["again"] = summed
        torch.cuda.synchronize()
        distributed.destroy_process_group()
        return found
