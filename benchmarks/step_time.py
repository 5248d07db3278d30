"""How long is a training step of each network, and how near is it to what the machine can do?

    python -m benchmarks.step_time [--networks=switch32,unet2d] [--dtypes=float32,bfloat16] [--quick] [--rounds=20]

Times whole steps (`make_train_step`, default recipe, augmentation off) on random data at the papers' patch sizes and
batches, everything trained and frozen as the paper has it. The forms of one network take turns. FLOPs and bytes are
those of the convolutions and products as written, whatever the backend makes of them; they are set against the
machine's own rates of matrix products and of copying, measured in the same run:

  of product   share of the machine's rate of matrix products in that type
  of copy      share of its rate of copying that the convolutions' operands and results alone take up
  of roofline  the larger of the two: 100% would be a step that does nothing but compute, or nothing but move data
"""

from typing import Any

from absl import flags

from benchmarks import flags as common_flags
from benchmarks.measure import alternate, copy_rate, environment, matrix_rate, ratio, summary, write_result
from benchmarks.sizes import Size
from benchmarks.steps import assemble, keep_those_that_fit, timed
from benchmarks.tables import markdown

flags.adopt_module_key_flags(common_flags)  # so that --help lists them


def measure(size: Size, dtypes: tuple[str, ...], rates: dict[str, float], copied: float, rounds: int) -> dict[str, Any]:
    """The forms of a network's step, timed in turn.

    Args:
      rates: dtype -> the machine's FLOP/s of matrix products.
      copied: its bytes a second of copying.

    Returns:
      "float32, full" and the like -> the form's row.
    """
    forms = {(d, f): (d, freeze) for d in dtypes for f, freeze in (("full", "none"), ("frozen", size.frozen))}
    built = {
        ", ".join(form): timed(assemble(size.network, dtype=d, freeze=freeze, shape=size.shape, batch=size.batch))
        for form, (d, freeze) in forms.items()
    }
    programs = keep_those_that_fit({name: run for name, (run, _, _) in built.items()})
    seconds = alternate(programs, rounds, warmup=1)
    rows: dict[str, Any] = {}
    first = next(iter(seconds), "")
    for (dtype, form), (_, freeze) in forms.items():
        name = f"{dtype}, {form}"
        if name not in seconds:
            rows[name] = {"out_of_memory": True}
            continue
        _, flops, moved = built[name]
        taken = summary(seconds[name])
        rows[name] = {
            "dtype": dtype,
            "freeze": freeze,
            "seconds": taken,
            "patches_a_second": size.batch / taken["median"],
            "ratio": {"to": first, **ratio(seconds[name], seconds[first])},
            "flops": flops,
            "bytes": moved,
            "flop_rate": flops / taken["median"],
            "of_product": flops / taken["median"] / rates[dtype],
            "of_copy": moved / taken["median"] / copied,
            "of_roofline": max(flops / rates[dtype], moved / copied) / taken["median"],
        }
    return rows


def main() -> None:
    """Measure every network, print the tables and write the JSON."""
    started, dtypes = environment(), common_flags.dtypes()
    rates, copied = {d: matrix_rate(d) for d in dtypes}, copy_rate()
    result: dict[str, Any] = {"environment": started, "sizes": common_flags.kind(), "rounds": common_flags.rounds()}
    result |= {"matrix_rate": rates, "copy_rate": copied, "cases": []}
    for size in common_flags.sizes():
        rows = measure(size, dtypes, rates, copied, common_flags.rounds())
        result["cases"].append({"size": size.to_dict(), "forms": rows})
        print(size.name, flush=True)
    print(*markdown(result | {"part": "step_time"}), sep="\n")
    write_result("step_time", result, common_flags.OUT.value)


if __name__ == "__main__":
    common_flags.run(main)
