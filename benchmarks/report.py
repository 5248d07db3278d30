"""Turns the results of all benchmarks into the tables of docs/performance.md and into plots.

    python -m benchmarks.report [--page=docs/performance.md]

Reads every benchmarks/results/<machine>/<part>.json (those of benchmarks.gpu in gpu/), writes the tables between the
lines <!-- benchmarks:begin --> and <!-- benchmarks:end --> of that page, and a plot of a part beside its JSON. Nothing
is measured: the same results give the same files.
"""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from absl import flags

from benchmarks.measure import RESULTS
from benchmarks.plots import PLOTS, draw
from benchmarks.tables import markdown
from tlseg_jax.commands import cli
from tlseg_jax.runtime.errors import InputError
from tlseg_jax.runtime.files import replacing

PAGE = flags.DEFINE_string("page", "docs/performance.md", "The file whose tables are written.")

BEGIN, END = "<!-- benchmarks:begin -->", "<!-- benchmarks:end -->"

ORDER = (
    "time_to_score",
    "step_time",
    "compare",
    "memory_limits",
    "loader",
    "freezing",
    "features",
    "together",
    "sweep",
    "parallel",
    "device_cache",
    "startup",
)
"""Of the parts; the others follow by name."""

SHOWN = ("jax", "jaxlib", "torch", "monai")
"""Versions that are told beside a table."""


def read_results(folder: Path = RESULTS) -> dict[str, list[dict[str, Any]]]:
    """Machine -> its parts' results, in the order of the tables.

    Raises:
      InputError: there is none, or a file is no result of a benchmark.
    """
    found: dict[str, list[dict[str, Any]]] = {}
    for path in sorted((*folder.glob("*/*.json"), *folder.glob("*/gpu/*.json"))):
        try:
            result = json.loads(path.read_text(encoding="utf-8"))
            complete = {"part", "command", "environment"} <= set(result)
        except (ValueError, TypeError):
            complete = False
        if not complete:
            raise InputError(
                f"{path} is no result of these benchmarks: remove it, or make it again with "
                f"'python -m benchmarks.{path.stem}'."
            )
        found.setdefault(path.relative_to(folder).parts[0], []).append(result)
    if not found:
        raise InputError(f"{folder} holds no results: run a benchmark first ('python -m benchmarks' lists them).")
    for results in found.values():
        results.sort(key=lambda r: (ORDER.index(r["part"]) if r["part"] in ORDER else len(ORDER), r["part"]))
    return found


def origin(result: dict[str, Any]) -> str:
    """The command that made a result, the device and the sizes, in one line."""
    environment = result["environment"]
    versions = ", ".join(f"{n} {environment['versions'][n]}" for n in SHOWN if n in environment.get("versions", {}))
    sizes = {"reduced": "reduced sizes", "papers": "the papers' sizes"}.get(result.get("sizes", ""))
    facts = [environment.get("device", environment.get("backend")), sizes, versions]
    return f"`{result['command']}`; " + "; ".join(f for f in facts if f) + "."


def tables_text(results: dict[str, list[dict[str, Any]]]) -> str:
    """All tables in Markdown, a heading a machine.

    Raises:
      InputError: a result lacks what its table shows.
    """
    blocks = ["A time is a median with its 90th percentile, a ratio a median with its 10th and 90th percentile."]
    for machine, parts in results.items():
        environment = parts[0]["environment"]
        blocks.append(f"### {machine}: {environment.get('cpu', '')}, {environment['cores']} cores")
        for result in parts:
            try:
                blocks += [*markdown(result), origin(result)]
            except (KeyError, TypeError, AttributeError) as e:
                raise InputError(
                    f"The result {machine}/{result['part']}.json lacks what its table shows ({e}): make it again "
                    f"with 'python -m benchmarks.{result['part']}'."
                ) from None
    return "\n\n".join(blocks)


def between_markers(page: str, text: str, name: str) -> str:
    """`page` with `text` between its markers in place of what was there.

    Raises:
      InputError: the markers are not there once each and in order.
    """
    if page.count(BEGIN) != 1 or page.count(END) != 1 or page.index(BEGIN) > page.index(END):
        raise InputError(f"{name} has nowhere to put the tables: add the lines {BEGIN} and {END} once each.")
    before, _, rest = page.partition(BEGIN)
    return f"{before}{BEGIN}\n\n{text}\n\n{END}{rest.partition(END)[2]}"


def draw_all(results: dict[str, list[dict[str, Any]]], folder: Path = RESULTS) -> Sequence[Path]:
    """Write the plots beside the results and tell where."""
    written = []
    for machine, parts in results.items():
        for result in parts:
            plot = PLOTS[result["part"]](result) if result["part"] in PLOTS else None
            if plot is not None and plot.points:
                path = folder / machine / f"{result['part']}.png"
                draw(plot, f"{result['part']}, {machine}", path)
                written.append(path)
    return written


def main() -> None:
    """Write tables and plots."""
    results = read_results()
    path = Path(PAGE.value)
    if not path.is_file():
        raise InputError(f"{path} is not there: run this in the project's folder, or give --page.")
    text = between_markers(path.read_text(encoding="utf-8"), tables_text(results), str(path))
    with replacing(path) as f:
        f.write(text)
    for written in (path, *draw_all(results)):
        print(f"written: {written}")


if __name__ == "__main__":
    cli.run(main)
