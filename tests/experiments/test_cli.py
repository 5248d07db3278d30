"""How commands fail: really run, in a process of their own."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.processes import python

ROOT = Path(__file__).resolve().parents[2]

COMMAND = """
import errno, sys
from absl import flags
from tlseg_jax.commands import cli
from tlseg_jax.runtime.errors import InputError
from tlseg_jax.runtime.messages import log

KIND = flags.DEFINE_string("kind", "", "What happens.")

def main():
    if KIND.value == "input":
        raise InputError("The file x.nii.gz is empty: copy it again.")
    if KIND.value == "disk":
        raise OSError(errno.ENOSPC, "No space left on device", "/x/y")
    if KIND.value == "quota":
        raise OSError(errno.EDQUOT, "Disk quota exceeded", "/x/y")
    if KIND.value == "library":
        raise ValueError("RESOURCE_EXHAUSTED: writing /x: No space left on device [tensorstore]")
    if KIND.value == "bug":
        raise ValueError("a mistake of ours")
    if KIND.value == "interrupt":
        raise KeyboardInterrupt
    if KIND.value == "tells":
        log.info("`kind=tells` was given, and `other` is no flag.")
        log.warning("Take care.")
    if KIND.value == "lines":
        for i in range(200000):
            print("line", i)
    print("done")

if __name__ == "__main__":
    cli.run(main)
"""


@pytest.fixture(scope="module")
def script(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("cli") / "command.py"
    path.write_text(COMMAND)
    return path


def call(script: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return python(str(script), *arguments, PYTHONPATH=str(ROOT))


def test_success(script: Path) -> None:
    done = call(script)
    assert (done.returncode, done.stdout, done.stderr) == (0, "done\n", "")


@pytest.mark.parametrize("arguments", [[], ["--verbosity=0"]])
def test_what_the_library_tells_comes_once_on_stdout_with_settings_as_flags(script: Path, arguments: list[str]) -> None:
    done = call(script, "--kind=tells", *arguments)
    assert done.stdout == "--kind=tells was given, and `other` is no flag.\nTake care.\ndone\n"
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["--kind=input"], "error: The file x.nii.gz is empty: copy it again."),
        (["--kind=disk"], "error: The disk is full"),
        (["--kind=quota"], "error: The disk is full"),
        (["--kind=library"], "error: The disk is full"),
        (["input"], "error: 'input' is not a flag"),
    ],
)
def test_a_fault_is_one_line_and_code_2(script: Path, arguments: list[str], sentence: str) -> None:
    done = call(script, *arguments)
    assert done.returncode == 2
    assert done.stderr.startswith(sentence)
    assert done.stderr.count("\n") == 1
    assert "Traceback" not in done.stderr
    assert done.stdout == ""


def test_an_unknown_flag_is_refused(script: Path) -> None:
    done = call(script, "--knd=input")
    assert done.returncode != 0
    assert "knd" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_bug_of_ours_keeps_its_traceback(script: Path) -> None:
    done = call(script, "--kind=bug")
    assert done.returncode not in (0, 2)
    assert "Traceback" in done.stderr


def test_an_interrupt_says_how_to_go_on(script: Path) -> None:
    done = call(script, "--kind=interrupt")
    assert done.returncode == 128 + signal.SIGINT
    assert "run the same command again" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_reader_that_leaves_is_no_error(script: Path) -> None:
    with subprocess.Popen(
        [sys.executable, str(script), "--kind=lines"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
    ) as other:
        assert other.stdout is not None
        assert other.stderr is not None
        assert other.stdout.readline() == b"line 0\n"
        other.stdout.close()
        assert other.stderr.read() == b""
        assert other.wait(60) == 0


def test_a_terminal_that_cannot_show_a_name_is_no_reason_to_end() -> None:
    code = 'from tlseg_jax.commands import cli; cli.run(lambda: print("Zo\\u00eb \\udcfc done"))'
    done = python("-c", code, PYTHONIOENCODING="ascii")
    assert done.returncode == 0 and done.stdout == "Zo\\xeb \\udcfc done\n", done.stderr
