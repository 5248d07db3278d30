"""The GPU's parts run on a CPU too, one ends no other, and a second call goes on where the first stopped."""

import json
import os
from pathlib import Path

import jax
import jax.numpy as jnp
import pytest

from benchmarks import conv_equality, gpu, kernels
from benchmarks.sizes import get_sizes
from tests.processes import python
from tlseg_jax.models.lowering.forms import FORMS, Form, native
from tlseg_jax.models.lowering.measure import ConvShape
from tlseg_jax.runtime.errors import InputError


@pytest.mark.slow
def test_every_part_is_rehearsed_on_a_cpu() -> None:
    pytest.importorskip("torch")
    pytest.importorskip("monai")
    done = python("-m", "benchmarks.gpu", "--rehearse", "--minutes=30")
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-2000:]


def _part(name: str, code: str, seconds: float = 60) -> gpu.Part:
    """A part whose module writes a result, or does what `code` says before."""
    return gpu.Part(name, "made", (f"--code={code}",), seconds, "does it run")


@pytest.fixture
def environment(tmp_path: Path) -> dict[str, str]:
    """Of processes that find a benchmark "made", which runs --code and writes its result to --out."""
    package = tmp_path / "benchmarks"
    package.mkdir()
    (package / "made.py").write_text(
        "import json, sys, time\n"
        "code, out = (next(a for a in sys.argv if a.startswith(f))[len(f):] for f in ('--code=', '--out='))\n"
        "result = {'part': 'made', 'command': 'python -m benchmarks.made', 'cases': [{'x': 1}],\n"
        "          'environment': {'imported': [], 'cores': 1}}\n"
        "exec(code)\n"
        "json.dump(result, open(out, 'w'))\n",
        encoding="utf-8",
    )
    return os.environ | {"PYTHONPATH": str(tmp_path)}


def test_a_part_that_fails_or_hangs_ends_no_other(
    tmp_path: Path, environment: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gpu, "_environment", lambda scratch, tiny: environment)
    monkeypatch.chdir(tmp_path)
    hangs = "json.dump(result, open(out, 'w')); time.sleep(600)"
    parts = [_part("fails", "sys.exit('error: a fault')"), _part("hangs", hangs, 3), _part("works", "")]
    folder = tmp_path / "results"
    outcomes = gpu.run_all(parts, folder, 60, False, tmp_path)
    assert [o.state for o in outcomes] == ["failed", "ended at its limit", "measured"]
    assert outcomes[0].why == "error: a fault"
    assert [p.name for p in folder.glob("*.json")] == ["works.json"]
    # What a part had when its time was over is kept apart, and does not count as done.
    assert json.loads((folder / "unfinished" / "hangs.json").read_text(encoding="utf-8"))["part"] == "made"
    again = gpu.run_all([parts[2], _part("fails", "")], folder, 60, False, tmp_path)
    assert [o.state for o in again] == ["was there", "measured"]
    assert [o.state for o in gpu.run_all([_part("late", "")], folder, 1, False, tmp_path)] == ["no time left"]
    text = gpu.summary_text(again, folder)
    assert "| x |" in text and "was there" in text


def test_a_rehearsal_finds_an_import_that_the_machine_lacks(tmp_path: Path) -> None:
    assert gpu.unlisted({"environment": {"imported": ["jax", "numpy", "grain", "pytest"]}}) == ["pytest"]


def test_wheels_name_what_is_brought_and_nothing_that_is_there() -> None:
    pytest.importorskip("monai")
    names = {line.partition("==")[0] for line in gpu.wheels()}
    assert {"grain", "nibabel", "monai", "tensorboardx", "jaxtyping", "wadler-lindig"} <= names
    assert not {"jax", "numpy", "torch", "scipy"} & names


@pytest.mark.slow
def test_every_parts_flags_are_its_benchmarks_own() -> None:
    """Only a real parse tells: a flag that a benchmark does not have would end the part on the GPU."""
    for module in {p.module for p in gpu.PARTS}:
        given = next(p.flags for p in gpu.PARTS if p.module == module)
        told = python("-m", f"benchmarks.{module}", *given, "--helpshort")
        assert "Unknown command line flag" not in told.stderr and "flags:" in told.stdout, told.stderr[-500:]


def test_parts_are_chosen_by_how_their_names_begin() -> None:
    assert {p.module for p in gpu.chosen_parts(["compare", "kernels"])} == {"compare", "kernels"}
    with pytest.raises(InputError, match="kernels"):
        gpu.chosen_parts(["kernel_s"])


HLO = """
  %p = f32[2,3]{1,0} parameter(0)
  %f = (bf16[4]{0}, u8[100]{0}) custom-call(%p), custom_call_target="__cudnn$convForward"
  ROOT %loop.1 = f32[2,3]{1,0} fusion(%p, %f), kind=kLoop, calls=%other
"""


def test_bytes_are_those_of_operands_and_results() -> None:
    assert kernels.array_bytes("(f32[2,3]{1,0}, pred[], token[])") == 25
    assert kernels.moved_bytes(HLO) == {"f": 24 + 8, "loop.1": 24 + 24 + 8}


def test_bytes_of_a_compiled_program_are_those_of_its_arrays() -> None:
    program = jax.jit(lambda x, y: jnp.dot(x, y)).lower(jnp.ones((64, 32)), jnp.ones((32, 16))).compile()
    assert max(kernels.moved_bytes(program.as_text()).values()) == 4 * (64 * 32 + 32 * 16 + 64 * 16)


def test_a_kernels_bandwidth_is_its_bytes_by_its_time() -> None:
    found = kernels.rows({"loop_1": 2e-3, "f": 6e-3, "memset": 1e-3}, kernels.moved_bytes(HLO), steps=2, copied=1e6)
    assert [r["kernel"] for r in found] == ["f", "loop_1", "memset"]
    assert found[0]["bandwidth"] == pytest.approx(32 / 3e-3) and found[1]["of_copy"] == pytest.approx(56 / 1e-3 / 1e6)
    assert "bytes" not in found[2] and sum(r["share_of_step"] for r in found) == pytest.approx(1)


def test_every_convolution_of_a_network_is_compared() -> None:
    """Of 32 channels a level, each part of a concatenation convolved by itself."""
    found = conv_equality.shapes(get_sizes("switch32", "tiny")[0])
    sides = {32: 1, 16: 32, 8: 32, 4: 32}
    assert [(s.image, s.kernel) for s in found] == [((1, s, s, s, c), (3, 3, 3, c, 32)) for s, c in sides.items()]


@pytest.mark.usefixtures("quick_compile")
def test_a_wrong_convolution_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    size = get_sizes("switch32", "tiny")[0]
    monkeypatch.setattr(conv_equality, "shapes", lambda size: [ConvShape((1, 4, 4, 4, 2), (3, 3, 3, 2, 3))])
    monkeypatch.setattr(conv_equality, "lowerings", lambda kernel: ("native", "planes"))
    assert all(r["right"] for r in conv_equality.measure(size, ("float32", "bfloat16")))

    def wrong(x: jax.Array, kernel: jax.Array) -> jax.Array:
        return native(x, kernel).at[0, -1, -1, -1, :].set(jnp.nan)

    monkeypatch.setitem(FORMS, "planes", Form(wrong))
    rows = conv_equality.measure(size, ("float32",))
    assert {r["lowering"]: r["right"] for r in rows} == {"native": True, "planes": False}
