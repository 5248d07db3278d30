"""What does a training step keep and take in memory, and what is the largest that fits a card of so many GB?

    python -m benchmarks.memory_limits [--networks=switch32] [--dtypes=float32,bfloat16] [--remats=none,block,full]
        [--gb=8,11,16,24,40,80,141]

Always at the papers' sizes, as on a CPU nothing is run:

  residuals   what the forward pass computes and the backward pass reads: distinct arrays, by the step's trace
  trace peak  the most that is alive at once besides state and batch, by the step's trace (`tlseg_jax.train.liveness`)
  compiled    the compiler's own figure for that: on a GPU for all; XLA:CPU's only for float32 with nothing computed
              again, as it undoes the other two
  measured    on a GPU: the most that was in use while training two steps, each case in a process of its own

The largest patch (a cube or square of the papers' batch) and the largest batch (of the papers' patch) for each
card: on a GPU found by compiling, for cards up to its own memory; elsewhere by the trace, as the result says.
On a GPU the time of rematerialisation is taken too, policies in turn. Each result is written as soon as it is there.
"""

import dataclasses
import functools
import json
import math
import os
import subprocess
import sys
from collections.abc import Callable
from typing import Any

os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")  # a case in another process needs the GPU's memory

import jax
import jax.numpy as jnp
from absl import flags

from benchmarks import flags as common_flags
from benchmarks.measure import alternate, ratio, summary, write_result
from benchmarks.sizes import PAPERS, WHOLE_HEAD, Size
from benchmarks.steps import STEPS, assemble, keep_those_that_fit, objective, recipe_of, runner
from tlseg_jax.checkpoints.state import init_state
from tlseg_jax.models.lowering.conv import Lowering
from tlseg_jax.models.networks import get_network, variable_shapes
from tlseg_jax.models.remat import Remat
from tlseg_jax.runtime.choose import choose
from tlseg_jax.runtime.device_memory import device_capacity, out_of_memory
from tlseg_jax.runtime.errors import InputError
from tlseg_jax.train.liveness import count_bytes
from tlseg_jax.train.memory import POLICIES
from tlseg_jax.train.optimiser import make_optimiser
from tlseg_jax.train.step import Step, batch_inputs, make_train_step
from tlseg_jax.transfer.freeze import get_rules, label_parameters

flags.adopt_module_key_flags(common_flags)

REMATS = flags.DEFINE_list("remats", list(POLICIES), "Rematerialisation policies to take.")
GB = flags.DEFINE_list("gb", ["8", "11", "16", "24", "40", "80", "141"], "Sizes of cards, in 1e9 bytes.")
SIZE = flags.DEFINE_string("size", None, "Part of a size's name, to take only those, as in 176x224x160; default: all.")
CASE = flags.DEFINE_string("case", None, "JSON of one case, for a process that measures only it.")

STRIDE = 16
"""Voxels between the sides that are tried."""
PROBES = 6
"""The most compilations in the search of one largest size."""


@dataclasses.dataclass(frozen=True)
class Case:
    """One step whose memory is asked for."""

    size: Size
    dtype: str
    remat: Remat

    def sized(self, **changed: Any) -> "Case":
        """The same with another batch or shape."""
        return dataclasses.replace(self, size=dataclasses.replace(self.size, **changed))

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return {"name": self.size.name} | self.size.case(self.dtype) | {"remat": self.remat}


def abstract(case: Case, lowering: Lowering | None = None) -> tuple[Step, Any, Any]:
    """(step, state, batch) of a case, the last two as shapes: nothing is allocated."""
    config = dataclasses.replace(get_network(case.size.network), dtype=case.dtype)
    variables = variable_shapes(config)
    labels = label_parameters(variables["params"], get_rules("none"))
    optimiser = make_optimiser(recipe_of(config), STEPS, labels)
    state = jax.eval_shape(lambda v: init_state(v, optimiser), variables)
    inputs = batch_inputs()
    step = make_train_step(
        config, optimiser, objective(config), labels, inputs=inputs, remat=case.remat, lowering=lowering
    )
    shape = (case.size.batch, *case.size.shape)
    channels = () if config.dimensions == 3 else (config.channels,)
    batch = {
        "image": jax.ShapeDtypeStruct((*shape, *channels), jnp.float16),
        "label": jax.ShapeDtypeStruct(shape, jnp.uint8),
    }
    return step, state, batch


def traced(case: Case) -> dict[str, int]:
    """Bytes by the step's trace, in XLA's own operations."""
    step, state, batch = abstract(case, "native")
    arguments, foot = count_bytes(step.trace(state, batch).jaxpr)  # type: ignore[attr-defined]
    return {"arguments": arguments, "residuals": foot.residuals, "trace_peak": foot.peak}


def compiled(case: Case) -> int | None:
    """Bytes that the compiler plans besides the arguments; None: it says that the step cannot fit the device."""
    step, state, batch = abstract(case)
    try:
        found = step.lower(state, batch).compile().memory_analysis()  # type: ignore[attr-defined]
    except Exception as error:
        if not out_of_memory(error):
            raise
        return None
    return int(found.temp_size_in_bytes + max(found.output_size_in_bytes - found.alias_size_in_bytes, 0))


def measured(case: Case) -> int | None:
    """The most bytes in use on the GPU while two steps are trained, in a process of their own; None: too many."""
    given = json.dumps(dataclasses.asdict(case))
    command = [sys.executable, "-m", "benchmarks.memory_limits", "--case", given]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise InputError(f"A case failed in its own process ({given}):\n{done.stderr[-1500:]}")
    found = json.loads(done.stdout.strip().splitlines()[-1])
    return found if isinstance(found, int) else None


def _case_from(text: str) -> Case:
    d = json.loads(text)
    size = Size(**d["size"] | {"shape": tuple(d["size"]["shape"])})
    return Case(size, d["dtype"], d["remat"])


def run_case(case: Case) -> int | None:
    """Train two steps here and read the peak; None where it does not fit, or where the device keeps no count."""
    built = assemble(
        case.size.network, dtype=case.dtype, remat=case.remat, shape=case.size.shape, batch=case.size.batch
    )
    run = runner(built)
    try:
        for _ in range(2):
            run()
    except Exception as error:
        if not out_of_memory(error):
            raise
        return None
    return (jax.local_devices()[0].memory_stats() or {}).get("peak_bytes_in_use")


def largest(takes: Callable[[int], float], limit: float, probes: int, stride: int = 1) -> int | None:
    """The largest multiple of `stride` that takes at most `limit`; None where not even the first does, or unsure.

    Args:
      takes: count -> bytes, growing; infinite where the compiler refuses.
      probes: the most calls of `takes`.
      stride: between the counts that are tried.
    """
    known: dict[int, float] = {}

    def fits(n: int) -> bool:
        if n not in known:
            known[n] = takes(n * stride)
        return known[n] <= limit

    low, high = 0, 1
    while fits(high) and len(known) < probes:
        low, high = high, high * 2
    while high - low > 1 and len(known) < probes:
        middle = (low + high) // 2
        low, high = (middle, high) if fits(middle) else (low, middle)
    return low * stride if low else None


@functools.cache
def bytes_by_trace(case: Case) -> Callable[[int], float]:
    """Voxels (of all samples) -> bytes: linear in them, so that two traces tell all.

    Both are of the papers' size or more: of a small one the peak is in the optimiser, which knows no voxels.
    """
    points = []
    for times in (1, 4):
        more = case.sized(batch=times * case.size.batch)
        found = traced(more)
        points.append((math.prod((more.size.batch, *more.size.shape)), found["arguments"] + found["trace_peak"]))
    (x0, y0), (x1, y1) = points
    slope = (y1 - y0) / (x1 - x0)
    return lambda voxels: y0 + slope * (voxels - x0)


def limits(case: Case, gb: float, compiling: bool) -> dict[str, Any]:
    """The largest patch and batch of a case on a card of so many GB."""
    shape, batch, sides = case.size.shape, case.size.batch, len(case.size.shape)
    voxels = math.prod(shape)

    def takes(case: Case) -> float:
        temp = compiled(case)
        return float("inf") if temp is None else temp + _arguments(case)

    if compiling:
        by_side: Callable[[int], float] = lambda s: takes(case.sized(shape=(s,) * sides))  # noqa: E731
        by_batch: Callable[[int], float] = lambda b: takes(case.sized(batch=b))  # noqa: E731
        probes = PROBES
    else:
        line = bytes_by_trace(case)
        by_side, by_batch, probes = lambda s: line(batch * s**sides), lambda b: line(b * voxels), 64
    return case.to_dict() | {
        "gb": gb,
        "found_by": "compiling" if compiling else "trace",
        "largest_side": largest(by_side, gb * 1e9, probes, STRIDE),
        "largest_batch": largest(by_batch, gb * 1e9, probes),
    }


def _arguments(case: Case) -> int:
    _, state, batch = abstract(case)
    return sum(a.size * a.dtype.itemsize for a in jax.tree.leaves((state, batch)))


def remat_time(size: Size, dtype: str, remats: list[Remat]) -> dict[str, Any]:
    """Seconds a step of each policy that fits, and their ratios to no rematerialisation, taken in turn."""
    programs: dict[str, Callable[[], object]] = {
        r: runner(assemble(size.network, dtype=dtype, remat=r, shape=size.shape, batch=size.batch)) for r in remats
    }
    fitting = keep_those_that_fit(programs)
    seconds = alternate(fitting, common_flags.rounds())
    base = seconds.get("none")
    return {
        "name": size.name,
        "dtype": dtype,
        "seconds": {n: summary(s) for n, s in seconds.items()},
        "ratio_to_none": {n: ratio(s, base) for n, s in seconds.items()} if base else None,
        "does_not_fit": [n for n in programs if n not in fitting],
    }


def _print_case(row: dict[str, Any]) -> None:
    def gb(key: str) -> str:
        return "-" if row.get(key) is None else f"{row[key] / 1e9:.2f}"

    figures = "".join(f"{gb(k):>11}" for k in ("residuals", "trace_peak", "compiled", "measured"))
    print(f"{row['name']:<28}{row['dtype']:<10}{row['remat']:<7}{figures}", flush=True)


def main() -> None:
    """Take every case, print the tables and write the JSON."""
    if CASE.value:
        print(json.dumps(run_case(_case_from(CASE.value))))
        return
    remats = [choose("policy", r, {p: p for p in POLICIES}) for r in REMATS.value]
    tiny = common_flags.TINY.value
    gpu = jax.default_backend() == "gpu" or tiny  # a rehearsal does all that a GPU's run does
    memory = device_capacity().bytes
    networks = common_flags.networks()
    if tiny:
        sizes = common_flags.sizes()
    else:
        sizes = [s for n in networks for s in (*PAPERS, WHOLE_HEAD) if s.network == n]
    sizes = [s for s in sizes if SIZE.value is None or SIZE.value in s.name]
    if not sizes:
        raise InputError(f"--size={SIZE.value} is part of no size's name of {', '.join(networks)}.")
    result: dict[str, Any] = {
        "sizes": "tiny" if tiny else "papers",
        "unit": "bytes",
        "compiled_by": jax.default_backend(),
        "cases": [],
        "limits": [],
        "remat_time": [],
    }

    def add(kind: str, row: dict[str, Any]) -> None:
        result[kind].append(row)
        write_result("memory_limits", result, common_flags.OUT.value)

    print(f"{'GB':<45}" + "".join(f"{h:>11}" for h in ("residuals", "trace peak", "compiled", "measured")))
    chosen = [Case(s, d, r) for s in sizes for d in common_flags.dtypes() for r in remats]
    for case in chosen:
        row = case.to_dict() | traced(case)
        if gpu or (case.dtype == "float32" and case.remat == "none"):
            row["compiled"] = compiled(case)
        if gpu:
            row["measured"] = measured(case)
        _print_case(row)
        add("cases", row)
    for row in (limits(c, float(g), gpu and float(g) * 1e9 <= memory) for c in chosen for g in GB.value):
        result["limits"].append(row)
        print(
            f"{row['name']:<28}{row['dtype']:<10}{row['remat']:<7}{row['gb']:>5g} GB"
            f"  side {row['largest_side']}, batch {row['largest_batch']} ({row['found_by']})"
        )
    write_result("memory_limits", result, common_flags.OUT.value)
    for size in sizes if gpu else []:
        for dtype in common_flags.dtypes():
            add("remat_time", remat_time(size, dtype, remats))


if __name__ == "__main__":
    common_flags.run(main)
