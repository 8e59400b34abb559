"""Work to be measured, in a process that lives through all rounds: `bench.py` tells it on standard input what to do.

A line in is `{"work": name, "steps": count}`; a line out `{"seconds": s, "check": number}`: the wall time of that many steps and
one synchronisation behind them, or of each step with its own where a step's result is waited for.
"""

import json
import os
import sys
import time

import torch
import torch.nn.functional as F
from torch.utils.data import DataLoader, Dataset

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))

from models import Gpt, ResNet

DEVICE = "cuda"


class TrainingGpt:
    """A step of four layers, 256 wide, on 8 sequences of 256 words: eager, float32, AdamW. Nothing in it waits."""

    def __init__(self):
        self.model = Gpt().to(DEVICE)
        self.optimizer = torch.optim.AdamW(self.model.parameters(), 3e-4)
        self.words = torch.randint(0, 1024, (8, 257), device=DEVICE)

    def step(self):
        self.optimizer.zero_grad(set_to_none=True)
        # 256 words predict the 256 after them.
        loss = self.model(self.words)
        loss.backward()
        self.optimizer.step()
        return loss


class TrainingResNet:
    """A step of a ResNet of eight blocks on 64 images of 32 x 32: channels last, bfloat16 where autocast says, SGD."""

    def __init__(self):
        self.model = ResNet().to(DEVICE, memory_format=torch.channels_last)
        self.optimizer = torch.optim.SGD(self.model.parameters(), 0.01, momentum=0.9)
        self.images = torch.randn(64, 3, 32, 32, device=DEVICE).to(memory_format=torch.channels_last)
        self.labels = torch.randint(0, 10, (64,), device=DEVICE)

    def step(self, images=None, labels=None):
        images, labels = self.images if images is None else images, self.labels if labels is None else labels
        self.optimizer.zero_grad(set_to_none=True)
        with torch.autocast(DEVICE, torch.bfloat16):
            loss = F.cross_entropy(self.model(images).float(), labels)
        loss.backward()
        self.optimizer.step()
        return loss


class TrainingWithLog(TrainingGpt):
    """The same step as people write it, with `loss.item()` at its end: one wait for each."""

    def step(self):
        return torch.tensor(super().step().item())


class Inference:
    """The next word after 128, batch of one, its number awaited: eager."""

    def __init__(self):
        self.model = Gpt().to(DEVICE, torch.bfloat16).eval()
        self.words = torch.randint(0, 1024, (1, 128), device=DEVICE)

    def next(self, words):
        return self.model.scores(words)[:, -1].argmax(-1)

    def step(self):
        with torch.inference_mode():
            return torch.tensor(self.next(self.words).item())


class GraphedInference(Inference):
    """The same from CUDA graphs, one for each of sixteen numbers of words, in turn. How long a copy behind a graph takes depends
    on when the graph ends, by up to 8 µs (docs/performance.md, "Copies behind kernels"): one length would measure that."""

    LENGTHS = range(16, 257, 16)

    def __init__(self):
        super().__init__()
        with torch.inference_mode():
            self.captured = [self.capture(torch.randint(0, 1024, (1, length), device=DEVICE)) for length in self.LENGTHS]
        self.turn = 0

    def capture(self, words):
        stream = torch.cuda.Stream()
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            for _ in range(3):
                self.next(words)
        torch.cuda.current_stream().wait_stream(stream)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            result = self.next(words)
        return graph, result

    def step(self):
        graph, result = self.captured[self.turn]
        self.turn = (self.turn + 1) % len(self.captured)
        graph.replay()
        return torch.tensor(result.item())


class Images(Dataset):
    """Images that cost the worker a little."""

    def __len__(self):
        return 1 << 30

    def __getitem__(self, index):
        generator = torch.Generator().manual_seed(index)
        return torch.rand(3, 32, 32, generator=generator), index % 10


class LoadedTraining(TrainingResNet):
    """The ResNet's step, fed by a DataLoader: two forked workers, page-locked batches, copies that are not waited for."""

    def __init__(self):
        super().__init__()
        self.loader = iter(DataLoader(Images(), 64, num_workers=2, pin_memory=True, multiprocessing_context="fork"))

    def step(self):
        images, labels = (part.to(DEVICE, non_blocking=True) for part in next(self.loader))
        return super().step(images.to(memory_format=torch.channels_last), labels)


WORKS = {
    "gpt": TrainingGpt,
    "gpt-item": TrainingWithLog,
    "resnet": TrainingResNet,
    "loader": LoadedTraining,
    "inference": Inference,
    "graph": GraphedInference,
}


def main():
    torch.manual_seed(1)
    works = {}
    print(json.dumps({"pid": os.getpid(), "device": torch.cuda.get_device_name()}), flush=True)
    for line in sys.stdin:
        asked = json.loads(line)
        if asked["work"] not in works:
            works[asked["work"]] = WORKS[asked["work"]]()
        work = works[asked["work"]]
        torch.cuda.synchronize()
        begun = time.perf_counter()
        for _ in range(asked["steps"]):
            result = work.step()
        torch.cuda.synchronize()
        seconds = time.perf_counter() - begun
        print(json.dumps({"seconds": seconds, "check": result.item()}), flush=True)


if __name__ == "__main__":
    main()
