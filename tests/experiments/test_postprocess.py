"""The postprocess command on small stores, with a network that is a threshold in place of a trained one."""

import json
from pathlib import Path

import pytest

from tests.conftest import csv_rows
from tests.evaluate.slices import write_slice_store
from tests.processes import python
from tlseg_jax.evaluate.forest_file import load_forest

# One process for all calls: importing JAX and the rest takes much longer than the calls themselves.
DRIVER = """
import json, sys
from absl import flags
from tlseg_jax.commands import postprocess as command
from tests.evaluate.test_false_positives import spotted
from tlseg_jax.runtime.errors import InputError
from tlseg_jax.models.networks import get_network
from tlseg_jax.checkpoints.checkpoint import SavedModel

command.load_predictor = lambda saved: spotted
for case in json.loads(sys.argv[1]):
    seen = {"seen_images": case["seen"], "seen_persons": []}
    saved = SavedModel(get_network(case["network"]), {}, {}, seen, 1)
    command.load_model = lambda run: saved
    flags.FLAGS["structure"].value = None
    flags.FLAGS(["postprocess", *case["flags"]])
    try:
        command.main()
        print("done")
    except InputError as e:
        print("error:", e)
"""

CASES = {
    "works": ({"train": 4}, {}, "done"),
    "gaps": ({"samples": (0, 1, 4)}, {"seen": ["sha0", "sha1"]}, "are not consecutive"),
    "seen": ({"train": 2}, {}, "1 test subject(s) of tiny2d (vol-2) were trained on"),
    "unseen": ({"train": 3}, {"seen": []}, "holds 0 volume(s) that"),
    "no_test": ({"train": 3, "test": 0}, {}, "and 0 for test"),
    "volumes": ({"train": 3}, {"network": "switch8x2"}, "is a 3D run and tumours are filtered of 2D runs only"),
    "liver": ({"train": 3}, {"flags": ["--structure=liver"]}, "hold 3 true and 0 false component(s)"),
    "kidney": ({"train": 3}, {"flags": ["--structure=kidney"]}, "'kidney' is not both an output"),
}
"""Name -> the store, what to change in the call, and what the last line says."""


@pytest.fixture(scope="module")
def called(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, str]]:
    """The folder of all cases, and what each call printed."""
    root = tmp_path_factory.mktemp("postprocess")
    calls = []
    for name, (store, change, _) in CASES.items():
        write_slice_store(root / name / "lits", **store)  # type: ignore[arg-type]
        flags = [f"--run={root / name / 'run'}", "--dataset=lits", f"--store={root / name}"]
        call = {"seen": ["sha0", "sha1", "sha2"], "network": "unet2d", "flags": []} | change
        calls.append(call | {"flags": flags + call["flags"]})  # type: ignore[operator]
    done = python("-c", DRIVER, json.dumps(calls))
    assert done.returncode == 0, done.stderr
    printed: list[list[str]] = [[]]
    for line in done.stdout.splitlines():
        printed[-1].append(line)
        if line == "done" or line.startswith("error:"):
            printed.append([])
    return root, {name: "\n".join(lines) for name, lines in zip(CASES, printed, strict=False)}


def test_forest_and_effect_are_in_the_run_folder(called: tuple[Path, dict[str, str]]) -> None:
    root, printed = called
    folder = root / "works" / "run" / "postprocess"
    assert sorted(p.name for p in folder.iterdir()) == ["effect.csv", "effect.json", "forest.json", "forest.skops"]
    # vol-3 is a training volume of the store that this run has not seen.
    assert load_forest(folder).subjects == ("vol-0", "vol-1", "vol-2")
    effect = json.loads((folder / "effect.json").read_text())
    assert effect["structure"] == "tumour" and effect["train"] == ["vol-0", "vol-1", "vol-2"]
    assert (effect["before"]["false"], effect["after"]["false"], effect["after"]["recall"]) == (2, 0, 1.0)
    assert [r["subject"] for r in csv_rows(folder / "effect.csv")] == ["vol-4", "vol-5"]
    assert "detection precision" in printed["works"] and "6 true and 3 false components" in printed["works"]


@pytest.mark.parametrize("name", [n for n in CASES if n != "works"])
def test_what_cannot_be_done_is_one_sentence(called: tuple[Path, dict[str, str]], name: str) -> None:
    root, printed = called
    last = printed[name].splitlines()[-1]
    assert last.startswith("error:") and CASES[name][2] in last
    assert not (root / name / "run" / "postprocess").exists()
