"""Every command that the README and docs/ show runs, with tiny lengths, on stand-ins for the reader's data."""

from pathlib import Path

import pytest

from tests.docs.shown_commands import CANNOT_RUN, PAGES, Desk, commands_of
from tests.test_docs import README

FIRST = 3
"""Commands of the README that the quick tests run: what a newcomer types first."""

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
    return [c for c in commands_of(page) if not any(part in c for part in CANNOT_RUN)]


WITH_COMMANDS = [p for p in PAGES if runnable(p)]


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store that several pages train on."""
    desk = Desk(tmp_path_factory.mktemp("docs") / "shared", README, scans=5)
    assert [fault for line in SHARED if (fault := fails(desk, line))] == []
    return desk.folder


def test_the_first_commands_of_the_readme_run(tmp_path: Path) -> None:
    desk = Desk(tmp_path / "desk", README, scans=3)
    lines = runnable(README)[:FIRST]
    assert [line.split()[2] for line in lines] == [f"experiments.{c}" for c in ("predict", "prepare", "finetune")]
    assert [fault for line in lines if (fault := fails(desk, line))] == []


@pytest.mark.slow
@pytest.mark.parametrize("page", WITH_COMMANDS, ids=lambda p: p.stem)
def test_every_command_of_a_page_runs(page: Path, shared: Path) -> None:
    desk = Desk(shared.parent / page.stem, page, scans=5, shared=shared)
    assert [fault for line in runnable(page) if (fault := fails(desk, line))] == []


def test_what_cannot_run_is_shown() -> None:
    shown = [c for page in PAGES for c in commands_of(page)]
    for part, reason in CANNOT_RUN.items():
        assert reason and any(part in c for c in shown), part
    assert len(shown) > 50 and {p.stem for p in WITH_COMMANDS} >= {"README", "commands", "liver", "models", "studies"}
