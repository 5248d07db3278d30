"""Transfer learning for medical image segmentation with few labels, in JAX.

The public names are those of `tlseg_jax.api`; they are imported when they are first used.
"""

import importlib
import sys
import types
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tlseg_jax.api import InputError as InputError
    from tlseg_jax.api import Model as Model
    from tlseg_jax.api import Run as Run
    from tlseg_jax.api import evaluate as evaluate
    from tlseg_jax.api import export as export
    from tlseg_jax.api import finetune as finetune
    from tlseg_jax.api import load as load
    from tlseg_jax.api import predict as predict
    from tlseg_jax.api import prepare as prepare
    from tlseg_jax.api import pretrain as pretrain
    from tlseg_jax.api import report as report
    from tlseg_jax.api import sweep as sweep
    from tlseg_jax.api import view as view

__version__ = "0.1.0"

__all__ = [
    "InputError",
    "Model",
    "Run",
    "evaluate",
    "export",
    "finetune",
    "load",
    "predict",
    "prepare",
    "pretrain",
    "report",
    "sweep",
    "view",
]


def __getattr__(name: str) -> Any:
    """A public name, with what it needs (PEP 562)."""
    if name not in __all__:
        raise AttributeError(f"module '{__name__}' has no attribute '{name}'")
    return getattr(importlib.import_module("tlseg_jax.api"), name)


def __dir__() -> list[str]:
    """The public names, imported or not."""
    return sorted({*globals(), *__all__})


class _Package(types.ModuleType):
    """This package, whose folders evaluate, export and report never hide the functions of their names.

    Whoever imports a folder has it set as an attribute here, too; it is found by its import all the same.
    """

    def __setattr__(self, name: str, value: Any) -> None:
        if not (name in __all__ and isinstance(value, types.ModuleType)):
            super().__setattr__(name, value)


sys.modules[__name__].__class__ = _Package
