"""A contender that trains the same network in PyTorch, channels last.

A script for another environment, which has torch and nothing of this project: run it by its path.
"""

from __future__ import annotations

import importlib.util
import json
import os
import sys
from typing import Any

import torch  # pyright: ignore[reportMissingImports]
from protocol import Step, serve  # beside this script  # pyright: ignore[reportMissingImports]
from torch import nn  # pyright: ignore[reportMissingImports]
from torch.nn import functional  # pyright: ignore[reportMissingImports]

EMBEDDING_SIZE = 512
STANDARD_WIDTHS = [64, 64, 128, 256, 512]
EPSILON = 1e-5
SCALE, MARGIN = 64.0, 0.5


class Unit(nn.Module):
    """Improved-residual unit BN-Conv-BN-PReLU-Conv-BN, plus its input."""

    def __init__(self, before: int, channels: int, stride: int) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.BatchNorm2d(before, EPSILON),
            nn.Conv2d(before, channels, 3, 1, 1, bias=False),
            nn.BatchNorm2d(channels, EPSILON),
            nn.PReLU(channels),
            nn.Conv2d(channels, channels, 3, stride, 1, bias=False),
            nn.BatchNorm2d(channels, EPSILON),
        )
        self.shortcut = nn.Sequential()
        if stride > 1:
            self.shortcut.append(nn.Conv2d(before, channels, 1, stride, bias=False))
            self.shortcut.append(nn.BatchNorm2d(channels, EPSILON))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return the sum of the body and the shortcut."""
        return self.body(x) + self.shortcut(x)


class Encoder(nn.Sequential):
    """Images (N, 3, 112, 112) to embeddings (N, 512); parameters as `latse.symbols.encoders.ResNet`."""

    def __init__(self, units: list[int], widths: list[int], dropout: float) -> None:
        super().__init__(
            nn.Conv2d(3, widths[0], 3, 1, 1, bias=False), nn.BatchNorm2d(widths[0]), nn.PReLU(widths[0])
        )
        for count, before, channels in zip(units, widths, widths[1:]):
            for unit in range(count):
                self.append(Unit(channels if unit else before, channels, 1 if unit else 2))
        last = nn.BatchNorm1d(EMBEDDING_SIZE, EPSILON)
        last.weight.requires_grad = False
        self.append(nn.BatchNorm2d(widths[-1], EPSILON)).append(nn.Flatten()).append(nn.Dropout(dropout))
        self.append(nn.Linear(widths[-1] * 7 * 7, EMBEDDING_SIZE)).append(last)


class ArcFace(nn.Module):
    """Mean cross entropy with an angular margin at the target (Deng et al. 2019a)."""

    def __init__(self, classes: int) -> None:
        super().__init__()
        self.centres = nn.Parameter(torch.randn(classes, EMBEDDING_SIZE) * 0.01)

    def forward(self, embedding: torch.Tensor, label: torch.Tensor) -> torch.Tensor:
        """Return the loss from embeddings (N, 512) and labels (N,)."""
        cosines = functional.linear(functional.normalize(embedding), functional.normalize(self.centres))
        target = cosines.gather(1, label[:, None])
        moved = torch.cos(torch.arccos(target.clamp(-1 + 1e-6, 1 - 1e-6)) + MARGIN)
        return functional.cross_entropy(SCALE * cosines.scatter(1, label[:, None], moved), label)


def encoder(units: list[int], widths: list[int], iresnet: str | None) -> nn.Module:
    """Return insightface's own IResNet from its file where it has these widths, else `Encoder`."""
    if iresnet is None or widths != STANDARD_WIDTHS:
        return Encoder(units, widths, dropout=0.4)
    specification = importlib.util.spec_from_file_location("iresnet", iresnet)
    module = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(module)
    return module.IResNet(module.IBasicBlock, units, dropout=0.4)


def build(
    units: list[int],
    widths: list[int],
    iresnet: str | None,
    classes: int,
    batch_size: int,
    learning_rate: float,
) -> tuple[dict[str, Any], Step]:
    """Return the training of `encoder`'s network with ArcFace, as `serve` takes it."""
    torch.manual_seed(0)
    network = encoder(units, widths, iresnet).to(memory_format=torch.channels_last).train()
    head = ArcFace(classes)
    learned = [one for one in (*network.parameters(), *head.parameters()) if one.requires_grad]
    optimiser = torch.optim.SGD(learned, lr=learning_rate, momentum=0.9, weight_decay=5e-4)
    # Normalised float32 images, as its loaders give them.
    images = (torch.randint(0, 256, (batch_size, 3, 112, 112)).float() - 127.5) / 127.5
    images = images.contiguous(memory_format=torch.channels_last)
    labels = torch.randint(0, classes, (batch_size,))

    def step() -> dict[str, float]:
        loss = head(network(images), labels)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        return {"loss": loss.item()}

    count = sum(one.numel() for one in (*network.parameters(), *head.parameters()))
    return {"planned_megabytes": None, "parameters": count, "torch": torch.__version__}, step


if __name__ == "__main__":  # its one argument: those of `build`, in JSON
    if "OMP_NUM_THREADS" in os.environ:
        torch.set_num_threads(int(os.environ["OMP_NUM_THREADS"]))
    arguments = json.loads(sys.argv[1])
    serve(lambda: build(*arguments))
