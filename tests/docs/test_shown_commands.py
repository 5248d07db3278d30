"""Every command that the README and docs/ show runs, with tiny lengths, on stand-ins for the reader's data."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.docs.shown_commands import CANNOT_RUN, COMMAND, PAGES, Desk, commands_of, data_of, python_of, shortened
from tests.test_docs import README, ROOT

SHARED = (
    "python -m experiments.prepare --dataset=hdt_c --source=SCANS --store=DIR --label_values=11,50",
    "python -m experiments.prepare --dataset=hdt_v --source=SCANS --store=DIR --label_values=4,43",
    "python -m experiments.prepare --dataset=hdt_wb --source=SCANS --store=DIR --label_values=all",
    "python -m experiments.prepare --dataset=oas_c --source=OTHERS --store=DIR --label_values=11,50",
)


def fails(desk: Desk, line: str) -> str:
    """What went wrong; "" for nothing."""
    done = desk.run(line)
    said = f"{done.stdout[-500:]}{done.stderr[-1500:]}"
    return "" if done.returncode == 0 else f"{line}\nended with {done.returncode}: {said}"


def runnable(page: Path) -> list[str]:
    """Commands, and the page's Python behind them."""
    commands = [c for c in commands_of(page) if not any(part in c for part in CANNOT_RUN)]
    return [*commands, *python_of(page)] if commands else []


WITH_COMMANDS = [p for p in PAGES if runnable(p)]


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store that several pages train on."""
    desk = Desk(tmp_path_factory.mktemp("docs") / "shared", README, scans=5)
    assert [fault for line in SHARED if (fault := fails(desk, line))] == []
    return desk.folder


READ_FLAGS = """
import importlib, json, os, sys
import tlseg_jax.api  # once for all
from absl import flags

for name, calls in json.load(sys.stdin).items():
    if not os.fork():  # the commands' flags have the same names
        importlib.import_module(f"tlseg_jax.commands.{name}")
        for words in calls:
            flags.FLAGS.unparse_flags()
            try:
                rest = flags.FLAGS(words)[1:]
            except flags.Error as e:
                rest = [str(e)]
            if rest and "--" not in words:
                print(" ".join(words), rest, flush=True)
        print(f"{len(calls)} read", flush=True)
        os._exit(0)
    os.wait()
"""


def test_every_command_is_one_that_the_program_reads() -> None:
    calls: dict[str, list[list[str]]] = {}
    for line in dict.fromkeys(c for page in PAGES for c in commands_of(page)):
        match = COMMAND.match(line)
        assert match is not None
        calls.setdefault(match[1], []).append(shortened(line)[2:])
    done = subprocess.run(
        [sys.executable, "-c", READ_FLAGS], input=json.dumps(calls), cwd=ROOT, capture_output=True, text=True
    )
    assert done.stdout.splitlines() == [f"{len(c)} read" for c in calls.values()], done.stderr


def test_the_first_command_of_the_readme_runs(tmp_path: Path) -> None:
    (first, *_) = runnable(README)
    assert "predict --model=brain" in first
    assert fails(Desk(tmp_path / "desk", README, scans=1), first) == ""


@pytest.mark.slow
@pytest.mark.parametrize("page", WITH_COMMANDS, ids=lambda p: p.stem)
def test_every_command_of_a_page_runs(page: Path, shared: Path) -> None:
    desk = Desk(shared.parent / page.stem, page, scans=5, shared=shared)
    faults = [fault for line in runnable(page) if (fault := fails(desk, line))]
    assert not faults, "\n\n".join(faults)


def test_the_data_of_a_study_are_those_that_its_file_names() -> None:
    sweep = "python -m experiments.sweep --store=DIR"
    assert data_of(f"{sweep} --study=oasis --workdir=W") == ["hdt_c", "oas_c", "fs_c", "hdt_v", "hdt_wb"]
    assert data_of(f"{sweep} --task=mine --study=chaos") == ["mine", "mr_chaos", "ct_msd"]
    assert data_of(f"{sweep} --study=clinic.toml") == []


def test_what_cannot_run_is_shown() -> None:
    shown = [c for page in PAGES for c in commands_of(page)]
    for part, reason in CANNOT_RUN.items():
        assert reason and any(part in c for c in shown), part
    assert len(shown) > 50 and {p.stem for p in WITH_COMMANDS} >= {"README", "commands", "liver", "models", "studies"}
