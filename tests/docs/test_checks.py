"""What .ci/run, pre-commit and nox check is the same, so that what passes here passes there."""

import ast
import re

import yaml

from tests.test_docs import ROOT


def ci_checks() -> list[str]:
    """Commands of .ci/run behind the tests, without their folder."""
    lines = re.findall(r"^\.venv/bin/(.*)$", (ROOT / ".ci" / "run").read_text("utf-8"), re.MULTILINE)
    return [line for line in lines if not line.startswith("pip ")]


def noxfile() -> ast.Module:
    return ast.parse((ROOT / "noxfile.py").read_text("utf-8"))


def constants() -> dict[str, list[str]]:
    """Of the noxfile, which is read and not run: nox need not be here."""
    given = [n for n in noxfile().body if isinstance(n, ast.Assign) and isinstance(n.targets[0], ast.Name)]
    return {n.targets[0].id: list(ast.literal_eval(n.value)) for n in given if isinstance(n.targets[0], ast.Name)}


def test_pre_commit_and_nox_run_the_checks_of_ci() -> None:
    lint = [c for c in ci_checks() if not c.startswith("mkdocs")]
    assert len(lint) == 4
    hooks = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text("utf-8"))["repos"][0]["hooks"]
    assert [h["entry"] for h in hooks] == lint
    assert all(h["language"] == "system" and h["pass_filenames"] is False for h in hooks)
    assert constants()["LINT"] == lint


def test_nox_builds_the_site_as_ci_does_and_has_its_sessions() -> None:
    (site,) = (c for c in ci_checks() if c.startswith("mkdocs"))
    sessions = {n.name: ast.unparse(n) for n in noxfile().body if isinstance(n, ast.FunctionDef)}
    assert set(sessions) == {"tests", "lint", "docs"}
    run = [ast.literal_eval(a) for a in re.findall(r"session\.run\((.*), session\.create_tmp", sessions["docs"])]
    assert [" ".join(r) for r in run] == [site.removesuffix(' "$site"')]


def test_nox_has_the_pythons_that_the_readme_names() -> None:
    said = re.search(r"run under Python (.*) and (3\.\d+)", (ROOT / "README.md").read_text("utf-8"))
    assert said is not None and constants()["PYTHONS"] == [*said[1].split(", "), said[2]]
