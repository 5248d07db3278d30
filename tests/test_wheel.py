"""The wheel, built and installed beside the packages of this environment: what is in it, and that it works alone."""

import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from tlseg_jax.datasets.lookup import get_spec
from tlseg_jax.phantoms.cohort import write_cohort

ROOT = Path(__file__).resolve().parents[1]
SOURCES = ("pyproject.toml", "README.md", "LICENSE", "tlseg_jax", "experiments", "benchmarks")


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Built from a copy: what an earlier build has left in the clone gets into no wheel."""
    source = tmp_path_factory.mktemp("source")
    for name in SOURCES:
        path = ROOT / name
        if path.is_dir():
            shutil.copytree(path, source / name, symlinks=True, ignore=shutil.ignore_patterns("__pycache__", "results"))
        else:
            shutil.copy(path, source / name)
    pip("wheel", "--no-build-isolation", f"--wheel-dir={source / 'dist'}", str(source))
    (made,) = (source / "dist").iterdir()
    return made


def pip(*arguments: str) -> None:
    call = [sys.executable, "-m", "pip", *arguments[:1], "--no-deps", "--no-index", "--quiet", *arguments[1:]]
    done = subprocess.run(call, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder that the wheel was installed into."""
    folder = tmp_path_factory.mktemp("installed")
    pip("install", f"--target={folder}", str(wheel))
    return folder


def tlseg(installed: Path, at: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """The installed command, far from the clone, whose packages are found in the wheel first."""
    call = [sys.executable, str(installed / "bin" / "tlseg"), *arguments]
    env = os.environ | {"PYTHONPATH": str(installed)}
    return subprocess.run(call, cwd=at, env=env, capture_output=True, text=True, check=False)


def test_it_holds_the_package_alone_with_its_models_studies_and_data_sets(wheel: Path) -> None:
    names = zipfile.ZipFile(wheel).namelist()
    tops = {n.partition("/")[0] for n in names}
    assert {t for t in tops if not t.endswith(".dist-info")} == {"tlseg_jax"}
    for there in ("shipped/brain/card.json", "studies/files/brain.toml", "datasets/files/brain_maps.toml"):
        assert f"tlseg_jax/{there}" in names
    tracked = subprocess.run(["git", "ls-files", "tlseg_jax"], cwd=ROOT, capture_output=True, text=True, check=False)
    if tracked.returncode == 0:  # a clone, and not a copy of its files alone
        assert set(tracked.stdout.split()) - set(names) == set()


def test_studies_and_data_sets_are_found_by_name(installed: Path, tmp_path: Path) -> None:
    where = subprocess.run(
        [sys.executable, "-c", "import tlseg_jax; print(tlseg_jax.__file__)"],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": str(installed)},
        capture_output=True,
        text=True,
        check=True,
    )
    assert Path(where.stdout.strip()).is_relative_to(installed)
    done = tlseg(installed, tmp_path, "sweep", "--study=brain", "--methods=other", "--plan")
    assert done.returncode == 2 and "HDT-C-E2E" in done.stderr
    done = tlseg(installed, tmp_path, "prepare", "--dataset=brain_maps", "--source=none", "--store=store")
    assert done.returncode == 2 and "--source=none does not exist" in done.stderr


@pytest.mark.slow
def test_the_model_brain_segments_from_it(installed: Path, tmp_path: Path) -> None:
    write_cohort(get_spec("hdt_c"), tmp_path / "heads", train=1, test=0, spacing=2.0, progress=False)
    scan = tmp_path / "heads" / "images" / "hdt-000.nii.gz"
    # A drawn head lies in the common space already, and is too unlike a real one to be registered to one.
    given = ("--model=brain", f"--input={scan}", "--output=seg.nii.gz", "--registration=skip")
    done = tlseg(installed, tmp_path, "predict", *given)
    assert done.returncode == 0, done.stderr
    assert "caudate_left (value 1)" in done.stdout and (tmp_path / "seg.nii.gz").is_file()
