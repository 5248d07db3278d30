"""Registration: a known transform is found again, real heads land on the template, junk is refused."""

from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from tlseg_jax.datasets.lookup import get_spec
from tlseg_jax.geometry import Affine, Grid
from tlseg_jax.preprocess.reading.scan import ExclusionError
from tlseg_jax.preprocess.steps.register import Registration, register
from tlseg_jax.preprocess.steps.resample import mask_to_grid, to_grid, to_scan
from tlseg_jax.preprocess.steps.template import MNI305_TO_MNI152, mni305_grid, template_image, template_mask

DATA = Path(__file__).resolve().parents[2].parent / "shared" / "data"


def dice(a: np.ndarray, b: np.ndarray) -> float:
    return float(2 * (a & b).sum() / (a.sum() + b.sum()))


def real(path: str) -> tuple[np.ndarray, Affine]:
    if not (DATA / path).exists():
        pytest.skip(f"{path} is not here")
    image = nib.load(DATA / path)
    return np.asarray(image.dataobj, np.float32), np.asarray(image.affine, np.float64)


def moved_template() -> tuple[np.ndarray, Affine, Affine]:
    """The template seen by another scanner: image, its affine, and the MNI305 -> world it was moved by."""
    volume, affine = template_image()
    a = 0.15
    move = np.array(
        [
            [0.92, -0.05, 0.02, 14.0],
            [0.05, 0.88 * np.cos(a), -np.sin(a), -160.0],
            [0.0, 0.90 * np.sin(a), 0.93 * np.cos(a), 70.0],
            [0, 0, 0, 1],
        ]
    )
    scan_affine = np.array([[-1.5, 0, 0, 110.0], [0, 0, 1.5, -290], [0, -1.5, 0, 190], [0, 0, 0, 1]])  # LIA
    scan = to_grid(volume, move @ affine, Grid((150, 150, 170), scan_affine), np.eye(4), order=1)
    rng = np.random.default_rng(0)
    contrast = 400 * np.sqrt(scan) + rng.normal(0, 8, scan.shape)  # other scanner, other contrast
    return np.where(scan > 0, contrast, 0).astype(np.float32), scan_affine, move @ MNI305_TO_MNI152


def test_a_known_transform_is_found_again() -> None:
    image, affine, truth = moved_template()
    found = register(image, affine)
    mask, to_mni = template_mask()
    points = np.argwhere(mask)[::5000]
    where = nib.affines.apply_affine(to_mni, points)
    off = nib.affines.apply_affine(found.mni_to_world, where) - nib.affines.apply_affine(truth, where)
    assert np.sqrt((off**2).sum(1)).mean() < 1.0  # mm


@pytest.mark.slow
def test_the_same_scan_gives_the_same_matrix() -> None:
    image, affine, _ = moved_template()
    first, again = register(image, affine), register(image, affine)
    assert (again.mni_to_world == first.mni_to_world).all()


def test_noise_is_refused() -> None:
    image = np.random.default_rng(0).normal(size=(40, 40, 40)).astype(np.float32)
    with pytest.raises(ExclusionError, match=r"^noise\.nii could not be registered to MNI305: .*skip`\.$"):
        register(image, np.diag([5.0, 5.0, 5.0, 1.0]), "noise.nii")


@pytest.mark.slow
def test_a_head_upside_down_and_an_abdomen_are_refused() -> None:
    image, affine = real("brain_freesurfer/sample_ecog/T1.mgz")
    with pytest.raises(ExclusionError, match="could not be registered"):
        register(image, np.diag([1.0, 1.0, -1.0, 1.0]) @ affine)
    folder = DATA / "abdomen_mr_chaos"
    scans = [p for p in sorted(folder.glob("image*.nii.gz"))]
    if scans:
        with pytest.raises(ExclusionError, match="could not be registered"):
            register(*real(str(scans[0].relative_to(DATA))))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("scan", "brain"),
    [("sample_ecog/T1.mgz", "sample_ecog/brainmask.mgz"), ("visualqc/orig.mgz", "visualqc/brainmask.mgz")],
)
def test_a_head_with_its_skull_lands_on_the_template_brain(scan: str, brain: str) -> None:
    image, affine = real(f"brain_freesurfer/{scan}")
    mask, _ = real(f"brain_freesurfer/{brain}")
    found = register(image, affine)
    grid = mni305_grid(get_spec("hdt_c").at_spacing(2.0))
    template, to_mni = template_mask()
    there = mask_to_grid(mask > 0, affine, grid, found.mni_to_world)
    assert dice(there, mask_to_grid(template, to_mni, grid, np.eye(4))) > 0.9


SUBJECTS = ("sub-1000", "sub-1007", "sub-1036")


@pytest.fixture(scope="module")
def oasis() -> dict[str, tuple[np.ndarray, Affine, Registration]]:
    """Label map, affine and registration of three stripped scans."""
    out = {}
    for subject in SUBJECTS:
        image, affine = real(f"brain_oasis/{subject}_T1w.nii.gz")
        labels, _ = real(f"brain_oasis/{subject}_labels.nii.gz")
        out[subject] = (labels, affine, register(image, affine))
    return out


@pytest.mark.slow
def test_ventricles_of_registered_people_overlap(oasis: dict[str, tuple[np.ndarray, Affine, Registration]]) -> None:
    grid = mni305_grid(get_spec("hdt_v").at_spacing(2.0))
    after, before = [], []
    for labels, affine, found in oasis.values():
        ventricles = np.isin(labels, (51, 52))
        after.append(mask_to_grid(ventricles, affine, grid, found.mni_to_world))
        # Without registration the best that is known is that brains have the same middle.
        shift = np.eye(4)
        brain = affine @ [*np.argwhere(labels > 0).mean(0), 1]
        template, to_mni = template_mask()
        shift[:3, 3] = (brain - to_mni @ [*np.argwhere(template).mean(0), 1])[:3]
        before.append(mask_to_grid(ventricles, affine, grid, shift))
    pairs = [(0, 1), (0, 2), (1, 2)]
    mean_after = np.mean([dice(after[i], after[j]) for i, j in pairs])
    mean_before = np.mean([dice(before[i], before[j]) for i, j in pairs])
    assert mean_after > 0.45
    assert mean_after > mean_before + 0.05


@pytest.mark.slow
def test_caudates_survive_the_round_trip_to_the_registered_grid(
    oasis: dict[str, tuple[np.ndarray, Affine, Registration]],
) -> None:
    grid = mni305_grid(get_spec("hdt_c"))
    for labels, affine, found in oasis.values():
        caudates = np.isin(labels, (36, 37))
        there = mask_to_grid(caudates, affine, grid, found.mni_to_world)
        back = to_scan(there.astype(np.float32), grid, found.mni_to_world, caudates.shape, affine)
        assert dice(back >= 0.5, caudates) >= 0.95
