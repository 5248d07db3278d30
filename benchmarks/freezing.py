"""What does freezing save: FLOPs, memory and time of the frozen step against the step that trains everything?

    python -m benchmarks.freezing [--networks=switch32,unet2d] [--dtypes=float32] [--quick] [--rounds=20]

The frozen steps are those that the papers name and their other readings; all take turns with the full step. Kept is
what the forward pass computes and the backward pass reads, by the trace; temporary is what the compiler allots on this
backend besides parameters and batch.
"""

from typing import Any

from absl import flags

from benchmarks import flags as common_flags
from benchmarks.measure import alternate, environment, ratio, summary, write_result
from benchmarks.sizes import Size
from benchmarks.steps import assemble, keep_those_that_fit, runner, step_bytes
from benchmarks.tables import markdown
from tlseg_jax.train.liveness import count_bytes
from tlseg_jax.train.step import step_flops

flags.adopt_module_key_flags(common_flags)  # so that --help lists them

FREEZINGS = {3: ("none", "encoder", "encoder_without_bottleneck"), 2: ("none", "first_two", "first_two_convolutions")}
"""Dimensions -> names of `FREEZING`; the first is what the others are compared with."""

COUNTED = ("flops", "bytes", "kept_bytes", "temporary_bytes")


def measure(size: Size, dtype: str, rounds: int) -> dict[str, Any]:
    """The steps of a network by what is frozen, timed in turn.

    Returns:
      Freezing -> {"seconds", "flops", "bytes", "kept_bytes", "temporary_bytes", "share" of the full step's of each};
      a step that the device has no memory for has no seconds.
    """
    rows: dict[str, Any] = {}
    programs = {}
    for freeze in FREEZINGS[len(size.shape)]:
        built = assemble(size.network, dtype=dtype, freeze=freeze, shape=size.shape, batch=size.batch)
        counted = built.native, built.state, built.batch
        program = built.step.lower(built.state, built.batch).compile()  # type: ignore[attr-defined]
        rows[freeze] = {
            "flops": step_flops(*counted),
            "bytes": step_bytes(*counted),
            "kept_bytes": count_bytes(built.native.trace(built.state, built.batch).jaxpr)[1].residuals,  # type: ignore[attr-defined]
            "temporary_bytes": int(program.memory_analysis().temp_size_in_bytes),
        }
        built.step = program
        programs[freeze] = runner(built)
    seconds = alternate(keep_those_that_fit(programs), rounds, warmup=1)
    full = rows["none"]
    for freeze, row in rows.items():
        row["share"] = {what: row[what] / full[what] for what in COUNTED}
        if freeze in seconds:
            row["seconds"] = summary(seconds[freeze])
            if "none" in seconds:
                row["share"]["seconds"] = ratio(seconds[freeze], seconds["none"])
    return rows


def main() -> None:
    """Measure every network, print the tables and write the JSON."""
    started, rounds = environment(), common_flags.rounds()
    result: dict[str, Any] = {"environment": started, "sizes": common_flags.kind(), "rounds": rounds, "cases": []}
    for size in common_flags.sizes():
        for dtype in common_flags.dtypes(("float32",)):
            rows = measure(size, dtype, rounds)
            result["cases"].append({"size": size.to_dict(), "dtype": dtype, "freezings": rows})
            print(f"{size.name}, {dtype}", flush=True)
    print(*markdown(result | {"part": "freezing"}), sep="\n")
    write_result("freezing", result, common_flags.OUT.value)


if __name__ == "__main__":
    common_flags.run(main)
