"""The folder of compiled programs: where it is, what is kept in it, and that it never stops a command."""

import os
import stat
import subprocess
import sys
import zlib
from collections.abc import Iterator
from pathlib import Path

import jax
import pytest

from tlseg_jax.runtime import compilation_cache
from tlseg_jax.runtime.compilation_cache import default_folder, drop_broken, drop_oldest, use_compilation_cache

ROOT = Path(__file__).resolve().parents[2]

PROGRAM = """
import sys
import jax, jax.numpy as jnp
from jax._src import monitoring
from tlseg_jax.runtime.compilation_cache import use_compilation_cache
hits = []
monitoring.register_event_listener(lambda name, **_: hits.append(name) if name.endswith("cache_hits") else None)
note = use_compilation_cache(sys.argv[1] if len(sys.argv) > 1 else None)
print(jax.jit(lambda x: (x * 3).sum())(jnp.arange(4.0)), len(hits) > 0, note)
"""


@pytest.fixture(autouse=True)
def as_it_was(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    names = ("jax_compilation_cache_dir", "jax_persistent_cache_min_compile_time_secs")
    before = {n: jax.config.values[n] for n in names}
    monkeypatch.delenv("JAX_COMPILATION_CACHE_DIR", raising=False)
    yield
    for n, value in before.items():
        jax.config.update(n, value)


def call(*arguments: str, home: Path, **environment: str) -> list[str]:
    env = {k: v for k, v in os.environ.items() if not k.startswith(("JAX_", "XDG_"))}
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, *arguments],
        capture_output=True,
        text=True,
        check=True,
        timeout=120,
        env=env | {"HOME": str(home), "PYTHONPATH": str(ROOT)} | environment,
    )
    assert done.stderr == ""
    return done.stdout.split(maxsplit=2)


def programs(folder: Path) -> list[Path]:
    return sorted(folder.glob("*-cache"))


def test_a_second_process_takes_what_the_first_compiled(tmp_path: Path) -> None:
    assert call(home=tmp_path) == ["18.0", "False", "None\n"]
    folder = tmp_path / ".cache" / "tlseg_jax" / "xla"
    assert programs(folder)
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    torn = programs(folder)[0]
    torn.write_bytes(torn.read_bytes()[:-20])
    assert call(home=tmp_path) == ["18.0", "True", "None\n"]  # and the torn one brings no warning
    assert compilation_cache._whole(torn.read_bytes())


def test_off_keeps_nothing_and_the_environment_decides_where_no_flag_does(tmp_path: Path) -> None:
    call("off", home=tmp_path, JAX_COMPILATION_CACHE_DIR=str(tmp_path / "theirs"))
    assert not (tmp_path / ".cache").exists() and not (tmp_path / "theirs").exists()
    own = {"JAX_COMPILATION_CACHE_DIR": str(tmp_path / "theirs"), "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0"}
    call(home=tmp_path, **own)
    assert programs(tmp_path / "theirs") and not (tmp_path / ".cache").exists()
    call(str(tmp_path / "flag"), home=tmp_path, **own)
    assert programs(tmp_path / "flag")


def test_the_default_folder_follows_xdg(monkeypatch: pytest.MonkeyPatch) -> None:
    assert default_folder({"XDG_CACHE_HOME": "/x"}) == Path("/x/tlseg_jax/xla")
    monkeypatch.setenv("HOME", "/h")
    for ignored in ({}, {"XDG_CACHE_HOME": ""}, {"XDG_CACHE_HOME": "relative"}):
        assert default_folder(ignored) == Path("/h/.cache/tlseg_jax/xla")


def test_a_folder_that_cannot_be_written_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    before = jax.config.values["jax_compilation_cache_dir"]
    note = use_compilation_cache(str(tmp_path / "file" / "cache"))
    assert note is not None and "\n" not in note
    assert str(tmp_path / "file") in note and "`compilation_cache=DIR`" in note
    assert jax.config.values["jax_compilation_cache_dir"] == before


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_folder_of_somebody_else_is_one_line(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    assert "Permission denied" in (use_compilation_cache(str(tmp_path)) or "")


def test_no_home_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    def nowhere() -> Path:
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.setattr(compilation_cache, "default_folder", nowhere)
    jax.config.update("jax_compilation_cache_dir", None)
    assert "Could not determine home directory" in (use_compilation_cache() or "")


def program(name: str) -> str:
    """What JAX calls a program's file."""
    return f"jit_{name}-{'0a' * 32}-cache"


def test_what_was_not_used_for_longest_goes_first_and_nothing_of_the_users(tmp_path: Path) -> None:
    tuning = tmp_path / "xla_gpu_per_fusion_autotune_cache_dir" / "middle"
    theirs = [tmp_path / "my-cache", tmp_path / "inner" / "thesis.tex"]
    for path in (tuning, *theirs):
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(b"x" * 100)
        os.utime(path, (102, 102))
    read, old, new = (tmp_path / program(n) for n in ("read", "old", "new"))
    for i, path in enumerate((read, old, tuning, new)):
        path.write_bytes(b"x" * 100)
        os.utime(path, (100 + i, 100 + i))
    os.utime(read, (1000, 50))  # written first, read last

    def files() -> set[Path]:
        return {p for p in tmp_path.rglob("*") if p.is_file()}

    drop_oldest(tmp_path, 400)
    assert files() == {read, old, tuning, new, *theirs}
    drop_oldest(tmp_path, 250)
    assert files() == {read, new, *theirs}
    drop_oldest(tmp_path, 0)
    assert files() == {*theirs}


def test_torn_programs_are_removed_and_whole_ones_read_once(tmp_path: Path) -> None:
    whole = zlib.compress(os.urandom(5000))
    a, b, c, d = (program(n) for n in "abcd")
    contents = {a: whole, b: whole[:-5], c: b"", d: b"\x28\xb5\x2f\xfd other", "e": b"", "my-cache": b""}
    for name, content in contents.items():
        (tmp_path / name).write_bytes(content)
    drop_broken(tmp_path)
    assert {p.name for p in tmp_path.iterdir()} == {a, d, "e", "my-cache", compilation_cache.CHECKED}
    (tmp_path / a).write_bytes(whole[:-5])
    os.utime(tmp_path / a, (1, 1))  # older than the last look
    drop_broken(tmp_path)
    assert (tmp_path / a).exists()
