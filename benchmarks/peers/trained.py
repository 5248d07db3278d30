"""A whole training by PyTorch with MONAI's networks, as their users would set it up: data in, label maps out."""

import math
import time
from collections.abc import Mapping

import numpy as np
import torch
import torch.nn.functional as F
from monai.losses import DiceCELoss
from numpy.typing import NDArray
from torch import Tensor

from benchmarks.measure import cores
from benchmarks.peers import monai_networks, torch_networks

WEIGHT_DECAY = 1e-5
WIDTHS = (16, 32, 64, 128)
DIVISOR = 16
"""Of the sides, for the deepest of them."""
RATES: Mapping[str, float] = {"BasicUNet": 1e-3, "UNet": 3e-3, "SegResNet": 1e-3, "DynUNet": 1e-3}
"""AdamW's highest rate of each."""


class Training:
    """A training of one of them on patches of one size, for so many seconds."""

    def __init__(self, name: str, outputs: int, images: NDArray[np.float32], labels: NDArray[np.uint8], seed: int):
        """Take the network's name and the patches (count, *sides); nothing is timed yet."""
        torch.manual_seed(seed)
        torch.set_num_threads(cores())
        self.device = "cuda" if torch.cuda.is_available() else "cpu"
        self.rng = np.random.default_rng(seed)
        self.rate, dimensions = RATES[name], images.ndim - 1
        self.network = monai_networks.make(name, WIDTHS, dimensions, 1, outputs).to(self.device)
        self.images, self.labels = torch.tensor(images)[:, None], torch.tensor(labels)[:, None]
        self.loss = DiceCELoss(include_background=False, to_onehot_y=True, softmax=True, batch=True)

    def fastest(self, batch: int) -> tuple[bool, bool]:
        """(channels last, bfloat16) of the form whose step takes least on this machine."""
        seconds = {}
        for last in (False, True):
            for half in (False, True):
                self._lay(last)
                optimiser = torch.optim.AdamW(self.network.parameters(), 0.0)
                for _ in range(3):
                    start = time.perf_counter()
                    self._step(optimiser, batch, half, flip=False)
                    seconds[last, half] = time.perf_counter() - start
        return min(seconds, key=lambda k: seconds[k])

    def train(self, until: float, begun: float, batch: int, last: bool, half: bool, flip: bool) -> int:
        """Train until the clock (`time.time`) says `until`; the rate goes by the share of the time since `begun`.

        Returns:
          The steps that were done.
        """
        self._lay(last)
        optimiser = torch.optim.AdamW(self.network.parameters(), self.rate, weight_decay=WEIGHT_DECAY)
        steps = 0
        while (now := time.time()) < until:
            share = (now - begun) / (until - begun)
            for group in optimiser.param_groups:
                group["lr"] = self.rate * min(1, (steps + 1) / 20) * (0.01 + 0.99 * (1 + math.cos(math.pi * share)) / 2)
            self._step(optimiser, batch, half, flip)
            steps += 1
        return steps

    @torch.no_grad()
    def predict(self, image: NDArray[np.float32]) -> NDArray[np.uint8]:
        """The output of the highest logit in each voxel of a patch (*sides)."""
        self.network.eval()
        logits = self.network(self._padded(torch.tensor(image)[None, None]).to(self.device))
        found = logits.argmax(1)[(0, *(slice(s) for s in image.shape))].cpu().numpy().astype(np.uint8)
        self.network.train()
        return found  # type: ignore[no-any-return]

    def _lay(self, last: bool) -> None:
        by_channel = torch.channels_last if self.images.ndim == 4 else torch.channels_last_3d
        self.layout = by_channel if last else torch.contiguous_format
        self.network = self.network.to(memory_format=self.layout)  # type: ignore[call-overload]

    def _padded(self, x: Tensor) -> Tensor:
        return torch_networks.pad(x, DIVISOR, x.ndim - 2)

    def _step(self, optimiser: torch.optim.Optimizer, batch: int, half: bool, flip: bool) -> None:
        chosen = self.rng.integers(len(self.images), size=batch)
        image, label = augmented(self.images[chosen].float(), self.labels[chosen].float(), self.rng, flip)
        image, label = self._padded(image).to(self.device, memory_format=self.layout), self._padded(label)
        optimiser.zero_grad(set_to_none=True)
        with torch.autocast(self.device, torch.bfloat16, enabled=half):
            logits = self.network(image)
        self.loss(logits.float(), label.to(self.device)).backward()
        optimiser.step()


def augmented(image: Tensor, label: Tensor, rng: np.random.Generator, flip: bool) -> tuple[Tensor, Tensor]:
    """Flips, rotation to 10 degrees, scaling to 10%, shift to 4%, contrast, brightness, noise: as ours are drawn."""
    count, dims = len(image), image.ndim - 2
    matrices = np.zeros((count, dims, dims + 1))
    for m in matrices:
        turned = np.eye(dims)
        for a in range(dims):
            for b in range(a + 1, dims):
                angle, plane = np.deg2rad(rng.uniform(-10, 10)), np.eye(dims)
                plane[[a, a, b, b], [a, b, a, b]] = np.cos(angle), -np.sin(angle), np.sin(angle), np.cos(angle)
                turned = turned @ plane
        m[:, :dims] = turned * rng.uniform(0.9, 1.1, dims)
        m[:, dims] = rng.uniform(-0.08, 0.08, dims)
    grid = F.affine_grid(torch.tensor(matrices, dtype=torch.float32), list(image.shape), align_corners=False)
    image = F.grid_sample(image, grid, padding_mode="border", align_corners=False)
    label = F.grid_sample(label, grid, mode="nearest", padding_mode="border", align_corners=False)
    if flip:
        for i in range(count):
            if rng.random() < 0.5:
                image[i], label[i] = image[i].flip(1), label[i].flip(1)

    def draw(low: float, high: float) -> Tensor:
        return torch.tensor(rng.uniform(low, high, (count, *(1,) * (dims + 1))), dtype=torch.float32)

    image = image * draw(0.8, 1.25) + draw(-0.2, 0.2)
    return image + draw(0, 0.1) * torch.randn_like(image), label
