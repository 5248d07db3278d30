"""PyTorch's side: the same step in the forms that PyTorch users reach for to make it fast, and MONAI's U-Net."""

import dataclasses
import time
import warnings
from collections.abc import Callable
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from benchmarks.measure import cores
from benchmarks.peers import monai_networks, torch_networks
from benchmarks.peers.carry import Arrays
from benchmarks.peers.case import Case
from tlseg_jax.models.networks import get_network, is_exclusive

Compile = Literal["no", "default", "reduce-overhead"]


@dataclasses.dataclass(frozen=True)
class Form:
    """One way to run the PyTorch step.

    Attributes:
      channels_last: memory layout of parameters and activations.
      compile: `torch.compile`'s mode, or "no".
      keep_layout: whether un-pooled activations are put back into channels-last, which `max_unpool3d` is not.
      graph: whether the whole step is captured once as a CUDA graph and then replayed.
      monai: a network of MONAI in place of the same network, a name of `monai_networks.NETWORKS`, or "".
    """

    channels_last: bool = False
    compile: Compile = "no"
    keep_layout: bool = True
    graph: bool = False
    monai: str = ""

    @property
    def name(self) -> str:
        """For tables: "channels_last, compiled"."""
        parts = [f"MONAI {self.monai}"] if self.monai else []
        parts += ["channels_last" if self.channels_last else "contiguous"]
        parts += [] if self.keep_layout else ["layout lost in un-pooling"]
        parts += [] if self.compile == "no" else [f"torch.compile({self.compile})"]
        parts += ["CUDA graph"] if self.graph else []
        return ", ".join(parts)


def layouts(network: str) -> tuple[Form, ...]:
    """The forms of a network without a compiler."""
    both = (Form(), Form(channels_last=True))
    un_pools = get_network(network).up == "switch"
    return (*both, Form(channels_last=True, keep_layout=False)) if un_pools else both


def compiled(form: Form, backend: str) -> tuple[Form, ...]:
    """A form with each of `torch.compile`'s modes that make sense on a backend, and as a CUDA graph where there are."""
    if backend != "gpu":
        return (dataclasses.replace(form, compile="default"),)
    ways: tuple[tuple[Compile, bool], ...] = (("reduce-overhead", False), ("default", True), ("no", True))
    return tuple(dataclasses.replace(form, compile=compile, graph=graph) for compile, graph in ways)


def monai_forms() -> tuple[Form, ...]:
    """MONAI's networks in both memory layouts."""
    return tuple(Form(channels_last=last, monai=name) for name in monai_networks.NETWORKS for last in (False, True))


def patch_loss(logits: Tensor, label: Tensor) -> Tensor:
    """`losses.cross_entropy_dice` of two outputs: (batch, 2, ...) and (batch, ...) int64 -> scalar."""
    log = F.log_softmax(logits.float(), 1)
    p, t = log[:, 1].exp(), label.float()
    return F.nll_loss(log, label) + 1 - (2 * (p * t).sum() + 1) / (p.sum() + t.sum() + 1)


def slice_loss(logits: Tensor, target: Tensor) -> Tensor:
    """`losses.cross_entropy_dice` of sigmoids: (batch, outputs, x, y) both -> scalar."""
    logits, axes = logits.float(), (0, 2, 3)
    p = logits.sigmoid()
    overlap, sizes = (p * target).sum(axes), p.sum(axes) + target.sum(axes)
    return F.binary_cross_entropy_with_logits(logits, target) + (1 - (2 * overlap + 1) / (sizes + 1)).mean()


class Pytorch:
    """The PyTorch side of one case."""

    def __init__(self, case: Case) -> None:
        """Take a case; nothing is built yet."""
        self.case, self.config = case, get_network(case.size.network)
        self.device = "cuda" if torch.cuda.is_available() else "cpu"
        self.loss = patch_loss if is_exclusive(self.config) else slice_loss
        self._steps: dict[Form, Callable[[], Tensor]] = {}
        self._weights: Arrays = {}
        torch.set_num_threads(cores())
        torch.backends.cudnn.benchmark = True
        # What the compiler has to say is in its errors, which are reported.
        warnings.filterwarnings("ignore", module="torch")

    def backend(self) -> str:
        """ "cpu" or "gpu"."""
        return "gpu" if self.device == "cuda" else "cpu"

    def check(self, given: dict[str, Any], dtype: str) -> dict[str, Any]:
        """What `Ours.check` gives, by PyTorch: the network with those weights in training mode, without TF32."""
        _allow_tf32(False)
        config = dataclasses.replace(self.config, dropout=0.0)
        network = self._network(config, given["weights"])
        image, target = self._place(given)
        with torch.autocast(self.device, torch.bfloat16, enabled=dtype == "bfloat16"):
            logits = network(image)
        loss = self.loss(logits, target)
        loss.backward()  # type: ignore[no-untyped-call]
        return {
            "logits": logits.detach().float().cpu().numpy(),
            "loss": loss.item(),
            "gradients": {n: p.grad.float().cpu().numpy() for n, p in network.named_parameters() if p.grad is not None},
        }

    def start(self, batch: dict[str, Any], weights: Arrays) -> None:
        """Keep the batch that is timed and the weights that every form starts from."""
        _allow_tf32(self.case.tf32)
        self._batch, self._weights = batch, weights

    def build(self, form: Form) -> float:
        """Make a form's step and do it once; gives the loss before it."""
        image, target = self._place(self._batch)
        if form.monai:
            network = monai_networks.build(self.config, form.monai).to(self.device)
            image, target = monai_networks.pad(self.config, image), monai_networks.pad(self.config, target)
        else:
            network = self._network(self.config, self._weights)
        if isinstance(network, torch_networks.UNet):
            network.keep_layout = form.keep_layout
        if form.channels_last:
            layout = torch.channels_last if self.config.dimensions == 2 else torch.channels_last_3d
            network, image = network.to(memory_format=layout), image.contiguous(memory_format=layout)  # type: ignore[call-overload]
        optimiser = torch.optim.Adam(network.parameters(), 1e-3, fused=True, capturable=form.graph)
        half = self.case.dtype == "bfloat16"

        def loss_of(image: Tensor, target: Tensor) -> Tensor:
            with torch.autocast(self.device, torch.bfloat16, enabled=half):
                logits = network(image)
            return self.loss(logits, target)

        if form.compile != "no":
            loss_of = torch.compile(loss_of, dynamic=False, mode=form.compile)

        def step() -> Tensor:
            optimiser.zero_grad(set_to_none=True)
            loss = loss_of(image, target)
            loss.backward()  # type: ignore[no-untyped-call]
            optimiser.step()
            return loss.detach()

        first = step().item()
        self._steps[form] = _captured(step) if form.graph else step
        return first

    def drop(self, form: Form) -> None:
        """Forget a form, and give its memory back."""
        self._steps.pop(form, None)
        if self.device == "cuda":
            torch.cuda.empty_cache()

    def turn(self, form: Form, steps: int) -> float:
        """Seconds a step of so many in a row; the host waits for the last only."""
        step = self._steps[form]
        start = time.perf_counter()
        for _ in range(steps):
            step()
        if self.device == "cuda":
            torch.cuda.synchronize()
        return (time.perf_counter() - start) / steps

    def parameters(self, form: Form) -> int:
        """Number of trainable values of a form's network."""
        monai = form.monai
        network = monai_networks.build(self.config, monai) if monai else torch_networks.UNet(self.config)
        return sum(p.numel() for p in network.parameters())

    def _network(self, config: Any, weights: Arrays) -> nn.Module:
        network = torch_networks.UNet(config)
        missing, unknown = network.load_state_dict({k: torch.tensor(v) for k, v in weights.items()}, strict=False)
        missing = [m for m in missing if not m.endswith("num_batches_tracked")]
        if missing or unknown:
            raise ValueError(f"{config.name}: the PyTorch network lacks {unknown} and is not given {missing}")
        return network.to(self.device).train()

    def _place(self, batch: dict[str, Any]) -> tuple[Tensor, Tensor]:
        image, label = torch.tensor(batch["image"]), torch.tensor(batch["label"], dtype=torch.int64)
        if not is_exclusive(self.config):
            bits = torch.arange(len(self.config.outputs)).view(1, -1, *(1,) * self.config.dimensions)
            label = (label[:, None] >> bits & 1).float()
        return image.to(self.device), label.to(self.device)


def _captured(step: Callable[[], Tensor]) -> Callable[[], Tensor]:
    """The step as one CUDA graph: its kernels are launched again with no work of the host between them."""
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):  # lazily made workspaces and autotuning must be done before
        for _ in range(3):
            step()
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        loss = step()

    def replay(kept: Callable[[], Tensor] = step) -> Tensor:
        # A graph reads and writes addresses: the step's batch, network and optimiser must not be given back.
        graph.replay()
        return loss

    return replay


def _allow_tf32(allowed: bool) -> None:
    torch.backends.cudnn.allow_tf32 = allowed
    torch.backends.cuda.matmul.allow_tf32 = allowed
