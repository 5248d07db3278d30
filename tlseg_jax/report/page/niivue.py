"""NiiVue for a page that is one file: its script from the `ipyniivue` wheel, made small."""

import base64
import functools
import gzip
import importlib.metadata
import importlib.util
import re
from pathlib import Path

from tlseg_jax.runtime.errors import InputError


@functools.cache
def niivue() -> str:
    """The wheel's module with its class `Niivue` exported too, with its licence before it, gzipped, as text (base64).

    The wheel's own export is a notebook's widget, which wants a kernel to talk to.

    Raises:
      InputError: ipyniivue is not installed, or this version of it is made in another way.
    """
    found = importlib.util.find_spec("ipyniivue")
    if found is None or found.origin is None:
        raise InputError("The viewers need ipyniivue, which is not installed: pip install 'ipyniivue>=2.4'.")
    script = (Path(found.origin).parent / "static" / "widget.js").read_text(encoding="utf-8")
    files = importlib.metadata.files("ipyniivue") or []
    licence = "\n".join(f.read_text() for f in files if f.name == "LICENSE")
    text = f"/* {licence.replace('*/', '* /')} */\n{with_class(script)}"
    return base64.b64encode(gzip.compress(text.encode(), 9, mtime=0)).decode("ascii")


def with_class(script: str) -> str:
    """The wheel's module with `Niivue` among its exports.

    Raises:
      InputError: the class, or the export, is not where it is in version 2.4.
    """
    made = re.search(r'"Creating new Niivue instance"\);.{0,120}?=\s*new ([\w$]+)\(', script, re.DOTALL)
    exported = re.search(r"export\s*\{\s*[\w$]+ as default\s*;?\s*\}", script)
    if made is None or exported is None:
        raise InputError(
            "This version of ipyniivue is not made as version 2.4 is, so the page's viewers cannot use it: "
            "pip install 'ipyniivue==2.4.*'."
        )
    at = exported.end() - 1
    return f"{script[:at]},{made[1]} as Niivue{script[at:]}"
