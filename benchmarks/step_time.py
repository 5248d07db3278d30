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


def table(size: Size, rows: dict[str, Any]) -> str:
    """The rows of one network as aligned text."""
    lines = [
        size.name,
        f"  {'form':<18}{'seconds':>10}{'p90':>10}{'patches/s':>11}{'TFLOP/s':>9}"
        f"{'of product':>12}{'of copy':>9}{'of roofline':>13}",
    ]
    for name, row in rows.items():
        if "seconds" not in row:
            lines.append(f"  {name:<18}{'does not fit the device':>33}")
            continue
        lines.append(
            f"  {name:<18}{row['seconds']['median']:>10.4f}{row['seconds']['p90']:>10.4f}"
            f"{row['patches_a_second']:>11.2f}{row['flop_rate'] / 1e12:>9.3f}{row['of_product']:>12.0%}"
            f"{row['of_copy']:>9.0%}{row['of_roofline']:>13.0%}"
        )
    return "\n".join(lines)


def main() -> None:
    """Measure every network, print the tables and write the JSON."""
    started, dtypes = environment(), common_flags.dtypes()
    rates, copied = {d: matrix_rate(d) for d in dtypes}, copy_rate()
    print("matrix products: " + ", ".join(f"{d} {r / 1e12:.2f} TFLOP/s" for d, r in rates.items()))
    print(f"copying: {copied / 1e9:.0f} GB/s")
    cases = []
    for size in common_flags.sizes():
        rows = measure(size, dtypes, rates, copied, common_flags.rounds())
        cases.append({"size": size.to_dict(), "forms": rows})
        print(table(size, rows), flush=True)
    result = {
        "sizes": common_flags.kind(),
        "rounds": common_flags.rounds(),
        "matrix_rate": rates,
        "copy_rate": copied,
        "cases": cases,
    }
    write_result("step_time", {"environment": started} | result, common_flags.OUT.value)


if __name__ == "__main__":
    common_flags.run(main)
