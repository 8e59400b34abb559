"""Two small models, for checks and for measurements."""

import torch
import torch.nn.functional as F
from torch import nn


class Block(nn.Module):
    """Attention and a perceptron, each beside a residual."""

    def __init__(self, width, heads):
        super().__init__()
        self.heads = heads
        self.before_attention, self.before_perceptron = nn.LayerNorm(width), nn.LayerNorm(width)
        self.inwards, self.outwards = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.perceptron = nn.Sequential(nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width))

    def forward(self, state):
        batch, length, width = state.shape
        parts = self.inwards(self.before_attention(state)).view(batch, length, 3, self.heads, -1).permute(2, 0, 3, 1, 4)
        attended = F.scaled_dot_product_attention(*parts, is_causal=True)
        state = state + self.outwards(attended.transpose(1, 2).reshape(batch, length, width))
        return state + self.perceptron(self.before_perceptron(state))


class Gpt(nn.Module):
    """A decoder; called with words it gives the loss of predicting each from those before it."""

    def __init__(self, vocabulary=1024, width=256, heads=8, layers=4, length=256):
        super().__init__()
        self.words, self.places = nn.Embedding(vocabulary, width), nn.Embedding(length, width)
        self.blocks = nn.Sequential(*(Block(width, heads) for _ in range(layers)))
        self.norm, self.head = nn.LayerNorm(width), nn.Linear(width, vocabulary, bias=False)

    def scores(self, words):
        """Scores of the word that follows each."""
        places = torch.arange(words.shape[1], device=words.device)
        return self.head(self.norm(self.blocks(self.words(words) + self.places(places))))

    def forward(self, words):
        return F.cross_entropy(self.scores(words[:, :-1]).flatten(0, 1), words[:, 1:].flatten())


class Residual(nn.Module):
    """Two convolutions beside what went in."""

    def __init__(self, given, width, stride):
        super().__init__()
        self.first = nn.Conv2d(given, width, 3, stride, 1, bias=False)
        self.second = nn.Conv2d(width, width, 3, 1, 1, bias=False)
        self.norms = nn.ModuleList([nn.BatchNorm2d(width), nn.BatchNorm2d(width)])
        self.past = nn.Conv2d(given, width, 1, stride, bias=False) if (given, 1) != (width, stride) else nn.Identity()

    def forward(self, state):
        inner = F.relu(self.norms[0](self.first(state)))
        return F.relu(self.norms[1](self.second(inner)) + self.past(state))


class ResNet(nn.Module):
    """A residual network of two blocks for each width."""

    def __init__(self, widths=(64, 128, 256, 512), classes=10):
        super().__init__()
        self.stem = nn.Conv2d(3, widths[0], 3, 1, 1, bias=False)
        blocks, given = [], widths[0]
        for index, width in enumerate(widths):
            blocks += [Residual(given, width, 1 if index == 0 else 2), Residual(width, width, 1)]
            given = width
        self.blocks, self.head = nn.Sequential(*blocks), nn.Linear(given, classes)

    def forward(self, images):
        return self.head(self.blocks(self.stem(images)).mean((2, 3)))
