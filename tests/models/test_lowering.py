"""Which form of convolution is taken: never a wrong one or one that ends its process, and measured only once."""

import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path

import jax
import jax.export
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.signal

from tlseg_jax.models.convolutions import network_convolutions, network_lowering
from tlseg_jax.models.lowering import choice
from tlseg_jax.models.lowering.choice import Choice, ConvWork, Device, choose_lowering, usual_lowering
from tlseg_jax.models.lowering.forms import FORMS, Form, native
from tlseg_jax.models.lowering.measure import ConvShape, heaviest, measure, measured_here
from tlseg_jax.models.networks import NETWORKS
from tlseg_jax.models.unet import UNetConfig
from tlseg_jax.runtime.errors import InputError

SHAPES = [ConvShape((1, 4, 6, 8, 2), (3, 3, 3, 2, 4)), ConvShape((1, 4, 6, 8, 4), (3, 3, 3, 4, 4), 3)]
NEW = Device("cpu", "cpu", "99.0.0")


def twice(x: jax.Array, kernel: jax.Array) -> jax.Array:
    """Wrong in its value and both gradients."""
    return 2 * native(x, kernel)


@jax.custom_vjp
def backwards_wrong(x: jax.Array, kernel: jax.Array) -> jax.Array:
    """Right in its value, and a gradient of the kernel that is wrong in one place."""
    return native(x, kernel)


def _back(kept: tuple[jax.Array, jax.Array], g: jax.Array) -> tuple[jax.Array, jax.Array]:
    to_x, to_kernel = jax.vjp(native, *kept)[1](g)
    return to_x, to_kernel.at[0, 0, 0, 0, 0].multiply(0.5)


backwards_wrong.defvjp(lambda x, kernel: (native(x, kernel), (x, kernel)), _back)


def deadly(x: jax.Array, kernel: jax.Array) -> jax.Array:
    """Ends its process as a fault in a library does."""
    os.abort()


@pytest.fixture(autouse=True)
def forms_in_their_order() -> Iterator[None]:
    """Forms that a test takes away come back in their places, which say what is taken where nothing is known."""
    kept = dict(FORMS)
    yield
    FORMS.clear()
    FORMS.update(kept)


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The file of kept choices, in a cache folder of this test's."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    choice._usual.cache_clear()
    yield tmp_path / "tlseg_jax" / choice.KEPT  # type: ignore[misc]
    choice._usual.cache_clear()


@pytest.fixture
def new_jaxlib(cache: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """On a jaxlib that nothing is known of, with two forms that are quick to try."""
    monkeypatch.setattr(choice, "this_device", lambda: NEW)
    for name in ("onednn", "direct", "turned", "folded"):
        monkeypatch.delitem(FORMS, name)
    return cache


def work(image: tuple[int, ...] = (1, 4, 6, 8, 2)) -> ConvWork:
    return ConvWork("net", {"encoder": [[4]]}, image, "float32", lambda: SHAPES)


def never() -> list[ConvShape]:
    raise AssertionError("measured, and need not have been")


def unmeasured(**changed: object) -> ConvWork:
    given = {"network": "net", "settings": {"encoder": [[4]]}, "image": (1, 4, 6, 8, 2), "dtype": "float32"}
    return ConvWork(**given | {"shapes": never} | changed)  # type: ignore[arg-type]


@pytest.mark.parametrize("form", [twice, backwards_wrong])
def test_a_wrong_form_is_never_taken(
    form: object, new_jaxlib: Path, monkeypatch: pytest.MonkeyPatch, said: list[str]
) -> None:
    monkeypatch.setitem(FORMS, "wrong", Form(form))  # type: ignore[arg-type]
    monkeypatch.delitem(FORMS, "planes")
    found = choose_lowering(work())
    assert found.lowering == "native" and "wrong not taken" in found.why and "differs by" in found.why


def test_where_no_form_is_right_that_is_said(new_jaxlib: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("native", "planes"):
        monkeypatch.setitem(FORMS, name, Form(twice))
    with pytest.raises(InputError, match="No form of convolution is right on this device"):
        choose_lowering(work())
    assert not new_jaxlib.exists()


def test_a_form_that_ends_its_process_is_never_taken(new_jaxlib: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(FORMS, "deadly", Form(deadly, risky=True))
    found = choose_lowering(work())
    assert found.lowering in ("native", "planes")
    assert "deadly not taken, as it ended its process with code -6" in found.why
    assert usual_lowering(3, "float32", NEW) == found.lowering


def test_one_that_fails_is_not_taken(new_jaxlib: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(FORMS, "reshapes", Form(lambda x, k: native(x, k).reshape(7, 11)))
    found = choose_lowering(work())
    assert found.lowering in ("native", "planes") and "reshapes not taken, as" in found.why


@pytest.mark.skipif(not FORMS["onednn"].runs("cpu"), reason="no oneDNN on this machine")
def test_onednn_is_measured_in_a_process_of_its_own() -> None:
    found = measure(["onednn", "native"], SHAPES, "float32")
    assert all(m.seconds and m.seconds > 0 and not m.fault for m in found.values()), found


def test_a_choice_is_kept_and_read_back(new_jaxlib: Path) -> None:
    first = choose_lowering(work())
    assert first.why.startswith("measured (")
    again = choose_lowering(unmeasured())
    assert again.lowering == first.lowering and again.why.startswith("measured before (")
    kept = json.loads(new_jaxlib.read_text())
    assert [c["lowering"] for c in kept.values()] == [first.lowering]
    assert usual_lowering(3, "float32", NEW) == first.lowering


@pytest.mark.parametrize(
    "changed",
    [{"image": (2, 4, 6, 8, 2)}, {"settings": {"encoder": [[8]]}}, {"network": "other"}, {"dtype": "bfloat16"}],
)
def test_another_size_network_or_type_is_measured_anew(new_jaxlib: Path, changed: dict[str, object]) -> None:
    choose_lowering(work())
    with pytest.raises(AssertionError, match="need not"):
        choose_lowering(unmeasured(**changed))


def test_another_jaxlib_card_or_form_is_measured_anew(new_jaxlib: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    choose_lowering(work())
    for device in (Device("cpu", "cpu", "99.0.1"), Device("another card", "cpu", "99.0.0")):
        with monkeypatch.context() as m:
            m.setattr(choice, "this_device", lambda d=device: d)
            with pytest.raises(AssertionError, match="need not"):
                choose_lowering(unmeasured())
    monkeypatch.setitem(FORMS, "a new one", Form(native))
    with pytest.raises(AssertionError, match="need not"):
        choose_lowering(unmeasured())


def test_a_damaged_file_is_said_and_written_again(new_jaxlib: Path, said: list[str]) -> None:
    first = choose_lowering(work())
    for damaged in ("{", "[]", '{"a": {"lowering": 3}}', '{"a": 1}'):
        new_jaxlib.write_text(damaged)
        found = choose_lowering(work())
        assert found.why.startswith("measured (") and f"{new_jaxlib} cannot be read" in said[-1]
        assert choose_lowering(unmeasured()).lowering == found.lowering
    assert first.lowering in FORMS


def test_a_folder_that_cannot_be_written_is_no_fault(
    new_jaxlib: Path, said: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    new_jaxlib.parent.parent.joinpath("tlseg_jax").write_text("a file is in the way")
    assert choose_lowering(work()).why.startswith("measured (")
    assert "cannot be written" in said[-1]


def test_what_is_asked_for_wins(new_jaxlib: Path) -> None:
    assert choose_lowering(unmeasured(), "planes", before="native") == Choice("planes", "as asked for")
    assert choose_lowering(unmeasured(), before="native").lowering == "native"
    assert choose_lowering(work(), "measure", before="native").why.startswith("measured (")
    assert not choose_lowering(work(), before="gone").why.startswith("as this run")


def test_what_cannot_be_is_refused() -> None:
    with pytest.raises(InputError, match=r"There is no lowering named 'cudnn': choose from native, .*measure"):
        choice.read_lowering("cudnn")
    with pytest.raises(InputError, match="`lowering=folded` cannot do 3D convolutions in float32 on cpu"):
        choose_lowering(unmeasured(), "folded")
    with pytest.raises(InputError, match="cannot do divided 3D"):
        choose_lowering(unmeasured(), "planes", divided=True)
    assert choose_lowering(unmeasured(), divided=True).lowering == "native"


def test_known_devices_measure_nothing(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    gpu, tpu = Device("NVIDIA H200", "gpu", "99.0.0"), Device("TPU v5p", "tpu", "99.0.0")
    for device, expected in ((gpu, "folded"), (tpu, "native")):
        monkeypatch.setattr(choice, "this_device", lambda d=device: d)
        assert choose_lowering(unmeasured()).lowering == usual_lowering(3, "float32", device) == expected
    for entry in json.loads(Path(choice.__file__).with_name("known.json").read_text()):
        assert entry["lowering"] in FORMS and entry["measured"]
        if entry["device"] == "cpu" and FORMS[entry["lowering"]].runs("cpu"):
            device = Device("cpu", "cpu", entry.get("jaxlib", ["99.0.0"])[0])
            monkeypatch.setattr(choice, "this_device", lambda d=device: d)
            assert choose_lowering(unmeasured()).lowering == entry["lowering"]
            monkeypatch.delitem(FORMS, entry["lowering"])  # the next best
    assert not cache.exists()


def test_where_nothing_was_chosen_nothing_risky_is_taken(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(FORMS, "direct")  # what is known of it holds for every jaxlib
    assert usual_lowering(3, "float32", NEW) == "planes"
    assert usual_lowering(2, "bfloat16", NEW) == "planes"


@pytest.mark.parametrize("name", NETWORKS)
def test_the_convolutions_of_a_network_have_its_parameters(name: str) -> None:
    """The kernels, each as often as it is there, hold as many values as the network's 3x3 kernels."""
    from tlseg_jax.models.networks import variable_shapes

    config = NETWORKS[name]
    side = 2 * config.divisor
    found = network_convolutions(config, (2, *(side,) * config.dimensions, config.channels))
    leaves = jax.tree.leaves(variable_shapes(config)["params"])
    kernels = [v.shape for v in leaves if v.shape[: config.dimensions] == (3,) * config.dimensions]
    assert sum(s.count * np.prod(s.kernel) for s in found) == sum(np.prod(k) for k in kernels)
    assert all(s.image[-1] == s.kernel[-2] and s.image[0] == 2 for s in found)
    few = heaviest(found)
    assert 0 < len(few) <= 3 and few[0].work == max(s.work for s in found)


def test_a_part_of_a_large_convolution_is_no_larger_than_asked() -> None:
    whole = ConvShape((2, 320, 260, 72, 32), (3, 3, 3, 32, 64))
    part = whole.part(2**24)
    assert np.prod(part.image[:-1]) * 96 <= 2**24 and part.image[2:] == whole.image[2:]
    small = SHAPES[0]
    assert small.part(2**24) == small


def test_the_network_says_which_form(new_jaxlib: Path, tiny_network: UNetConfig) -> None:
    image = (1, *(2 * tiny_network.divisor,) * 3, 1)
    found = network_lowering(tiny_network, image)
    assert found.lowering in ("native", "planes") and "ms" in str(found)


@pytest.mark.parametrize("name", [n for n, f in FORMS.items() if f.runs("cpu")])
@pytest.mark.parametrize("sides", [2, 3])
def test_forms_are_those_of_scipys_sums(name: str, sides: int) -> None:
    """Value and both gradients by SciPy's correlations of float64, which know nothing of XLA."""
    rng = np.random.default_rng(5)
    size = (5, 6, 4)[:sides]
    x, kernel, g = (rng.normal(size=s) for s in ((*size, 2), (*(3,) * sides, 2, 3), (*size, 3)))
    pairs = [(c, f) for c in range(2) for f in range(3)]
    value, to_x, to_kernel = np.zeros_like(g), np.zeros_like(x), np.zeros_like(kernel)
    for c, f in pairs:
        value[..., f] += scipy.signal.correlate(x[..., c], kernel[..., c, f], "same")
        to_x[..., c] += scipy.signal.convolve(g[..., f], kernel[..., c, f], "same")
        to_kernel[..., c, f] = scipy.signal.correlate(np.pad(x[..., c], 1), g[..., f], "valid")
    given = (jnp.asarray(x, jnp.float32)[None], jnp.asarray(kernel, jnp.float32))
    found, back = jax.vjp(FORMS[name].convolve, *given)
    for a, b in zip((found[0], *back(jnp.asarray(g, jnp.float32)[None])), (value, to_x, to_kernel), strict=True):
        np.testing.assert_allclose(np.squeeze(a, 0) if a.shape[:1] == (1,) else a, b, atol=1e-4)


@pytest.mark.parametrize("name", [n for n, f in FORMS.items() if f.runs("cpu")])
def test_a_form_says_whether_its_program_can_be_kept_and_handed_on(name: str) -> None:
    """As the compilation cache and `jax.export` find it; where jaxlib learns to, the entry is to be changed."""
    x, kernel = jnp.ones((1, 4, 6, 8, 2)), jnp.ones((3, 3, 3, 2, 3))
    program = jax.jit(FORMS[name].convolve)

    def can(do: Callable[[], object]) -> bool:
        try:
            return bool(do())
        except (MemoryError, RuntimeError, ValueError):
            return False

    kept = program.lower(x, kernel).compile().runtime_executable().serialize
    assert can(kept) == FORMS[name].cached
    sides = jax.export.symbolic_shape("b, 4*x, 4*y, 4*z, 2")
    shapes = (jax.ShapeDtypeStruct(sides, jnp.float32), kernel)
    assert can(lambda: jax.export.export(program, platforms=("cpu",))(*shapes).serialize()) == FORMS[name].exported


def test_rounding_is_no_fault() -> None:
    for dtype in ("float32", "bfloat16"):
        found = measured_here(native, SHAPES, dtype)
        assert found["fault"] == "" and found["seconds"] > 0
