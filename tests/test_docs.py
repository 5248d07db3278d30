"""What the README and docs/ say is there: commands, flags, files, links; and all of docs/ is in the site."""

import re
from pathlib import Path

import pytest
import yaml

from benchmarks import report
from tests.processes import python

ROOT = Path(__file__).resolve().parents[1]
README = ROOT / "README.md"
PAGES = [README, ROOT / "CONTRIBUTING.md", ROOT / "CHANGELOG.md", *sorted((ROOT / "docs").glob("*.md"))]
COMMANDS = sorted(p.stem for p in (ROOT / "experiments").glob("*.py") if "__main__" in p.read_text())
LINK = re.compile(r"\]\(([^)\s]+)\)")
FOREIGN = {"strict", "check", "all"}
"""Flags of other programs that a page names."""


def shown_code(path: Path) -> list[str]:
    """Every line of a fenced block or an indented one, with its continuation, and what stands between backticks."""
    text = re.sub(r"\\\n\s*", " ", path.read_text(encoding="utf-8"))
    blocks = re.findall(r"^```\w*\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
    rest = re.sub(r"^```\w*\n.*?^```$", "", text, flags=re.MULTILINE | re.DOTALL)
    lines = [line.partition("  #")[0] for block in blocks for line in block.splitlines()]
    return [*lines, *re.findall(r"^ {4}(python .*)$", rest, re.MULTILINE), *re.findall(r"`([^`\n]+)`", rest)]


def calls() -> dict[str, set[str]]:
    """Module -> flags, of all calls that are shown; "" -> flags that are named by themselves."""
    found: dict[str, set[str]] = {}
    for line in (line for path in PAGES for line in shown_code(path)):
        for part in re.split(r" -- | && ", line):
            # "finetune --x" in running text is the command, too.
            match = re.search(rf"(?:-m )?\b((?:experiments|benchmarks|tests)\.[\w.]+|^(?:{'|'.join(COMMANDS)}) )", part)
            name = match[1].strip() if match else ""
            name = f"experiments.{name}" if name in COMMANDS else name
            found.setdefault(name, set()).update(re.findall(r"(?<![\w-])--(\w+)", part))
    return found


CALLS = calls()


def own_flags(command: str) -> set[str]:
    shown = python("-m", f"experiments.{command}", "--helpfull").stdout
    there = set(re.findall(r"^\s+(?:-\?,)?--(?:\[no\])?(\w+)", shown, re.MULTILINE))
    # With --no in front, of flags that are on or off.
    return there | {f"no{n}" for n in re.findall(r"^\s+--\[no\](\w+)", shown, re.MULTILINE)}


FLAGS: dict[str, set[str]] = {}


def flags_of(command: str) -> set[str]:
    if command not in FLAGS:
        FLAGS[command] = own_flags(command)
    return FLAGS[command]


def measured_flags() -> set[str]:
    """Of the benchmarks and the trials among the tests, by their definitions: some need packages that are not here."""
    sources = [*(ROOT / "benchmarks").glob("*.py"), *(ROOT / "tests").rglob("*_trials.py")]
    text = "\n".join(p.read_text(encoding="utf-8") for p in sources)
    found = set(re.findall(r"DEFINE_\w+\(\s*\"(\w+)\"|add_argument\(\s*\"--(\w+)\"", text))
    names = {a or b for a, b in found}
    return names | {f"no{n}" for n in names} | {"help"}


def test_calls_are_found_in_every_kind_of_place() -> None:
    assert {"pretrained", "task", "n", "store", "steps"} <= CALLS["experiments.finetune"]
    assert {"structures", "pixels", "from_labels", "shard", "join"} <= CALLS["experiments.prepare"]
    assert {"kills", "seed"} <= CALLS["tests.train.kill_trials"] and "spoiled" in CALLS["benchmarks.trust"]
    assert {"remat", "frozen_bn", "cache"} <= CALLS[""]
    assert {c for c in COMMANDS if f"experiments.{c}" not in CALLS} == set()


def test_every_module_that_is_called_is_there() -> None:
    for name in CALLS:
        if name and name != "benchmarks.NAME":
            assert (ROOT / f"{name.replace('.', '/')}.py").is_file(), name


@pytest.mark.parametrize("command", COMMANDS)
def test_every_flag_of_a_command_exists(command: str) -> None:
    assert CALLS[f"experiments.{command}"] - flags_of(command) == set()


def test_every_flag_of_a_benchmark_exists() -> None:
    for name, given in CALLS.items():
        if name.startswith(("benchmarks.", "tests.")):
            assert given - measured_flags() == set(), name


def test_every_flag_that_is_named_by_itself_is_one_of_some_command() -> None:
    there = measured_flags().union(*map(flags_of, COMMANDS))
    assert CALLS[""] - there - FOREIGN == set()


def test_every_file_that_is_named_is_there() -> None:
    for path in PAGES:
        for text in shown_code(path):
            for name in re.findall(r"^((?:tlseg_jax|experiments|benchmarks|tests|docs|deploy)/[\w./-]*)$", text):
                assert "NAME" in name or (ROOT / name).exists(), f"{path.name}: {name}"


def slugs(path: Path) -> set[str]:
    """The anchors of a page's headings, as GitHub and MkDocs make them."""
    text = re.sub(r"^```.*?^```$", "", path.read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL)
    headings = re.findall(r"^#+ (.*)$", text, re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", h.lower()).strip().replace(" ", "-") for h in headings}


@pytest.mark.parametrize(
    "path", [*PAGES, ROOT / "deploy" / "README.md", *sorted((ROOT / "benchmarks").glob("*.md"))], ids=lambda p: p.name
)
def test_every_link_leads_somewhere(path: Path) -> None:
    for target in LINK.findall(path.read_text(encoding="utf-8")):
        if "://" in target:
            continue
        name, _, anchor = target.partition("#")
        to = (path.parent / name).resolve() if name else path
        assert to.exists(), f"{path.name}: {target}"
        assert not anchor or anchor in slugs(to), f"{path.name}: {target}"


def test_the_readme_is_a_front_door() -> None:
    text = README.read_text(encoding="utf-8")
    assert len(text.splitlines()) <= 150 and report.BEGIN not in text
    assert text.count("<!-- test command -->\n```bash\n") == 1  # .ci/run takes it from there
    linked = {target.partition("#")[0] for target in LINK.findall(text)}
    assert {f"docs/{p.name}" for p in (ROOT / "docs").glob("*.md")} <= linked
    assert sum(p.stat().st_size for p in (ROOT / "docs" / "images").iterdir()) < 400_000


def test_every_page_is_in_the_site() -> None:
    site = yaml.safe_load((ROOT / "mkdocs.yml").read_text(encoding="utf-8"))

    def pages(nav: object) -> set[str]:
        if isinstance(nav, str):
            return {nav}
        parts = nav.values() if isinstance(nav, dict) else nav
        assert parts is not None
        return set().union(*(pages(p) for p in parts))  # type: ignore[attr-defined]

    there = {p.name for p in (ROOT / "docs").glob("*.md")}
    assert there | {"index.md", "CONTRIBUTING.md", "CHANGELOG.md", "deploy/README.md"} <= pages(site["nav"])


def test_the_tables_have_their_place() -> None:
    text = (ROOT / "docs" / "performance.md").read_text(encoding="utf-8")
    tables = report.tables_text(report.read_results(ROOT / report.RESULTS))
    assert report.between_markers(text, tables, "performance.md") == text
