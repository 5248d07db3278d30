"""Which form of convolution is taken on a device: known with the package, or measured once and kept on the disk.

`known.json` has what was measured for the devices that we know. For all others a training, or a prediction, measures
the forms that can run there (`measure`) on its own network's convolutions, and keeps the fastest in `lowerings.json`,
beside the compiled programs of the user's cache folder; a later start reads that file. A choice holds for one device
kind, jaxlib, type, network, size of image and list of forms: where any of them is another, it is made anew.
"""

import dataclasses
import functools
import hashlib
import json
import threading
from collections.abc import Callable, Mapping, Sequence
from importlib import resources
from pathlib import Path
from typing import Any

import jax
import jaxlib

from tlseg_jax.models.lowering.forms import FORMS
from tlseg_jax.models.lowering.measure import ConvShape, Measured, measure
from tlseg_jax.runtime.choose import choose
from tlseg_jax.runtime.compilation_cache import default_folder
from tlseg_jax.runtime.errors import InputError
from tlseg_jax.runtime.files import write_json
from tlseg_jax.runtime.messages import log

MEASURE = "measure"
"""In place of a form's name: measure, whatever is known."""

KEPT = "lowerings.json"

_one_at_a_time = threading.Lock()


@dataclasses.dataclass(frozen=True)
class Device:
    """What a choice depends on besides the work.

    Attributes:
      kind: as its maker names it; "cpu".
      backend: as `jax.default_backend` names it.
      jaxlib: its version.
    """

    kind: str
    backend: str
    jaxlib: str


@dataclasses.dataclass(frozen=True)
class ConvWork:
    """A network's convolutions at one size.

    Attributes:
      network: its name.
      settings: all that makes its convolutions, as plain values.
      image: (batch, *sides, channels).
      dtype: of the activations.
      shapes: gives its convolutions; called where they are measured.
    """

    network: str
    settings: Mapping[str, Any]
    image: tuple[int, ...]
    dtype: str
    shapes: Callable[[], Sequence[ConvShape]]

    @property
    def sides(self) -> int:
        """2 or 3."""
        return len(self.image) - 2


@dataclasses.dataclass(frozen=True)
class Choice:
    """A form, and why it is taken.

    Attributes:
      lowering: its name.
      why: in words.
    """

    lowering: str
    why: str

    def __str__(self) -> str:
        return f"convolutions: {self.lowering}, {self.why}"


def this_device() -> Device:
    """The first device of this process."""
    return Device(jax.local_devices()[0].device_kind, jax.default_backend(), jaxlib.__version__)


def usual_lowering(sides: int = 3, dtype: str = "float32", device: Device | None = None) -> str:
    """The form where nothing was chosen: what is known, else measured last for this device, else the safest.

    Args:
      sides: of the images, 2 or 3.
      dtype: of image and kernel.
      device: None: this one.
    """
    return _usual(sides, dtype, device or this_device())


@functools.cache
def _usual(sides: int, dtype: str, device: Device) -> str:
    able = forms_for(device, sides, dtype)
    if found := _known(device, able)[0]:
        return found
    same = {"device": device.kind, "jaxlib": device.jaxlib, "dtype": dtype, "sides": sides}
    alike = [c["lowering"] for c in _read_kept().values() if same.items() <= c.items() and c["lowering"] in able]
    return alike[-1] if alike else next(n for n in reversed(able) if not FORMS[n].risky)


def choose_lowering(
    work: ConvWork, asked: str | None = None, *, before: str | None = None, divided: bool = False
) -> Choice:
    """The form for a network: asked for, as before, known, kept from an earlier start, or measured now and kept.

    Args:
      work: its convolutions.
      asked: the name of a form, or "measure"; None: whatever is known.
      before: what a run began with that goes on; taken where it still can be.
      divided: whether the program is to be divided over devices within a volume.

    Raises:
      InputError: no form has the name that was asked for, or it cannot do this here.
    """
    device = this_device()
    able = [n for n in forms_for(device, work.sides, work.dtype) if FORMS[n].divided or not divided]
    if asked not in (None, MEASURE):
        return Choice(_asked(str(asked), able, device, work, divided), "as asked for")
    if asked is None and before in able:
        return Choice(str(before), "as this run began")
    if len(able) == 1:
        return Choice(able[0], f"the only one that {'can be divided so' if divided else f'is for {device.kind}'}")
    known, passed_over = _known(device, able)
    if asked is None and known:
        return Choice(known, f"known for {device.kind} with jaxlib {device.jaxlib}{passed_over}")
    key = _key(work, device, able)
    with _one_at_a_time:
        if asked is None and (kept := _read_kept().get(key)) and kept["lowering"] in able:
            return Choice(kept["lowering"], f"measured before ({kept['told']})")
        found, told = _fastest(measure(able, work.shapes(), work.dtype))
        about = {"device": device.kind, "jaxlib": device.jaxlib, "dtype": work.dtype, "sides": work.sides}
        _keep(key, about | {"lowering": found, "told": told})
    return Choice(found, f"measured ({told})")


def forms_for(device: Device, sides: int | None = None, dtype: str | None = None) -> list[str]:
    """Names of the forms that can run on a device, the plainest first."""
    return [n for n, form in FORMS.items() if form.runs(device.backend, sides, dtype)]


def read_lowering(text: str) -> str:
    """A form's name, or "measure", from text.

    Raises:
      InputError: it is neither.
    """
    choose("lowering", text, dict.fromkeys((*FORMS, MEASURE)))
    return text


def _asked(name: str, able: Sequence[str], device: Device, work: ConvWork, divided: bool) -> str:
    read_lowering(name)
    if name not in able:
        what = f"{'divided ' if divided else ''}{work.sides}D convolutions in {work.dtype} on {device.kind}"
        raise InputError(f"`lowering={name}` cannot do {what}: choose from {', '.join(able)}, or leave it out.")
    return name


@functools.cache
def _packaged() -> list[dict[str, Any]]:
    return json.loads(resources.files(__package__).joinpath("known.json").read_text("utf-8"))  # type: ignore[no-any-return]


def _known(device: Device, able: Sequence[str]) -> tuple[str | None, str]:
    """What the package knows, the fastest first, and in words what is faster and cannot be taken here.

    An entry without versions of jaxlib holds for all.
    """
    passed_over = ""
    for entry in _packaged():
        if entry["device"] == device.kind and device.jaxlib in entry.get("jaxlib", [device.jaxlib]):
            name = entry["lowering"]
            if name in able:
                return name, passed_over
            form = FORMS.get(name)
            if form and form.lacking and (lacks := form.lacking()):
                passed_over += f" ({name} would be faster, and {lacks})"
    return None, passed_over


def _fastest(measured: Mapping[str, Measured]) -> tuple[str, str]:
    """The fastest of those that are right, and all times and faults in words."""
    seconds = {n: m.seconds for n, m in measured.items() if m.seconds is not None}
    told = [f"{n} {1e3 * s:.3g} ms" for n, s in sorted(seconds.items(), key=lambda item: item[1])]
    told += [f"{n} not taken, as {m.fault}" for n, m in measured.items() if m.seconds is None]
    if not seconds:
        raise InputError(
            f"No form of convolution is right on this device ({'; '.join(told)}): update jax and the device's "
            "driver, or give `lowering=native` to train all the same."
        )
    return min(seconds, key=lambda n: seconds[n]), ", ".join(told)


def _key(work: ConvWork, device: Device, able: Sequence[str]) -> str:
    form = hashlib.sha256(json.dumps(work.settings, sort_keys=True).encode()).hexdigest()[:8]
    size = "x".join(map(str, work.image))
    return "; ".join((device.kind, device.jaxlib, work.dtype, f"{work.network} {form}", size, "+".join(able)))


def _kept_file() -> Path | None:
    try:
        return default_folder().parent / KEPT
    except RuntimeError:  # the user has no home folder
        return None


def _read_kept() -> dict[str, dict[str, Any]]:
    path = _kept_file()
    if path is None or not path.exists():
        return {}
    try:
        kept = json.loads(path.read_text("utf-8"))
        if not all(isinstance(c["lowering"], str) and isinstance(c["told"], str) for c in kept.values()):
            raise ValueError("an entry is no choice")
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as e:
        log.info(f"note: {path} cannot be read ({e}), so convolutions are measured anew and it is written again.")
        return {}
    return kept  # type: ignore[no-any-return]


def _keep(key: str, choice: dict[str, Any]) -> None:
    """Write a choice into the file, as the newest; where that cannot be, say so."""
    _usual.cache_clear()
    path = _kept_file()
    if path is None:
        return
    kept = _read_kept()
    kept.pop(key, None)
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        write_json(path, kept | {key: choice})
    except OSError as e:
        log.info(f"note: {path} cannot be written ({e.strerror}), so the next start measures convolutions again.")
