"""Where does one training step's time go, kernel by kernel, and how near is each to the memory's own rate?

    python -m benchmarks.kernels [--networks=switch8x2] [--dtypes=bfloat16] [--noquick]

A few steps are recorded by the profiler. Each kernel belongs to an operation of the compiled program, whose operands
and results, each read or written once, are the bytes that it has to move; together with the kernel's time they are a
rate, which is set against the rate of a plain copy, measured in the same run. The ten that take longest are printed,
the JSON has all. A kernel that XLA does not name an operation for has no bytes. On a CPU a step's operations run side
by side, so that their times add up to more than the step.
"""

import os
import re
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

# Each kernel is to be seen by itself, and not as part of a graph of kernels that is replayed.
os.environ["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} --xla_gpu_enable_command_buffer=".strip()

import jax
from absl import flags

from benchmarks import flags as common_flags
from benchmarks.measure import alternate, copy_rate, environment, summary, write_result
from benchmarks.sizes import Size
from benchmarks.steps import assemble
from benchmarks.tables import markdown
from tlseg_jax.runtime.errors import InputError

flags.adopt_module_key_flags(common_flags)  # so that --help lists them

STEPS = 3
"""Recorded."""

KEPT = 50
"""Rows of a case; what the other kernels take together is a row more."""

WIDTHS = {
    "pred": 1,
    "s8": 1,
    "u8": 1,
    "s16": 2,
    "u16": 2,
    "f16": 2,
    "bf16": 2,
    "s32": 4,
    "u32": 4,
    "f32": 4,
    "s64": 8,
    "u64": 8,
    "f64": 8,
}
"""Bytes of a value, by XLA's name of its type; others, such as tokens, hold none."""

INSTRUCTION = re.compile(r"^\s*(?:ROOT )?%?([\w.-]+) = (\(.*?\)|\S+) ([\w-]+)\((.*)$")
ARRAY = re.compile(r"(\w+)\[([\d,]*)\]")
OPERAND = re.compile(r"%([\w.-]+)")
NOTHING = {"get-tuple-element", "bitcast", "tuple", "parameter", "constant"}
"""Operations that move no bytes."""


def array_bytes(text: str) -> int:
    """Bytes of the arrays in XLA's text of a type: "f32[2,3]{1,0}" gives 24; those of a tuple are added up."""
    total = 0
    for name, sides in ARRAY.findall(text):
        size = WIDTHS.get(name, 0)
        for side in filter(None, sides.split(",")):
            size *= int(side)
        total += size
    return total


def moved_bytes(program: str) -> dict[str, int]:
    """Of each operation of a compiled program, by name: bytes of its operands and results, each once.

    Args:
      program: XLA's text of it. A convolution by cuDNN returns scratch memory too (u8), which is not counted.
    """
    results: dict[str, str] = {}
    operations: list[tuple[str, str, str]] = []
    for line in program.splitlines():
        found = INSTRUCTION.match(line)
        if found:
            name, result, operation, rest = found.groups()
            if "cudnn" in rest:
                result = re.sub(r"u8\[[\d,]*\]", "", result)
            results[name] = result
            # The operands stand before the first bracket that closes; what follows names computations.
            operations.append((name, operation, rest.partition(")")[0]))
    return {
        name: array_bytes(results[name]) + sum(array_bytes(results.get(o, "")) for o in OPERAND.findall(operands))
        for name, operation, operands in operations
        if operation not in NOTHING
    }


def kernel_seconds(folder: Path) -> dict[str, float]:
    """Operation, or kernel where none is named, -> seconds in a recording.

    Raises:
      InputError: the profiler recorded no kernel.
    """
    seconds: dict[str, float] = {}
    for path in folder.rglob("*.xplane.pb"):
        planes = list(jax.profiler.ProfileData.from_file(str(path)).planes)
        devices = [p for p in planes if p.name.startswith("/device:")] or planes
        for plane in devices:
            lines = list(plane.lines)
            # What the profiler derives from the kernels stands beside them and would be counted twice.
            streams = [line for line in lines if line.name.startswith("Stream")] or lines
            for event in (e for line in streams for e in line.events):
                operation = dict(event.stats).get("hlo_op")
                if operation is None and not plane.name.startswith("/device:"):
                    continue  # of the host's threads only operations count
                name = str(operation or event.name)
                seconds[name] = seconds.get(name, 0.0) + event.duration_ns / 1e9
    if not seconds:
        raise InputError("The profiler recorded no kernel on this machine: its driver may not allow it.")
    return seconds


def rows(seconds: Mapping[str, float], moved: Mapping[str, int], steps: int, copied: float) -> list[dict[str, Any]]:
    """A row a kernel, the longest first.

    Args:
      seconds: of each, all steps together.
      moved: bytes of each operation, a step.
      steps: recorded.
      copied: bytes a second of a plain copy.
    """
    total = sum(seconds.values())
    # Kernels are named after their operation with other separators.
    plain = {re.sub(r"\W", "_", name): count for name, count in moved.items()}
    found = []
    for name, taken in sorted(seconds.items(), key=lambda item: -item[1]):
        row: dict[str, Any] = {"kernel": name, "seconds": taken / steps, "share_of_step": taken / total}
        count = plain.get(re.sub(r"\W", "_", name))
        if count is not None and taken:
            row |= {"bytes": count, "bandwidth": count * steps / taken, "of_copy": count * steps / taken / copied}
        found.append(row)
    return found


def measure(size: Size, dtype: str, copied: float, rounds: int) -> dict[str, Any]:
    """One network's kernels; see the module."""
    built = assemble(size.network, dtype=dtype, shape=size.shape, batch=size.batch)
    program = built.step.lower(built.state, built.batch).compile()  # type: ignore[attr-defined]
    state = built.state

    def run() -> None:
        nonlocal state
        state, metrics = program(state, built.batch)
        jax.block_until_ready((state, metrics))

    whole = summary(alternate({"": run}, rounds)[""])
    with tempfile.TemporaryDirectory(prefix="tlseg_kernels_") as folder:
        with jax.profiler.trace(folder):
            for _ in range(STEPS):
                run()
        seconds = kernel_seconds(Path(folder))
    kernels = rows(seconds, moved_bytes(program.as_text()), STEPS, copied)
    counted = [k for k in kernels if "bytes" in k]
    rest = kernels[KEPT:]
    others = {"kernel": f"{len(rest)} others"} | {w: sum(k[w] for k in rest) for w in ("seconds", "share_of_step")}
    return size.case(dtype) | {
        "step_seconds": whole,
        "kernel_seconds": sum(seconds.values()) / STEPS,
        "bytes": sum(k["bytes"] for k in counted),
        "of_copy": sum(k["bytes"] for k in counted) / whole["median"] / copied,
        "kernels": kernels[:KEPT] + [others] * bool(rest),
    }


def main() -> None:
    """Record every network, print the tables and write the JSON."""
    started, copied = environment(), copy_rate()
    result: dict[str, Any] = {"environment": started, "sizes": common_flags.kind(), "copy_rate": copied, "cases": []}
    for size in common_flags.sizes():
        for dtype in common_flags.dtypes():
            case = measure(size, dtype, copied, common_flags.rounds())
            result["cases"].append(case)
            print(*markdown(result | {"part": "kernels", "cases": [case]}), sep="\n", flush=True)
            write_result("kernels", result, common_flags.OUT.value)


if __name__ == "__main__":
    common_flags.run(main)
