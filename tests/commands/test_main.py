"""The installed command `tlseg`: its list of commands, and how it refuses what is none."""

import subprocess
import sys
from pathlib import Path

import pytest

from tlseg_jax.commands.main import COMMANDS, first_line

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
    return subprocess.run(
        [sys.executable, "-c", LISTING, *arguments], cwd=ROOT, capture_output=True, text=True, check=False
    )


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


def test_a_command_has_its_flags_and_its_usage() -> None:
    program = "import sys; from tlseg_jax.commands.main import main; sys.argv[1:] = ['report', '--help']; main()"
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=False)
    assert "    tlseg report --workdir=DIR" in done.stdout and "\ntlseg report:\n" in done.stdout
    assert {"--workdir:", "--study:", "--output:", "--viewers:"} <= set(done.stdout.split())
