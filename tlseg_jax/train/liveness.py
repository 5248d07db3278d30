"""How many bytes a traced program keeps, and how many are alive at once: counted on the jaxpr, on any machine.

Nothing is compiled. They serve where the compiler that matters is not there, and where compiling takes minutes.

In the order of the trace the count is a lower bound: XLA:CPU takes 1.4 to 3.6 times as much. It goes through a program
breadth first, as if many threads were to share it: whatever could be computed is computed, and waits for its reader. So
what the backward pass computes anew from the forward pass is there at once, rematerialised or not. In that order the
compiler's own figure is 1.05 to 1.42 times the count, whatever the network, its size and `remat`, as XLA joins what is
computed twice and writes some of what is taken as fused here. `COMPILED` is that factor; what remains is within 15%
(`python -m benchmarks.memory_prediction`). Of other compilers nothing is predicted, and the count in the order of the
trace is a rough figure: an H100's took 0.90 and 0.96 of it for `unet3d256` in bfloat16 (benchmarks/results), and one
that gives convolutions much workspace takes more.
"""

import collections
import dataclasses
import math
from collections.abc import Iterator, Sequence
from typing import Any

import jax
from jax.extend.core import ClosedJaxpr, Jaxpr, Literal, Var

__all__ = ["Footprint", "count_bytes"]

INLINED = ("jit", "pjit", "closed_call", "core_call", "checkpoint", "remat2", "custom_jvp_call", "custom_vjp_call")
"""Calls whose body is looked into."""

VIEWS = ("reshape", "squeeze", "expand_dims", "copy", "reduce_precision", "optimization_barrier", "stop_gradient")
"""What gives the same bytes again."""

ARITHMETIC = ("abs", "add", "add_any", "div", "integer_pow", "mul", "neg", "pow", "rem", "sign", "square", "sub")
FUNCTIONS = ("exp", "expm1", "log", "log1p", "logistic", "rsqrt", "sqrt", "tanh")
COMPARISONS = ("clamp", "eq", "ge", "gt", "is_finite", "le", "lt", "max", "min", "ne", "select_n")
BITS = ("and", "not", "or", "shift_left", "shift_right_arithmetic", "shift_right_logical", "xor")
MOVES = ("broadcast_in_dim", "concatenate", "convert_element_type", "iota", "pad", "rev", "slice", "split", "transpose")
FUSED = frozenset(ARITHMETIC + FUNCTIONS + COMPARISONS + BITS + MOVES)
"""What a compiler writes into the loop of its only reader, so that its result is never in memory."""

READS_FUSED = FUSED | {"reduce_sum", "reduce_max", "reduce_min", "reduce_and", "reduce_or", "argmax", "argmin"}

COMPILED = 1.209
"""XLA:CPU's own figure to the peak in its order: the middle of what benchmarks.memory_prediction finds."""

BACKWARD = "transpose("
"""In the name stack of every operation of a backward pass."""


@dataclasses.dataclass(frozen=True)
class Footprint:
    """Bytes of one training step, by its trace.

    Attributes:
      residuals: computed by the forward pass and read by the backward pass, distinct arrays, without the
        parameters and the batch.
      peak: the most that is alive at once besides the arguments, in the order of the trace.
      compiled: what XLA:CPU will take for that, within 15% for float32.
    """

    residuals: int
    peak: int
    compiled: int


@dataclasses.dataclass(frozen=True, eq=False)
class _Operation:
    """One operation of the flat program; arrays are numbers."""

    name: str
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]
    backward: bool
    inner: int
    """Bytes alive at once inside it, besides its inputs and outputs."""


@dataclasses.dataclass(eq=False)
class _Program:
    """A jaxpr with its calls inlined and its views seen through."""

    sizes: list[int] = dataclasses.field(default_factory=list)
    operations: list[_Operation] = dataclasses.field(default_factory=list)

    def array(self, aval: Any) -> int:
        dtype = getattr(aval, "dtype", None)
        item = 0 if dtype is None or jax.dtypes.issubdtype(dtype, jax.dtypes.extended) else dtype.itemsize
        self.sizes.append(math.prod(getattr(aval, "shape", ())) * item)
        return len(self.sizes) - 1

    def add(self, jaxpr: Jaxpr, numbers: dict[Var, int], backward: bool) -> list[int | None]:
        """Append the jaxpr's operations.

        Args:
          jaxpr: whose inputs and constants are in `numbers`.
          numbers: the arrays' numbers; added to.
          backward: whether it is called from a backward pass.

        Returns:
          The numbers of the outputs; None for a constant.
        """

        def number(v: Var | Literal) -> int | None:
            return None if isinstance(v, Literal) else numbers[v]

        after_backward = {n for o in self.operations if o.backward for n in o.outputs}
        for eqn in jaxpr.eqns:
            inputs = [number(v) for v in eqn.invars]
            given = tuple(n for n in inputs if n is not None)
            # What follows from a gradient is no forward pass, whatever its name says.
            back = backward or BACKWARD in str(eqn.source_info.name_stack) or not after_backward.isdisjoint(given)
            name = eqn.primitive.name
            bodies = list(_bodies(eqn.params))
            if name in INLINED and bodies:
                body = bodies[0]
                inner = {v: self.array(v.aval) for v in body.jaxpr.constvars}
                inner |= {
                    v: self.array(v.aval) if n is None else n for v, n in zip(body.jaxpr.invars, inputs, strict=True)
                }
                results = self.add(body.jaxpr, inner, back)
                for v, r in zip(eqn.outvars, results, strict=True):
                    numbers[v] = self.array(v.aval) if r is None else r
            elif name in VIEWS and len(given) == len(eqn.outvars):
                numbers |= dict(zip(eqn.outvars, given, strict=True))
            else:
                outputs = tuple(self.array(v.aval) for v in eqn.outvars)
                numbers |= dict(zip(eqn.outvars, outputs, strict=True))
                alive = max((_alone(b).peak for b in bodies), default=0)
                self.operations.append(_Operation(name, given, outputs, back, alive))
            if back:
                after_backward |= {numbers[v] for v in eqn.outvars}
        return [number(v) for v in jaxpr.outvars]


def _bodies(params: dict[str, Any]) -> Iterator[ClosedJaxpr]:
    """The jaxprs among an operation's parameters, closed."""
    for value in params.values():
        for v in value if isinstance(value, list | tuple) else (value,):
            if hasattr(v, "jaxpr") and hasattr(v, "consts"):
                yield v
            elif hasattr(v, "eqns") and hasattr(v, "constvars"):
                yield ClosedJaxpr(v, ())


def count_bytes(program: ClosedJaxpr) -> tuple[int, Footprint]:
    """Bytes of a traced training step: (of its arguments, of the rest).

    Args:
      program: `jax.jit(step).trace(...).jaxpr`, of a function that differentiates once.
    """
    arguments = _Program()
    for v in program.jaxpr.invars:
        arguments.array(v.aval)
    return sum(arguments.sizes), _alone(program)


def _alone(closed: ClosedJaxpr) -> Footprint:
    program = _Program()
    numbers = {v: program.array(v.aval) for v in (*closed.jaxpr.constvars, *closed.jaxpr.invars)}
    arguments = set(numbers.values())
    outputs = {n for n in program.add(closed.jaxpr, numbers, False) if n is not None}
    peak = _peak(program.operations, program.sizes, outputs)
    wide = _peak(_breadth_first(program.operations, outputs), program.sizes, outputs)
    return Footprint(_residuals(program, arguments), peak, int(COMPILED * wide))


def _residuals(program: _Program, arguments: set[int]) -> int:
    made = {n for o in program.operations if not o.backward and o.name != "broadcast_in_dim" for n in o.outputs}
    read = {n for o in program.operations if o.backward for n in o.inputs}
    return sum(program.sizes[n] for n in (made & read) - arguments)


def _breadth_first(operations: Sequence[_Operation], outputs: set[int]) -> list[_Operation]:
    """The operations in XLA:CPU's order: first in, first out of those whose inputs are there.

    What fuses is one with its reader.
    """
    runs = _runs(operations, outputs)
    members: dict[int, list[int]] = collections.defaultdict(list)
    for i, run in enumerate(runs):
        members[run].append(i)
    maker = {n: runs[i] for i, o in enumerate(operations) for n in o.outputs}
    waits = {
        run: {maker[n] for i in own for n in operations[i].inputs if n in maker} - {run} for run, own in members.items()
    }
    readers: dict[int, list[int]] = collections.defaultdict(list)
    for run in sorted(members):
        for other in waits[run]:
            readers[other].append(run)
    ready = collections.deque(run for run in sorted(members) if not waits[run])
    order: list[_Operation] = []
    while ready:
        run = ready.popleft()
        order += [operations[i] for i in members[run]]
        for reader in readers[run]:
            waits[reader].remove(run)
            if not waits[reader]:
                ready.append(reader)
    return order


def _peak(operations: Sequence[_Operation], sizes: Sequence[int], outputs: set[int]) -> int:
    last = _last_reads(operations, outputs)
    ends: dict[int, list[int]] = collections.defaultdict(list)
    alive = peak = 0
    for i, o in enumerate(operations):
        made = [n for n in o.outputs if last.get(n, -1) >= 0]
        dying = ends.pop(i, [])
        # An elementwise operation may write over an input that nobody reads again.
        reused = _reused(o, made, dying, sizes)
        alive += sum(sizes[n] for n in made) - reused
        peak = max(peak, alive + o.inner)
        alive -= sum(sizes[n] for n in dying) - reused
        for n in made:
            if n not in outputs:
                ends[last[n]].append(n)
    return peak


def _runs(operations: Sequence[_Operation], outputs: set[int]) -> list[int]:
    """Where each operation happens: at its own place, or at its only reader's where it fuses."""
    readers = _readers(operations)
    runs = list(range(len(operations)))
    for i in reversed(range(len(operations))):
        o = operations[i]
        used = {r for n in o.outputs for r in readers[n]}
        if o.name in FUSED and len(used) == 1 and outputs.isdisjoint(o.outputs):
            reader = next(iter(used))
            if operations[reader].name in READS_FUSED:
                runs[i] = runs[reader]
    return runs


def _readers(operations: Sequence[_Operation]) -> dict[int, list[int]]:
    readers: dict[int, list[int]] = collections.defaultdict(list)
    for i, o in enumerate(operations):
        for n in o.inputs:
            readers[n].append(i)
    return readers


def _last_reads(operations: Sequence[_Operation], outputs: set[int]) -> dict[int, int]:
    """Where each array in memory is read last; arrays that fuse into their reader are absent."""
    readers, runs = _readers(operations), _runs(operations, outputs)
    last: dict[int, int] = {}
    for i, o in enumerate(operations):
        if runs[i] == i and o.name not in ("broadcast_in_dim", "iota"):
            for n in o.outputs:
                if readers[n]:
                    last[n] = max(runs[r] for r in readers[n])
                elif n in outputs:
                    last[n] = len(operations)
    return last


def _reused(o: _Operation, made: list[int], dying: list[int], sizes: Sequence[int]) -> int:
    if o.name not in FUSED or not made:
        return 0
    largest = max(sizes[n] for n in made)
    return largest if any(sizes[n] == largest for n in dying) else 0
