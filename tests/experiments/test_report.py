"""The report command, really run."""

from pathlib import Path

import pytest

from tests.experiments.test_commands import command
from tests.report.sweep_folder import write_sweep


@pytest.fixture(scope="module")
def workdir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("sweeps")
    for name in ("brain", "other"):
        write_sweep(folder, name, n=(2, 4), cells=False)
    return folder


def test_every_study_has_its_page(workdir: Path) -> None:
    printed = command("experiments.report", f"--workdir={workdir}")
    for name in ("brain", "other"):
        page = workdir / "report" / name / "report.html"
        assert f"report: {page}" in printed and page.is_file()
        assert f"Study {name}" in page.read_text(encoding="utf-8")


@pytest.mark.slow
def test_one_study_elsewhere(workdir: Path, tmp_path: Path) -> None:
    printed = command("experiments.report", f"--workdir={workdir}", "--study=other", f"--output={tmp_path}")
    assert printed.strip().endswith(f"report: {tmp_path / 'other' / 'report.html'}")
    assert not (tmp_path / "brain").exists()


def test_a_workdir_without_a_sweep_is_named(tmp_path: Path) -> None:
    assert "There is no sweep in" in command("experiments.report", f"--workdir={tmp_path}", fails=True)


@pytest.mark.slow
def test_faults_are_named(workdir: Path, tmp_path: Path) -> None:
    said = command("experiments.report", f"--workdir={workdir}", "--study=third", fails=True)
    assert "no sweep of a study 'third'" in said and "choose from brain, other" in said
    bad = write_sweep(tmp_path, cells=False)
    (bad / "results.csv").write_text("study\nx\n")
    assert "lacks the column" in command("experiments.report", f"--workdir={tmp_path}", fails=True)
