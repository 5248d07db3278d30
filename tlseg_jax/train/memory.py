"""Whether a training step fits the memory, told before it runs, and what would make it fit.

Two counts: that of the step's trace (`liveness`), at once and on any machine, and the compiler's own, of the
program that will run. The second decides wherever the first does not show ample room. On a CPU the first is what the
compiler will take, within 15%; elsewhere it is a rough figure, which workspace of convolutions comes on top of.
"""

import dataclasses
import math
from collections.abc import Callable, Iterator
from typing import Any, Protocol, get_args

import jax

from tlseg_jax.models.remat import Remat
from tlseg_jax.runtime.device_memory import Capacity, device_capacity, format_bytes, out_of_memory, parse_bytes
from tlseg_jax.runtime.errors import InputError
from tlseg_jax.runtime.messages import log
from tlseg_jax.train.liveness import count_bytes

__all__ = ["FitsIn", "StepMemory", "StepPlan", "fit_memory", "out_of_memory", "parse_bytes", "predict", "shortage"]

POLICIES: tuple[Remat, ...] = get_args(Remat)
"""From the fastest to the smallest."""

AMPLE = 0.5
"""A step whose trace counts up to this share of what there is needs no compiler's word."""

HOPELESS = 4.0
"""One that counts this many times what there is gets none: compiling it would take minutes."""


BUDGET = "the `memory_budget`"


class Traceable(Protocol):
    """A training step that can be traced and compiled: jitted, or a `Dispatch`."""

    def trace(self, state: Any, batch: Any) -> Any:
        """As `jax.jit`'s, for arrays or their shapes."""


@dataclasses.dataclass(frozen=True)
class StepPlan:
    """What users can change to make a step fit.

    Attributes:
      remat: what is computed again in the backward pass.
      multiple: what a batch size must divide by, for the devices and micro-batches that share it.
    """

    remat: Remat = "none"
    precision: str = "float32"
    batch_size: int = 2
    multiple: int = 1

    def settings(self, before: "StepPlan") -> str:
        """The settings that lead from `before` here."""
        return " ".join(
            f"`{f.name}={getattr(self, f.name)}`"
            for f in dataclasses.fields(self)
            if getattr(self, f.name) != getattr(before, f.name)
        )


MakeProgram = Callable[[StepPlan], Traceable]


@dataclasses.dataclass(frozen=True)
class StepMemory:
    """Bytes of one training step.

    Attributes:
      arguments: the state and a batch, and whatever else lies on the device for it.
      residuals: what the forward pass keeps for the backward pass, by the trace.
      peak: the most that is alive at once besides the arguments, by the trace; on a CPU as its compiler will have it.
      compiled: the compiler's own figure for that; None where it was not asked.
      refused: the compiler says that the program cannot fit this device.
    """

    plan: StepPlan
    arguments: int
    residuals: int
    peak: int
    compiled: int | None = None
    refused: bool = False

    @property
    def total(self) -> int:
        """What the step takes, by the best figure there is."""
        return self.arguments + (self.peak if self.compiled is None else self.compiled)

    @property
    def source(self) -> str:
        """Who says so."""
        return "by the trace" if self.compiled is None else "by the compiler"

    def fits(self, limit: int) -> bool:
        """Whether it is no more than `limit` bytes."""
        return not self.refused and self.total <= limit


@dataclasses.dataclass(frozen=True, eq=False)
class FitsIn:
    """A step that fits, or is taken to."""

    program: Any
    prediction: StepMemory
    capacity: Capacity


def predict(program: Traceable, plan: StepPlan, state: Any, batch: Any, limit: int) -> StepMemory:
    """The memory of a step, compiled where the trace alone cannot decide whether it is within `limit` bytes.

    What is compiled here need not be compiled again to run, where the state and batch are of the same kind.

    Args:
      plan: what it was made by; its batch size replaces that of `batch`.
      state: the state or its shapes.
      batch: the batch or its shapes, its first axis the samples.
    """
    traced = program.trace(_shapes(state), resized(batch, plan.batch_size))
    arguments, foot = count_bytes(traced.jaxpr)
    on_cpu = _on_cpu()
    found = StepMemory(plan, arguments, foot.residuals, foot.compiled if on_cpu else foot.peak)
    honest = not on_cpu or plan.precision == "float32"  # XLA:CPU widens bfloat16
    if (found.total <= AMPLE * limit and honest) or found.total > HOPELESS * limit:
        return found
    try:
        analysis = traced.lower().compile().memory_analysis()
    except Exception as error:
        if not out_of_memory(error):
            raise
        return dataclasses.replace(found, refused=True)
    if analysis is None:  # a backend without one
        return found
    # What is given away is written over: only new memory counts.
    new = analysis.output_size_in_bytes - analysis.alias_size_in_bytes
    return dataclasses.replace(found, compiled=analysis.temp_size_in_bytes + max(new, 0))


def _on_cpu() -> bool:
    return jax.default_backend() == "cpu"


def fit_memory(
    make: MakeProgram, state: Any, batch: Any, plan: StepPlan, *, budget: int | None = None, fixed: bool = True
) -> FitsIn:
    """The step to train with: as planned, or with the first rematerialisation that fits.

    Args:
      state: the state or its shapes.
      batch: shapes of a batch.
      budget: bytes that the step may take; None: what the device has.
      fixed: whether the plan's rematerialisation is asked for; else the fastest that fits is taken.

    Raises:
      InputError: nothing fits; names what was asked for, what there is and the flags that would make it fit.
    """
    capacity = device_capacity()
    if budget is not None and budget <= capacity.bytes:
        capacity = Capacity(budget, BUDGET)
    elif budget is not None:
        log.info(f"memory: the budget of {format_bytes(budget)} is more than there is; {capacity}.")
    tried: list[StepMemory] = []
    for remat in (plan.remat,) if fixed else POLICIES:
        wanted = dataclasses.replace(plan, remat=remat)
        program = make(wanted)
        found = predict(program, wanted, state, batch, capacity.bytes)
        if found.fits(capacity.bytes):
            if budget is not None:
                log.info(_chosen(found, tried, capacity))
            return FitsIn(program, found, capacity)
        tried.append(found)
    raise shortage(make, state, batch, tried[0], capacity)


def _chosen(found: StepMemory, tried: list[StepMemory], capacity: Capacity) -> str:
    more = ", ".join(f"{p.plan.remat} {format_bytes(p.total)}" for p in tried)
    why = f"the fastest that fits ({more})" if tried else "nothing need be computed again"
    return (
        f"memory: `remat={found.plan.remat}`, {why if found.plan.remat == 'none' or tried else 'as asked for'}: "
        f"{format_bytes(found.total)} predicted {found.source}; {capacity}."
    )


def shortage(
    make: MakeProgram, state: Any, batch: Any, asked: StepMemory, capacity: Capacity, failed: bool = False
) -> InputError:
    """The sentence for a step that does not fit.

    Args:
      state: the state or its shapes.
      batch: shapes of a batch.
      failed: it was run and ran out, whatever was predicted; what is advised must then take less.
    """
    limit = min(capacity.bytes, int(0.9 * asked.total)) if failed else capacity.bytes
    way = next(_ways(make, state, batch, asked.plan, limit), None)
    size = "x".join(map(str, batch["label" if "label" in batch else "image"].shape[1:4]))
    samples = f"{asked.plan.batch_size} sample{'s' if asked.plan.batch_size > 1 else ''} of {size}"
    needs = f"a training step on {samples} takes {format_bytes(asked.total)} ({asked.source}), and {capacity}"
    fault = f"The memory ran out while training: {needs}" if failed else needs[0].upper() + needs[1:]
    if way:
        remedy = f"it would fit with {way.plan.settings(asked.plan)} ({format_bytes(way.total)})"
    else:
        larger = "give a larger budget" if capacity.what == BUDGET else "take a larger device"
        remedy = f"no `remat`, `precision` or `batch_size` makes it fit; {larger}, or prepare smaller patches"
    return InputError(f"{fault}: {remedy}.")


def _ways(make: MakeProgram, state: Any, batch: Any, plan: StepPlan, limit: int) -> Iterator[StepMemory]:
    """Plans that fit, the least loss first: time, then rounding, then the batch, on which the result depends."""
    for other in _alternatives(plan):
        found = predict(make(other), other, state, batch, limit)
        if found.fits(limit):
            yield found


def _alternatives(plan: StepPlan) -> Iterator[StepPlan]:
    smaller = POLICIES[POLICIES.index(plan.remat) :]
    # XLA:CPU computes in float32 whatever the precision: it would be slower and no smaller.
    precisions = dict.fromkeys([plan.precision] + ([] if jax.default_backend() == "cpu" else ["bfloat16"]))
    wanted = (plan.batch_size, math.ceil(plan.batch_size / 2), 1)
    batches = dict.fromkeys(math.ceil(b / plan.multiple) * plan.multiple for b in wanted)
    for batch_size in batches:
        for precision in precisions:
            for remat in smaller:
                other = StepPlan(remat, precision, batch_size, plan.multiple)
                if other != plan:
                    yield other


def resized(batch: Any, size: int) -> Any:
    """The shapes of a batch of `size` samples."""
    return jax.tree.map(lambda s: jax.ShapeDtypeStruct((size, *s.shape[1:]), s.dtype), batch)


def _shapes(tree: Any) -> Any:
    return jax.tree.map(lambda a: jax.ShapeDtypeStruct(a.shape, a.dtype), tree)
