"""docs/notebook.ipynb: committed with what it gives, small, and it runs."""

import json
from pathlib import Path
from typing import Any

import pytest

PATH = Path(__file__).resolve().parents[1] / "docs" / "notebook.ipynb"


def code_cells(path: Path = PATH) -> list[dict[str, Any]]:
    cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
    return [c for c in cells if c["cell_type"] == "code"]


def test_it_is_short_small_and_committed_with_its_outputs() -> None:
    assert PATH.stat().st_size < 300_000
    lines = [line for c in code_cells() for line in "".join(c["source"]).splitlines() if line.strip()]
    assert len(lines) <= 20
    outputs = [o for c in code_cells() for o in c["outputs"]]
    assert all(c["execution_count"] for c in code_cells()) and not any(o["output_type"] == "error" for o in outputs)
    kinds = {kind for o in outputs for kind in o.get("data", {})}
    assert {"image/png", "application/vnd.jupyter.widget-view+json"} <= kinds


@pytest.mark.slow
def test_it_runs(tmp_path: Path) -> None:
    nbclient = pytest.importorskip("nbclient")
    nbformat = pytest.importorskip("nbformat")
    pytest.importorskip("ipyniivue")
    notebook = nbformat.read(PATH, as_version=4)
    before = [c["outputs"] for c in code_cells()]
    nbclient.NotebookClient(notebook, timeout=600, resources={"metadata": {"path": str(tmp_path)}}).execute()
    now = [c for c in notebook.cells if c.cell_type == "code"]
    assert len(now) == len(before)
    volumes = [o.data["text/plain"] for c in now for o in c.outputs if "text/plain" in o.get("data", {})]
    assert any("'dice'" in v for v in volumes) and any(v.startswith("{'caudate': ") for v in volumes)
    assert any("application/vnd.jupyter.widget-view+json" in o.get("data", {}) for c in now for o in c.outputs)
