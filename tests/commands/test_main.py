"""The installed command `tlseg`: its list of commands, and how it refuses what is none."""

import subprocess
from pathlib import Path

import pytest

from tests.processes import python
from tlseg_jax.actions import there
from tlseg_jax.commands.main import COMMANDS, first_line, given_in
from tlseg_jax.runtime.errors import InputError

ROOT = Path(__file__).resolve().parents[2]

LISTING = """
import sys
from tlseg_jax.commands.main import main
try:
    main()
finally:
    print({"jax", "numpy", "absl"} & sys.modules.keys())
"""


def tlseg(*arguments: str) -> subprocess.CompletedProcess[str]:
    return python("-c", LISTING, *arguments)


@pytest.mark.parametrize("arguments", [(), ("help",), ("--help",)])
def test_it_lists_every_command_and_waits_for_no_package(arguments: tuple[str, ...]) -> None:
    done = tlseg(*arguments)
    lines = done.stdout.splitlines()
    assert done.returncode == 0 and lines[-1] == "set()"
    for name in COMMANDS:
        assert any(line.split()[:1] == [name] and first_line(name) in line for line in lines)


def test_every_command_of_a_clone_is_one_of_it() -> None:
    assert {p.stem for p in (ROOT / "experiments").glob("*.py")} - {"__init__"} == set(COMMANDS)


@pytest.mark.parametrize(
    ("name", "hint"), [("predcit", "did you mean predict or pretrain?"), ("zzz", "choose from prepare, pretrain,")]
)
def test_what_is_no_command_is_refused_in_one_sentence(name: str, hint: str) -> None:
    done = tlseg(name, "--input=x")
    assert done.returncode == 2 and done.stderr.count("\n") == 1
    assert done.stderr.startswith(f"error: There is no command '{name}': {hint}")


@pytest.mark.parametrize(
    ("name", "flags", "sentence"),
    [
        ("predict", "--model=brain --input=no.nii --output=x.nii", "--input=no.nii does not exist: check the path."),
        ("predict", "--model brain --input no.nii --output x.nii", "--input=no.nii does not exist: check the path."),
        (
            "predict",
            "--model=brian --input=no.nii",
            "No model named 'brian' comes with tlseg_jax: choose from brain, whole_brain.",
        ),
        ("predict", "--run=brain,no --input=README.md", "--run=no does not exist: check the path."),
        (
            "predict",
            "--model=brain --input=README.md --output={root}/README.md/a/b.nii",
            "The folder {root}/README.md/a cannot be made or written to (Not a directory): choose another.",
        ),
        ("evaluate", "--run=no --dataset=hdt_c --store=docs", "--run=no does not exist: check the path."),
        ("evaluate", "--run=docs --dataset=hdt_c --store=no", "--store=no does not exist: check the path."),
        (
            "finetune",
            "--pretrained=brain --task=hdt_c --store=docs",
            "docs holds no prepared data set 'hdt_c': run 'tlseg prepare --dataset=hdt_c --source=... --store=docs' "
            "first.",
        ),
        ("finetune", "--pretask=hdt_v --task=hdt_c --store=docs", "docs holds no prepared data set 'hdt_v': run "),
        ("finetune", "--pretask=none --store=docs", "docs holds no prepared data set 'hdt_c': run "),
        ("finetune", "--pretrained=no --n=2", "--pretrained=no does not exist: check the path."),
        ("finetune", "--pretask=none --workdir=README.md", "The folder README.md cannot be made or written to"),
        ("pretrain", "--pretask=hdt_q --store=docs", "There is no data set named 'hdt_q': did you mean hdt_"),
        ("prepare", "--dataset=hdt_c --source=no --store=x", "--source=no does not exist: check the path."),
        ("export", "--run=no --output=x", "--run=no does not exist: check the path."),
        ("report", "--workdir=no", "--workdir=no does not exist: check the path."),
    ],
)
@pytest.mark.parametrize("clone", [False, True])
def test_a_path_that_leads_nowhere_is_told_before_anything_slow_is_imported(
    name: str, flags: str, sentence: str, clone: bool
) -> None:
    given = flags.format(root=ROOT).split()
    if clone:
        program = f"import sys\nfrom tlseg_jax.commands.main import start\ntry: start({name!r})\n"
        program += "finally: print({'jax', 'SimpleITK', 'nibabel', 'orbax'} & sys.modules.keys())"
        done = python("-c", program, *given)
    else:
        done = tlseg(name, *given)
    assert done.returncode == 2 and done.stderr.count("\n") == 1
    assert done.stderr.startswith("error: " + sentence.format(root=ROOT))
    assert "jax" not in done.stdout  # the last line has what was imported


def test_a_name_that_nothing_has_is_told_with_those_that_the_store_holds(tmp_path: Path) -> None:
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "manifest.json").write_text("{}")
    (tmp_path / "three").mkdir()
    with pytest.raises(InputError, match="holds no prepared data set 'mine', but one, two: name one of these"):
        there.check("finetune", {"pretask": "none", "task": "mine", "store": tmp_path})
    there.check("finetune", {"pretask": "none", "task": "two", "store": tmp_path})


def test_addresses_and_what_is_behind_two_dashes_are_not_looked_at() -> None:
    assert given_in(["--a=1", "--b", "2", "--c", "--a=3=4", "-d=5", "--", "--a=6"]) == {
        "a": "3=4", "b": "2", "c": "", "d": "5",
    }  # fmt: skip
    there.check("evaluate", {"run": "s3://bucket/run", "dataset": "hdt_c", "store": "gs://bucket/store"})
    there.check("predict", {"model": "brain", "input": object()})


def test_a_command_has_its_flags_and_its_usage() -> None:
    program = "import sys; from tlseg_jax.commands.main import main; sys.argv[1:] = ['report', '--help']; main()"
    done = python("-c", program)
    assert "    tlseg report --workdir=DIR" in done.stdout and "\ntlseg report:\n" in done.stdout
    assert {"--workdir:", "--study:", "--output:", "--viewers:"} <= set(done.stdout.split())
