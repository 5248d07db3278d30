"""How long is a training step next to the best that PyTorch does with the same network, and next to MONAI's networks?

    python -m benchmarks.compare [--networks=switch32,switch8x2] [--dtypes=float32,bfloat16] [--noquick]
    python -m benchmarks.compare --networks=switch32,switch8x2 --dtypes=float32 --noquick --rounds=10

The same network is built in PyTorch with the same weights, and its outputs, loss and gradients are checked equal
(1e-4 in float32) before anything is timed. Then PyTorch is tried in each of its forms (memory layouts,
torch.compile, on a GPU also CUDA graphs), and the fastest takes turns with our step and with MONAI's UNet and
BasicUNet, which are other architectures. A step is forward, loss, backward and Adam, with the default recipe's loss,
on one batch that lies on the device. Each framework has a process of its own that stands still while another's turn
runs, with as many threads as there are cores. Needs the extra "bench".
"""

import importlib.util
import os
from collections.abc import Callable, Sequence
from typing import Any

from absl import flags

os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")  # the frameworks share one GPU

from benchmarks import flags as common_flags
from benchmarks.measure import alternate, cores, environment, ratio, summary, write_result
from benchmarks.peers.agreement import compare_arrays, compare_gradients
from benchmarks.peers.case import Case
from benchmarks.peers.ours import Ours
from benchmarks.peers.worker import Worker, WorkerError
from tlseg_jax.runtime.errors import InputError

flags.adopt_module_key_flags(common_flags)
TF32 = flags.DEFINE_bool("tf32", True, "On a GPU: products of float32 rounded to TF32, on both sides or on neither.")

COMPILE = flags.DEFINE_bool("torch_compile", True, "Try torch.compile and CUDA graphs too.")

TOLERANCES = {
    "float32": {"outputs": 1e-4, "loss": 1e-4, "gradients": 1e-4},
    # Two roundings of the same network drift apart from layer to layer; gradients of noise are then mostly noise.
    "bfloat16": {"outputs": 0.1, "loss": 1e-2},
}
"""Of the differences on the checked batch, relative to the largest magnitude."""

Call = Callable[..., Any]
"""Of a method, by its name and its arguments."""

PEERS = {"": "pytorch", "UNet": "monai", "BasicUNet": "monai_basic"}
"""Network of MONAI, or the same network -> its name in a result."""

DRAWS = 3
"""Of weights, to be checked on."""

SCREENING = 3
"""Timed turns of each PyTorch form before the fastest goes on."""

NEAR = 1.2
"""Forms up to this many times as slow as the fastest are timed a second time."""


def differences(ours: Call, peer: Call, dtype: str, draw: int) -> dict[str, float]:
    """How far outputs, loss and gradients are apart on a small batch and one draw of weights."""
    expected = ours("check", dtype, draw)
    found = peer("check", {k: expected[k] for k in ("image", "label", "weights")}, dtype)
    all_ = {
        "outputs": compare_arrays(found["logits"], expected["logits"]),
        "loss": abs(found["loss"] - expected["loss"]) / abs(expected["loss"]),
        "gradients": compare_gradients(found["gradients"], expected["gradients"]),
    }
    return {what: all_[what] for what in TOLERANCES[dtype]}


def checked(ours: Call, peer: Call, dtype: str) -> dict[str, float]:
    """The differences of the first draw of weights for which all are within `TOLERANCES`, and its number.

    A ReLU or a pooling switch that stands on its edge falls to either side by rounding, and the gradients jump: then
    another draw decides. A network that is not the same differs in every draw.

    Raises:
      InputError: they are not the same network.
    """
    for draw in range(DRAWS):
        found = differences(ours, peer, dtype, draw)
        if all(found[what] <= tolerance for what, tolerance in TOLERANCES[dtype].items()):
            return found | {"draw": draw}
    worst = ", ".join(f"{what} by {d:.1e}" for what, d in found.items())
    raise InputError(
        f"PyTorch's results differ from ours in {dtype} in each of {DRAWS} draws of weights, in the last the {worst} "
        "of the largest value: it is not the same network, and nothing was timed."
    )


class _Peers:
    """PyTorch's processes: one for all forms, and one each for those that are CUDA graphs.

    A graph that fails on the device leaves its process without one.
    """

    def __init__(self, case: Case) -> None:
        from benchmarks.peers.pytorch import Pytorch

        self._make = lambda: Worker(Pytorch, case)
        self.first = self._make()
        self._started: tuple[Any, ...] = ()
        self._of: dict[Any, Worker] = {}

    def start(self, batch: dict[str, Any], weights: dict[str, Any]) -> None:
        """The batch and the weights of every form."""
        self._started = (batch, weights)
        self.first.call("start", *self._started)

    def call(self, method: str, form: Any, *given: Any) -> Any:
        """Call a method with a form, where that form lives."""
        if form.graph and form not in self._of:
            self._of[form] = self._make()
            self._of[form].call("start", *self._started)
        return self._of.get(form, self.first).call(method, form, *given)

    def drop(self, form: Any) -> None:
        """Give back what a form holds."""
        if form in self._of:
            self._of.pop(form).close()
        else:
            self.first.call("drop", form)

    def close(self) -> None:
        """End the processes."""
        for worker in (self.first, *self._of.values()):
            worker.close()


def _screen(peers: _Peers, forms: Sequence[Any], steps: int, tried: dict[str, Any], alone: float) -> list[Any]:
    """Build the forms, time them in turn, and give those that work, fastest first; `tried` gets a line of each."""
    built: dict[str, Any] = {}
    for form in forms:
        try:
            loss = peers.call("build", form)
            peers.call("turn", form, steps)  # what fails only when it is run again, such as a graph
        except WorkerError as e:
            tried[form.name] = {"failed": str(e)}
            if form.graph:
                peers.drop(form)
            continue
        tried[form.name] = {"first_loss": loss, "difference_from_ours": abs(loss - alone) / abs(alone)}
        built[form.name] = form
    turns = {name: lambda form=form: peers.call("turn", form, steps) for name, form in built.items()}
    for name, seconds in alternate(turns, SCREENING, warmup=0).items():
        tried[name] |= {"median_seconds": summary(seconds)["median"] / steps}
    return sorted(built.values(), key=lambda form: tried[form.name]["median_seconds"])


def compare(case: Case, rounds: int, torch_compile: bool = True) -> dict[str, Any]:
    """One network at one size and precision; see the module.

    Raises:
      InputError: the frameworks see different devices, or the networks differ.
    """
    from benchmarks.peers.pytorch import compiled, layouts, monai_forms

    ours, peers = Worker(Ours, case), _Peers(case)
    try:
        backend = ours.call("backend")
        if peers.first.call("backend") != backend:
            raise InputError(f"JAX runs on a {backend} and PyTorch does not: install the PyTorch for it.")
        # In float32 in any case: only there can equal mean equal.
        dtypes = dict.fromkeys(("float32", case.dtype))
        apart = {dtype: checked(ours.call, peers.first.call, dtype) for dtype in dtypes}
        result: dict[str, Any] = {"differences": apart}
        first = ours.call("build")
        peers.start(ours.call("batch"), ours.call("weights"))
        # A GPU is never waited for in training, so neither is it here within a turn.
        steps = 1 if backend == "cpu" else 10
        tried: dict[str, Any] = {}
        working = _screen(peers, layouts(case.size.network), steps, tried, first)
        if not working:
            raise InputError("PyTorch did not run in any form: " + "; ".join(f"{n}: {r}" for n, r in tried.items()))
        # The fastest once more, with those that may be as fast, and what the compiler makes of it.
        seconds_of = {form: tried[form.name]["median_seconds"] for form in working}
        near = [form for form in working if seconds_of[form] <= NEAR * seconds_of[working[0]]]
        for form in set(working) - set(near):
            peers.drop(form)
        finalists = [*near, *(compiled(working[0], backend) if torch_compile else ()), *monai_forms()]
        ranking = _screen(peers, finalists, steps, tried, first)
        # The fastest form of each network: "" is the same network, the others MONAI's.
        fastest = {form.monai: form for form in reversed(ranking)}
        for form in ranking:
            if form not in fastest.values():
                peers.drop(form)
        turns: dict[str, Callable[[], object]] = {"ours": lambda: ours.call("turn", steps)}
        for network, form in fastest.items():
            turns[PEERS[network]] = lambda form=form: peers.call("turn", form, steps)  # type: ignore[misc]
            tried[form.name]["parameters"] = peers.call("parameters", form)
        seconds = {name: [s / steps for s in all_] for name, all_ in alternate(turns, rounds, warmup=1).items()}
    finally:
        ours.close()
        peers.close()
    result |= {"first_loss": first, "steps_a_turn": steps, "pytorch_forms": tried, "best_pytorch": fastest[""].name}
    result |= {f"seconds_{name}": summary(s) for name, s in seconds.items()}
    result |= {f"ratio_to_{name}": ratio(seconds["ours"], s) for name, s in seconds.items() if name != "ours"}
    return result


def _line(name: str, dtype: str, r: dict[str, Any]) -> str:
    to = {n: r[f"ratio_to_{n}"] for n in PEERS.values() if f"ratio_to_{n}" in r}
    ratios = "".join(f"{v['median']:>8.2f} ({v['low']:.2f} to {v['high']:.2f})" for v in to.values())
    seconds = f"{r['seconds_ours']['median']:>9.4f}{r['seconds_pytorch']['median']:>9.4f}"
    return f"{name:<30}{dtype:<9}{seconds}{ratios}  {r['best_pytorch']}"


def main() -> None:
    """Compare, print the table and write the JSON."""
    for package in ("monai", "torch"):
        if importlib.util.find_spec(package) is None:
            raise InputError(f"{package} is not installed: pip install 'tlseg-jax[bench]'.")
    # Before PyTorch and MONAI are imported: what they import besides is no need of ours.
    started, reduced, cases = environment(), common_flags.quick(), []
    print(f"{'network':<30}{'':<9}{'ours':>9}{'PyTorch':>9}   ratio to PyTorch, MONAI's UNet, BasicUNet; best PyTorch")
    for size in common_flags.sizes():
        for dtype in common_flags.dtypes():
            found = compare(Case(size, dtype, TF32.value), common_flags.rounds(reduced), COMPILE.value)
            cases.append(size.case(dtype) | found)
            _write(started, cases)  # what is measured stays, whatever becomes of the next
            print(_line(size.name, dtype, found), flush=True)
            print("\n".join(f"    {n}: {_told(t)}" for n, t in found["pytorch_forms"].items()), flush=True)


def _write(started: dict[str, Any], cases: list[dict[str, Any]]) -> None:
    threads = {"threads_each": cores(), "tf32": TF32.value}
    result = {"environment": started, "sizes": common_flags.kind()} | threads | {"cases": cases}
    write_result("compare", result, common_flags.OUT.value)


def _told(tried: dict[str, Any]) -> str:
    return tried["failed"] if "failed" in tried else f"{tried['median_seconds']:.4f} s when tried"


if __name__ == "__main__":
    common_flags.run(main)
