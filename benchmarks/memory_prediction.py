"""How far is the memory that is predicted for a training step from what XLA:CPU's compiler takes?

    python -m benchmarks.memory_prediction [--networks=switch32] [--remats=none,block,full]

Nothing is run and nothing of a step's size is allocated: each step is traced, which gives the prediction
(`tlseg_jax.train.liveness`), and compiled for the CPU, whose `memory_analysis` is the figure to meet. The compiler's
last level is left out: it changes no buffer and takes most of the time. At the reduced sizes with each `remat`, and at
the papers' with nothing computed again. The trace peak is what the same count gives in the order of the trace.
"""

import statistics
from typing import Any

import jax
from absl import flags

from benchmarks import flags as common_flags
from benchmarks.measure import environment, write_result
from benchmarks.memory_limits import REMATS, Case, abstract
from benchmarks.sizes import get_sizes
from tlseg_jax.models.remat import Remat
from tlseg_jax.runtime.choose import choose
from tlseg_jax.runtime.errors import InputError
from tlseg_jax.train.liveness import count_bytes
from tlseg_jax.train.memory import POLICIES

flags.adopt_module_key_flags(common_flags)
flags.declare_key_flag("remats")

QUICK: dict[str, Any] = {"xla_backend_optimization_level": 0}


def row(case: Case) -> dict[str, Any]:
    """Bytes besides the arguments by prediction and compiler, and the prediction's relative error."""
    step, state, batch = abstract(case)
    traced = step.trace(state, batch)  # type: ignore[attr-defined]
    _, foot = count_bytes(traced.jaxpr)
    found = traced.lower().compile(compiler_options=QUICK).memory_analysis()
    compiled = found.temp_size_in_bytes + max(found.output_size_in_bytes - found.alias_size_in_bytes, 0)
    return case.to_dict() | {
        "trace_peak": foot.peak,
        "predicted": foot.compiled,
        "compiled": int(compiled),
        "error": foot.compiled / compiled - 1,
    }


def cases(remats: list[Remat]) -> list[Case]:
    """Every network reduced with each policy, then at the papers' sizes with the first; with --tiny the tiny ones."""
    networks = common_flags.networks()
    small = [s for n in networks for s in get_sizes(n, "tiny" if common_flags.TINY.value else "reduced")]
    large = [] if common_flags.TINY.value else [s for n in networks for s in get_sizes(n, "papers")]
    return [Case(s, "float32", r) for s in small for r in remats] + [Case(s, "float32", remats[0]) for s in large]


def main() -> None:
    """Take every case, print the table and write the JSON, row by row."""
    if jax.default_backend() != "cpu":
        raise InputError("The prediction is of XLA:CPU: set JAX_PLATFORMS=cpu.")
    remats: list[Remat] = [choose("policy", r, {p: p for p in POLICIES}) for r in REMATS.value]
    result: dict[str, Any] = {"environment": environment(), "sizes": "reduced and papers", "unit": "bytes", "cases": []}
    print(f"{'GB':<45}{'trace peak':>11}{'predicted':>11}{'compiled':>11}{'error':>8}")
    for case in cases(remats):
        found = row(case)
        result["cases"].append(found)
        told = "".join(f"{found[k] / 1e9:>11.3f}" for k in ("trace_peak", "predicted", "compiled"))
        print(f"{case.size.name:<38}{case.remat:<7}{told}{found['error']:>+8.0%}", flush=True)
        errors = [abs(r["error"]) for r in result["cases"]]
        result["largest_error"], result["median_error"] = max(errors), statistics.median(errors)
        write_result("memory_prediction", result, common_flags.OUT.value, quiet=True)


if __name__ == "__main__":
    common_flags.run(main)
