"""Streams and events."""

import threading

import torch

from groups.blas import normal
from record import Info
from registry import check

BUSY = 2_000_000  # cycles: about a millisecond


@check
def stream_order(device):
    """Work waits for another stream's event, however long that takes."""
    one, other = torch.cuda.Stream(), torch.cuda.Stream()
    given = torch.zeros(1000, device=device)
    torch.cuda.synchronize()
    event = torch.cuda.Event()
    with torch.cuda.stream(one):
        torch.cuda._sleep(BUSY)
        given.add_(1)
        event.record()
    with torch.cuda.stream(other):
        other.wait_event(event)
        given.mul_(5)
        doubled = given * 2
    torch.cuda.current_stream().wait_stream(other)
    return {"given": given.clone(), "doubled": doubled.clone()}


@check
def stream_priorities(device):
    least, greatest = torch.cuda.Stream.priority_range()
    high, low = torch.cuda.Stream(priority=greatest), torch.cuda.Stream(priority=0)
    sums = []
    for stream in (high, low):
        with torch.cuda.stream(stream):
            sums.append(torch.arange(10_000, device=device).sum())
        stream.synchronize()
    return {"range": [least, greatest], "priorities": [high.priority, low.priority], "sums": sums}


@check
def event_times(device):
    begin, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
    begin.record()
    torch.cuda._sleep(20 * BUSY)
    end.record()
    unfinished = end.query()
    end.synchronize()
    milliseconds = begin.elapsed_time(end)
    return {
        "unfinished": unfinished,
        "finished": end.query(),
        "plausible": 5.0 < milliseconds < 200.0,
        "milliseconds": Info(milliseconds),
    }


@check
def queries(device):
    stream = torch.cuda.Stream()
    stream.synchronize()
    with torch.cuda.stream(stream):
        torch.cuda._sleep(20 * BUSY)
    busy = stream.query()
    stream.synchronize()
    blocking = torch.cuda.Event(blocking=True)
    blocking.record(stream)
    blocking.synchronize()
    return {"busy": busy, "idle": stream.query(), "default": torch.cuda.default_stream().query()}


@check
def recorded_streams(device):
    """The allocator does not give a block out while another stream uses it."""
    stream = torch.cuda.Stream()
    results = []
    for index in range(10):
        given = torch.full((200_000,), float(index), device=device)
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            torch.cuda._sleep(BUSY // 4)
            results.append(given.sum())
        given.record_stream(stream)
        del given
        torch.full((200_000,), -1.0, device=device)  # would land in the same block
    torch.cuda.current_stream().wait_stream(stream)
    return {"sums": torch.stack(results)}


@check
def external_streams(device):
    own = torch.cuda.Stream()
    foreign = torch.cuda.ExternalStream(own.cuda_stream)
    with torch.cuda.stream(foreign):
        result = torch.arange(5000, device=device).float().sum()
    foreign.synchronize()
    return {"sum": result, "same": foreign.cuda_stream == own.cuda_stream}


@check
def threads_and_streams(device):
    """Four threads, each on a stream of its own, with products and copies."""
    given = [normal(128, 128) for _ in range(4)]
    found = [None] * 4
    torch.cuda.synchronize()

    def work(index):
        stream = torch.cuda.Stream()
        with torch.cuda.stream(stream):
            state = given[index]
            for _ in range(30):
                state = torch.tanh(state @ given[index] * 0.05)
            found[index] = state.cpu()

    threads = [threading.Thread(target=work, args=(index,)) for index in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return {"results": torch.stack(found)}


@check
def many_streams(device):
    """More streams than PyTorch's pool has: some are the same."""
    streams = [torch.cuda.Stream() for _ in range(80)]
    sums = []
    for index, stream in enumerate(streams):
        with torch.cuda.stream(stream):
            sums.append(torch.full((100,), index, device=device).sum())
    torch.cuda.synchronize()
    return {"sums": torch.stack(sums), "different": len({stream.cuda_stream for stream in streams})}


@check
def overlapping_copies(device):
    """Copies in and out on their own streams around work, in a pipeline."""
    streams = {name: torch.cuda.Stream() for name in ("in", "work", "out")}
    source = torch.arange(8 * 100_000, dtype=torch.float32).view(8, -1).pin_memory()
    target = torch.empty_like(source).pin_memory()
    for index in range(8):
        with torch.cuda.stream(streams["in"]):
            there = source[index].to(device, non_blocking=True)
        streams["work"].wait_stream(streams["in"])
        with torch.cuda.stream(streams["work"]):
            done = there.sqrt() + index
        there.record_stream(streams["work"])
        streams["out"].wait_stream(streams["work"])
        with torch.cuda.stream(streams["out"]):
            target[index].copy_(done, non_blocking=True)
        done.record_stream(streams["out"])
    torch.cuda.synchronize()
    return {"target": target}
