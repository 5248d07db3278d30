"""Models, steps and the loop import where the data packages are missing, as on a machine that only measures."""

from tests.processes import python

PROGRAM = """
import importlib, pkgutil, sys
for name in ("grain", "nibabel", "SimpleITK", "tensorboardX", "nilearn", "matplotlib"):
    sys.modules[name] = None  # import raises ModuleNotFoundError
for package in ("tlseg_jax.models", "tlseg_jax.train", "benchmarks"):
    found = importlib.import_module(package)
    for module in pkgutil.iter_modules(found.__path__):
        if module.name in ("loader", "device_cache", "startup", "trust", "zero_labels", "forgetting"):
            continue  # benchmarks of files and of the way from them to the step
        importlib.import_module(f"{package}.{module.name}")
        print(package, module.name)
"""


def test_models_and_training_import_without_the_data_packages() -> None:
    done = python("-c", PROGRAM)
    assert done.returncode == 0, done.stderr
    assert "tlseg_jax.train job" in done.stdout and "tlseg_jax.models unet" in done.stdout


def test_who_predicts_waits_for_no_package_that_only_forests_and_figures_need() -> None:
    program = "import sys, tlseg_jax.commands.predict; print({'sklearn', 'pandas', 'matplotlib'} & sys.modules.keys())"
    done = python("-c", program)
    assert done.stdout.strip() == "set()", done.stderr
