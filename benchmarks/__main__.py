"""Lists the benchmarks: `python -m benchmarks`."""

import ast
from pathlib import Path

SHARED = {"__init__", "__main__", "flags", "measure", "report", "sizes", "steps", "stores", "tables", "plots"}
"""Modules that are no benchmark."""


def parts(folder: Path = Path(__file__).parent) -> dict[str, str]:
    """Every benchmark's module and the question that its docstring begins with.

    Modules are read and not imported: one may need what this machine does not have.
    """
    found = {}
    for path in sorted(folder.glob("*.py")):
        text = path.read_text(encoding="utf-8")
        if path.stem not in SHARED and "__main__" in text:
            found[path.stem] = (ast.get_docstring(ast.parse(text)) or "").partition("\n\n")[0].replace("\n", " ")
    return found


def main() -> None:
    """Print the list."""
    found = parts()
    width = max(map(len, found))
    print("Benchmarks, each run as python -m benchmarks.NAME:\n")
    for name, question in found.items():
        print(f"  {name:<{width}}  {question}")
    print(
        "\nFlags of all: --rounds=20, --networks=switch32,..., --quick (reduced sizes; --noquick for the papers'), "
        "--out=FILE.\nA part's own: python -m benchmarks.NAME --help.\n"
        "Results go to benchmarks/results/<machine>/NAME.json; python -m benchmarks.report writes the tables in "
        "docs/performance.md and the plots of all."
    )


if __name__ == "__main__":
    main()
