"""Each part's result as a table for people: pure functions from the JSON's content to headings and cells."""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any

Result = Mapping[str, Any]


@dataclasses.dataclass(frozen=True)
class Table:
    """A table of text.

    Attributes:
      rows: as many cells each.
    """

    title: str
    columns: Sequence[str]
    rows: Sequence[Sequence[str]]

    def markdown(self) -> str:
        """The table in GitHub's Markdown, with its title before it."""
        lines = [f"**{self.title}**", "", _row(self.columns), _row(["---"] * len(self.columns))]
        return "\n".join([*lines, *map(_row, self.rows)])


def _row(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cells) + " |"


def seconds(value: Mapping[str, float]) -> str:
    """Median and 90th percentile of some times."""
    return f"{value['median']:.3g} s ({value['p90']:.3g})"


def spread(value: Mapping[str, float]) -> str:
    """A ratio's median, and its 10th and 90th percentile."""
    return f"{value['median']:.2f} ({value['low']:.2f} to {value['high']:.2f})"


def percent(value: float) -> str:
    """A share as a whole percentage."""
    return f"{value:.0%}"


def gigabytes(value: float | None) -> str:
    """Bytes in units of 1e9; a dash where there are none."""
    return "-" if value is None else f"{value / 1e9:.2f}"


def named(case: Mapping[str, Any]) -> str:
    """Network, batch and shape of a case: "switch32, 2 x 72x112x112"."""
    return f"{case['network']}, {case['batch']} x " + "x".join(map(str, case["shape"]))


def step_time(result: Result) -> list[Table]:
    """Seconds a step and how near it is to the machine's limits."""
    columns = (
        "network",
        "form",
        "seconds a step (p90)",
        "patches a second",
        "of matrix products",
        "of copying",
        "of roofline",
    )
    rows = []
    for case in result["cases"]:
        for form, row in case["forms"].items():
            if "seconds" not in row:
                rows.append([case["size"]["name"], form, "does not fit", *["-"] * 4])
                continue
            shares = (percent(row[k]) for k in ("of_product", "of_copy", "of_roofline"))
            rows.append(
                [case["size"]["name"], form, seconds(row["seconds"]), f"{row['patches_a_second']:.3g}", *shares]
            )
    rates = ", ".join(f"{d} {r / 1e12:.3g} TFLOP/s" for d, r in result["matrix_rate"].items())
    title = f"A training step (matrix products here: {rates}; copying {result['copy_rate'] / 1e9:.3g} GB/s)"
    return [Table(title, columns, rows)]


def freezing(result: Result) -> list[Table]:
    """Shares of the full step that a frozen one takes."""
    columns = ("network", "type", "frozen", "seconds a step (p90)", "time", "FLOPs", "kept for gradients", "temporary")
    rows = []
    for case in result["cases"]:
        for name, row in case["freezings"].items():
            share = row["share"]
            taken = seconds(row["seconds"]) if "seconds" in row else "does not fit"
            ratio = spread(share["seconds"]) if "seconds" in share else "-"
            counted = (percent(share[k]) for k in ("flops", "kept_bytes", "temporary_bytes"))
            rows.append([case["size"]["name"], case["dtype"], name, taken, ratio, *counted])
    return [Table("The frozen step against the one that trains everything", columns, rows)]


def compare(result: Result) -> list[Table]:
    """Our step against PyTorch's."""
    columns = (
        "network",
        "type",
        "ours (p90)",
        "PyTorch (p90)",
        "ours / PyTorch",
        "ours / MONAI's UNet",
        "ours / BasicUNet",
        "fastest PyTorch",
    )
    rows = [
        [
            named(c),
            c["dtype"],
            seconds(c["seconds_ours"]),
            seconds(c["seconds_pytorch"]),
            *(spread(c[f"ratio_to_{n}"]) if f"ratio_to_{n}" in c else "-" for n in ("pytorch", "monai", "monai_basic")),
            c["best_pytorch"],
        ]
        for c in result["cases"]
    ]
    return [Table("The same network in PyTorch, and MONAI's networks as users run them", columns, rows)]


def memory_limits(result: Result) -> list[Table]:
    """Bytes a step keeps and takes, what fits, and what rematerialisation costs."""
    compiler = f"compiled for {result['compiled_by']}"
    tables = [
        Table(
            "Memory of a training step, GB (1e9 bytes)",
            ("network", "type", "remat", "kept for gradients", "alive at once, by trace", compiler, "measured peak"),
            [
                [c["name"], c["dtype"], c["remat"]]
                + [gigabytes(c.get(k)) for k in ("residuals", "trace_peak", "compiled", "measured")]
                for c in result["cases"]
            ],
        )
    ]
    fits: dict[tuple[str, ...], dict[float, str]] = {}
    for row in result["limits"]:
        found = fits.setdefault((row["name"], row["dtype"], row["remat"]), {})
        found[row["gb"]] = "; ".join("-" if row[k] is None else str(row[k]) for k in ("largest_side", "largest_batch"))
    if fits:
        sizes = sorted({gb for found in fits.values() for gb in found})
        by = ", ".join(sorted({row["found_by"] for row in result["limits"]}))
        rows = [[*key, *(found.get(gb, "-") for gb in sizes)] for key, found in fits.items()]
        title = f"Largest cubic or square side at this batch; largest batch at this size (found by {by})"
        tables.append(Table(title, ("network", "type", "remat", *(f"{gb:g} GB" for gb in sizes)), rows))
    timed = [
        [r["name"], r["dtype"], remat, seconds(taken), spread(r["ratio_to_none"][remat]) if r["ratio_to_none"] else "-"]
        for r in result["remat_time"]
        for remat, taken in r["seconds"].items()
    ]
    if timed:
        columns = ("network", "type", "remat", "seconds a step (p90)", "to no remat")
        tables.append(Table("Time of a rematerialised step", columns, timed))
    return tables


def loader(result: Result) -> list[Table]:
    """Training from the store against training on a batch held in memory."""
    columns = ("data", "network", "samples a second, training", "from store / held in memory")
    rows = [
        [c["data"], named(c), f"{c['samples_a_second_in_training']:.3g}", spread(c["ratio_store_to_held"])]
        for c in result["cases"]
    ]
    return [Table("Waiting for the loader", columns, rows)]


def features(result: Result) -> list[Table]:
    """The frozen step on kept features against the one that computes them."""
    columns = (
        "network",
        "type",
        "frozen",
        "seconds a step (p90)",
        "kept / computed",
        "FLOPs",
        "MB a scan",
        "paid for by steps a scan",
    )
    rows = []
    for c in result["cases"]:
        pay = c["steps_to_pay_a_scan"]
        rows.append(
            [
                named(c),
                c["dtype"],
                c["frozen"],
                seconds(c["step_seconds"]["kept"]),
                spread(c["ratio_kept_to_computed"]),
                percent(c["share_of_flops"]),
                f"{c['feature_bytes_a_scan'] / 1e6:.3g}",
                "no gain" if pay is None else f"{pay:.2g}",
            ]
        )
    return [Table("Features of the frozen levels, kept on the device against computed in each step", columns, rows)]


LEVELS = (0.6, 0.7, 0.75, 0.8, 0.85, 0.9)
"""Of the mean Dice, whose seconds are told."""


def seconds_to(level: float, runs: Sequence[Mapping[str, Any]]) -> float | None:
    """Seconds until the mean Dice of a network's runs is `level`, between two budgets by a straight line; None: never.

    Args:
      level: of the mean Dice.
      runs: of one network, data set, n and seed, with "taken" and "dice".
    """
    best = (0.0, 0.0)
    for run in sorted(runs, key=lambda r: float(r["taken"])):
        now = (float(run["taken"]), float(run["dice"]))
        if now[1] >= level:
            return best[0] + (level - best[1]) / (now[1] - best[1]) * (now[0] - best[0])
        best = now if now[1] > best[1] else best
    return None


def time_to_score(result: Result) -> list[Table]:
    """Seconds to each level of the mean Dice, means over seeds and folds; a dash where one never came there."""
    cells: dict[tuple[Any, ...], dict[Any, list[Mapping[str, Any]]]] = {}
    for run in result["runs"]:
        cells.setdefault((run["data"], run["n"], run["network"]), {}).setdefault(
            (run["seed"], run.get("fold", 0)), []
        ).append(run)
    rows = []
    for (data, n, network), seeds in cells.items():
        last = [max(runs, key=lambda r: r["budget"]) for runs in seeds.values()]
        row = [data, str(n), network, str(len(seeds))]
        for level in LEVELS:
            each = [seconds_to(level, runs) for runs in seeds.values()]
            row.append("-" if None in each else f"{sum(filter(None, each)) / len(each):.0f}")
        dice, lowest = (sum(r[k] for r in last) / len(last) for k in ("dice", "lowest"))
        rows.append([*row, f"{last[0]['budget']:.0f}", f"{dice:.3f}", f"{lowest:.3f}"])
    columns = ("data", "n", "network", "trainings", *(f"to {v}" for v in LEVELS), "longest", "Dice then", "lowest")
    return [Table("Seconds to a mean Dice on held-out scans, from nothing to a trained model", columns, rows)]


def memory_prediction(result: Result) -> list[Table]:
    """Predicted and compiled memory of a training step."""
    rows = [
        [
            c["name"],
            c["remat"],
            *(gigabytes(c[k]) for k in ("trace_peak", "predicted", "compiled")),
            f"{c['error']:+.0%}",
        ]
        for c in result["cases"]
    ]
    columns = ("network", "remat", "alive at once, by trace", "predicted", "compiled", "error")
    return [Table("Memory of a float32 training step on a CPU, GB (1e9 bytes)", columns, rows)]


def conv_lowering(result: Result) -> list[Table]:
    """Lowerings of one convolution against XLA's own."""
    names = list(dict.fromkeys(n for c in result["cases"] for n in c["ratio_to_native"]))
    rows = [
        [
            c.get("layer") or c["step"],
            c["dtype"],
            *(spread(c["ratio_to_native"][n]) if n in c["ratio_to_native"] else "-" for n in names),
        ]
        for c in result["cases"]
    ]
    title = f"Value and gradients of a convolution, to XLA's own (chosen here: {result['chosen']})"
    return [Table(title, ("layer", "type", *names), rows)]


def parallel(result: Result) -> list[Table]:
    """How far each way is from one device, what it exchanges, and what it takes."""
    tables = []
    for case in result["cases"]:
        name = case["network"]
        rows = [
            [way, freeze, *(f"{row[k]:.0e}" for k in ("losses", "params", "batch_stats"))]
            for freeze, ways in case["equality"].items()
            for way, row in ways.items()
        ]
        title = f"{name}: largest relative difference from one device after {case['steps']} steps"
        tables.append(Table(title, ("way", "frozen", "losses", "parameters", "running averages"), rows))
        rows = [
            [
                way,
                f"{row['temporary_bytes'] / 2**20:.0f} MiB",
                f"{row['times_less']:.2f}",
                ", ".join(f"{n} {kind}" for kind, n in row["collectives"].items()) or "none",
            ]
            for way, row in case["memory"].items()
        ]
        title = f"{name}: the compiler's temporary memory of a device, batch {'x'.join(map(str, case['memory_shape']))}"
        tables.append(Table(title, ("way", "a device", "times less", "exchanges"), rows))
        rows = [[way, spread(row)] for way, row in case["time_to_one"].items()]
        tables.append(Table(f"{name}: time of a step to that of one device", ("way", "ratio"), rows))
    return tables


def _cell(value: Any) -> str | None:
    """A value as a cell, or None where it is not one for a cell."""
    if isinstance(value, Mapping):
        keys = set(value)
        if {"median", "low", "high"} <= keys:
            return spread(value)
        return seconds(value) if {"median", "p90"} <= keys else None
    if isinstance(value, float):
        return f"{value:.3g}"
    if isinstance(value, list):
        whole = value and all(isinstance(v, int) for v in value)
        return "x".join(map(str, value)) if whole else None
    return str(value) if isinstance(value, str | int | bool) else None


def kernels(result: Result) -> list[Table]:
    """The ten longest kernels of a step, a table a network."""
    tables = []
    for c in result["cases"]:
        rows = [
            [
                k["kernel"],
                f"{1e3 * k['seconds']:.3f} ms",
                percent(k["share_of_step"]),
                f"{k['bytes'] / 1e6:.1f}" if "bytes" in k else "-",
                percent(k["of_copy"]) if "of_copy" in k else "-",
            ]
            for k in c["kernels"][:10]
        ]
        title = (
            f"Kernels of a step of {named(c)}, {c['dtype']}: {1e3 * c['step_seconds']['median']:.3g} ms, "
            f"{percent(c['of_copy'])} of what a copy ({result['copy_rate'] / 1e9:.0f} GB/s) moves in that time"
        )
        tables.append(Table(title, ("kernel", "time", "of all", "MB", "of a copy's rate"), rows))
    return tables


def plain(result: Result) -> list[Table]:
    """Any result with a list "cases" of dicts: their values that fit a cell."""
    cells = [
        {k.replace("_", " "): c for k, v in case.items() if (c := _cell(v)) is not None} for case in result["cases"]
    ]
    columns = list(dict.fromkeys(k for row in cells for k in row))
    return [Table(result["part"].replace("_", " "), columns, [[r.get(c, "-") for c in columns] for r in cells])]


TABLES: Mapping[str, Callable[[Result], list[Table]]] = {
    f.__name__: f
    for f in (
        step_time,
        compare,
        memory_limits,
        memory_prediction,
        loader,
        freezing,
        features,
        time_to_score,
        conv_lowering,
        parallel,
        kernels,
    )
}
"""By part; `plain` serves the others."""


def markdown(result: Result) -> list[str]:
    """The tables of a result, "part" and all, in Markdown."""
    return [table.markdown() for table in TABLES.get(result["part"], plain)(result) if table.rows]
