"""The package's public names: imported late, the same settings as the commands', and faults of one sentence."""

import gzip
import inspect
import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
from absl import flags as absl_flags
from absl.testing import flagsaver

import tlseg_jax as tl
from tlseg_jax.actions.export import Exporting
from tlseg_jax.actions.keywords import Keywords
from tlseg_jax.actions.prepare import Preparing
from tlseg_jax.actions.report import Reporting
from tlseg_jax.commands import flags
from tlseg_jax.datasets.lookup import get_spec
from tlseg_jax.datasets.spec import PlaneGrid
from tlseg_jax.studies.study import Study

ROOT = Path(__file__).resolve().parents[2]


def python(program: str) -> str:
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_importing_the_package_imports_nothing_else() -> None:
    program = (
        "import sys, tlseg_jax as tl; tl.__version__, dir(tl); print({'jax', 'numpy', 'absl'} & sys.modules.keys())"
    )
    assert python(program) == "set()"


def test_a_folder_of_the_same_name_hides_no_function_and_no_flag_is_defined() -> None:
    said = python(
        "import tlseg_jax.report.registry, tlseg_jax.export.card, tlseg_jax.evaluate.metrics\n"
        "import sys, tlseg_jax as tl\n"
        "from absl import flags\n"
        "print(*(type(getattr(tl, n)).__name__ for n in ('report', 'export', 'evaluate')))\n"
        "print([m for m in flags.FLAGS.flags_by_module_dict() if m.startswith('tlseg_jax')], flags.FLAGS.is_parsed())\n"
    )
    assert said.splitlines() == ["function function function", "[] False"]


def test_public_names_are_there_for_people_and_type_checkers() -> None:
    assert set(tl.__all__) <= set(dir(tl))
    for name in tl.__all__:
        assert inspect.getdoc(getattr(tl, name)), name
    declared = re.findall(r"^    from tlseg_jax\.api import (\w+) as \1$", Path(str(tl.__file__)).read_text(), re.M)
    assert sorted(declared) == tl.__all__ == sorted(tl.__all__)
    with pytest.raises(AttributeError, match="has no attribute 'finetun'"):
        _ = tl.finetun  # type: ignore[attr-defined]


FLAGS = """
import importlib, sys
from absl import flags
own = set(flags.FLAGS)
for name in sys.argv[1].split(","):
    importlib.import_module(f"tlseg_jax.commands.{name}")
    shown = {f.name for f in flags.FLAGS.get_key_flags_for_module(f"tlseg_jax.commands.{name}")}
    print(name, *sorted(shown))
    for flag in shown:
        delattr(flags.FLAGS, flag)
    for module in [m for m in sys.modules if m.startswith("tlseg_jax.commands.") and not m.endswith(".flags")]:
        for flag in {f.name for f in flags.FLAGS.get_flags_for_module(module)} & set(flags.FLAGS):
            delattr(flags.FLAGS, flag)
        del sys.modules[module]
"""

CALLS: dict[str, tuple[Any, ...]] = {
    "prepare": (),
    "pretrain": ("hdt_c",),
    "finetune": ("none",),
    "evaluate": ("run", "hdt_c", "store"),
    "predict": ("run", "scan", "output"),
    "sweep": ("brain",),
}
OF_SEVERAL_PROCESSES = {"coordinator", "num_processes", "process_id"}


def test_every_flag_of_a_command_is_a_keyword_of_the_function(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    names = ",".join([*CALLS, "export", "report"])
    said = subprocess.run([sys.executable, "-c", FLAGS, names], cwd=ROOT, capture_output=True, text=True, check=True)
    for line in said.stdout.splitlines():
        name, *flags = line.split()
        function = getattr(tl, name)
        there = set(inspect.signature(function).parameters)
        if name in CALLS:
            with pytest.raises(tl.InputError, match=f"tlseg_jax.{name} has no setting 'qqqqqqqq': choose from") as e:
                function(*CALLS[name], qqqqqqqq=1)
            there |= set(re.findall(r"\w+", str(e.value).partition("choose from")[2]))
        assert len(flags) > 3 and set(flags) - there - OF_SEVERAL_PROCESSES == set(), name


@pytest.mark.parametrize(
    ("call", "sentence"),
    [
        (lambda: tl.finetune("none", setps=3), r"^tlseg_jax.finetune has no setting 'setps': did you mean steps\?"),
        (
            lambda: tl.finetune("none", n="two"),
            "^`n=two`: 'two' is no number of labelled scans: give 1 or more, or all",
        ),
        (
            lambda: tl.finetune("none", n=0),
            "^`n=0`: no labelled scan leaves nothing to train on: give 1 or more, or all; a pre-trained model "
            r"\(`pretrained`\) segments without any, by 'tlseg predict', and is scored by 'tlseg evaluate'\.$",
        ),
        (lambda: tl.finetune("none", steps=0), "^`steps=0` must be a whole number, 1 or more"),
        (lambda: tl.finetune("none", precision="half"), "^`precision=half` must be one of float32, bfloat16"),
        (lambda: tl.finetune(), "^`pretask` is missing"),
        (lambda: tl.prepare("hdt_c"), "^`source` is missing"),
        (lambda: tl.predict(model="liver", input="x.nii"), "^No model named 'liver' comes with tlseg_jax"),
        (lambda: tl.predict("run", "x.nii", model="brain"), "^`model` and `run` are two models"),
        (lambda: tl.sweep("brian"), "^There is no study named 'brian': choose from brain"),
        (lambda: tl.report(study="brain"), "^There is no sweep in"),
        (lambda: tl.evaluate("none", "hdt_c", "store"), "^`run=none` does not exist: check the path"),
        (lambda: tl.predict(model="brain", input="none.nii", output="x"), "^`input=none.nii` does not exist"),
        (lambda: tl.prepare("hdt_c", "none", "store"), "^`source=none` does not exist: check the path"),
    ],
)
def test_a_fault_is_an_error_of_one_sentence(
    call: Any, sentence: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(tl.InputError, match=sentence):
        call()


def test_a_whole_number_for_a_length_is_the_setting_that_the_command_has() -> None:
    (spacing,) = Keywords("prepare", {"spacing": 2}).given(Preparing, only=("spacing",)).values()
    spec = get_spec("hdt_c").at_spacing(spacing)
    assert json.dumps(spec.to_dict()) == json.dumps(get_spec("hdt_c").at_spacing(float("2")).to_dict())


@pytest.mark.parametrize(
    ("of", "name", "text", "value"),
    [
        (Preparing, "label_values", "11, 50", ("11", "50")),
        (Preparing, "label_values", 11, ("11",)),
        (Preparing, "join", "hdt_c,hdt_v", ("hdt_c", "hdt_v")),
        (Preparing, "join", "", ()),
        (Study, "n", "2,8,all", (2, 8, None)),
        (Study, "n", 2, (2,)),
        (PlaneGrid, "window", "-100,400", (-100.0, 400.0)),
        (Reporting, "compare", '"a,b:x.csv",c:y.csv', ("a,b:x.csv", "c:y.csv")),
        (Exporting, "platforms", "cpu,tpu", ("cpu", "tpu")),
    ],
)
def test_text_for_a_list_is_read_as_the_command_reads_it(of: type, name: str, text: Any, value: Any) -> None:
    assert Keywords("x", {name: text}).given(of, only=(name,)) == {name: value}
    flag = flags.define(of, only=(name,))
    with flagsaver.flagsaver():
        absl_flags.FLAGS(["command", f"--{name}={text}"])
        assert flag.value(name) == value
    delattr(absl_flags.FLAGS, name)


@pytest.mark.parametrize(
    ("of", "name", "text", "sentence"),
    [
        (PlaneGrid, "window", "-100", "^`window=-100` must be 2 numbers, with a comma between them"),
        (PlaneGrid, "window", "low,400", "^`window=low,400` must be 2 numbers, with a comma between them"),
        (Study, "n", "2,some", "^`n=2,some`: 'some' is no number of labelled scans: give 1 or more, or all"),
        (Study, "n", [2, 0], r"^`n=\[2, 0\]`: no labelled scan leaves nothing to train on"),
    ],
)
def test_a_list_that_cannot_be_read_is_one_sentence(of: type, name: str, text: Any, sentence: str) -> None:
    with pytest.raises(tl.InputError, match=sentence):
        Keywords("x", {name: text}).given(of, only=(name,))


def test_an_array_without_a_place_and_a_scan_that_is_not_there_are_refused() -> None:
    model = tl.load("brain")
    with pytest.raises(tl.InputError, match="give `affine`, or a nibabel image"):
        model(np.zeros((8, 8, 8)))
    with pytest.raises(tl.InputError, match=r"^The scan nowhere\.nii does not exist"):
        model("nowhere.nii")
    with pytest.raises(tl.InputError, match="A loaded model has its settings"):
        tl.predict(model, "nowhere.nii", trust=True)


def test_view_lays_the_segmentation_over_the_scan() -> None:
    pytest.importorskip("ipyniivue")
    scan = nib.Nifti1Image(np.arange(60, dtype=np.float32).reshape(3, 4, 5), np.diag([2.0, 2, 3, 1]))
    label = np.zeros((3, 4, 5), np.uint8)
    label[1, 2, 3] = 7
    below, over = tl.view(scan, label, opacity=0.3).volumes
    assert over.opacity == pytest.approx(0.3) and below.opacity == 1.0
    for shown, voxels in ((below, scan.get_fdata()), (over, label)):
        read = nib.Nifti1Image.from_bytes(gzip.decompress(bytes(shown.data)))
        assert np.array_equal(read.get_fdata(), voxels) and np.array_equal(read.affine, scan.affine)
    with pytest.raises(tl.InputError, match=r"`segmentation` has shape \(2, 2, 2\) and the scan \(3, 4, 5\)"):
        tl.view(scan, label[:2, :2, :2])


def test_view_without_its_package_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ipyniivue", None)
    with pytest.raises(tl.InputError, match=r"pip install 'tlseg-jax\[notebook\]'"):
        tl.view("scan.nii.gz")
