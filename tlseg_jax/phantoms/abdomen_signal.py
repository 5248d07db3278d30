"""The tissues of a procedural abdomen, and what each measures in CT and in arterial-phase MRI."""

import dataclasses
import enum
from typing import Literal

import numpy as np


class Organ(enum.IntEnum):
    """What a voxel is mostly made of."""

    AIR = 0
    COUCH = 1
    FAT = 2
    MUSCLE = 3
    BONE = 4
    MARROW = 5
    DISC = 6
    CANAL = 7
    LUNG = 8
    HEART = 9
    BOWEL = 10
    FLUID = 11
    GAS = 12
    STOMACH = 13
    PANCREAS = 14
    SPLEEN = 15
    SPLEEN_DARK = 16
    CORTEX = 17
    MEDULLA = 18
    AORTA = 19
    CAVA = 20
    LIVER = 21
    HEPATIC_VEIN = 22
    PORTAL_VEIN = 23
    BILE = 24


_SIGNAL: dict[Organ, tuple[float, float, float]] = {
    Organ.AIR: (-1000, -1000, 0),
    Organ.COUCH: (-60, -60, 0),
    Organ.FAT: (-100, -102, 30),
    Organ.MUSCLE: (58, 55, 46),
    Organ.BONE: (850, 850, 10),
    Organ.MARROW: (330, 330, 36),
    Organ.DISC: (85, 82, 34),
    Organ.CANAL: (25, 25, 18),
    Organ.LUNG: (-830, -830, 7),
    Organ.HEART: (145, 210, 135),
    Organ.BOWEL: (62, 70, 72),
    Organ.FLUID: (16, 16, 26),
    Organ.GAS: (-950, -950, 2),
    Organ.STOMACH: (75, 85, 85),
    Organ.PANCREAS: (88, 105, 112),
    Organ.SPLEEN: (118, 140, 150),
    Organ.SPLEEN_DARK: (118, 95, 84),
    Organ.CORTEX: (195, 215, 175),
    Organ.MEDULLA: (180, 120, 70),
    Organ.AORTA: (152, 290, 220),
    Organ.CAVA: (125, 70, 60),
    Organ.LIVER: (102, 68, 72),
    Organ.HEPATIC_VEIN: (142, 60, 56),
    Organ.PORTAL_VEIN: (152, 88, 98),
    Organ.BILE: (8, 8, 24),
}
"""HU by phase after contrast, portal venous, as most CTs of LiTS, and late arterial; T1-weighted signal with fat
saturation in the arterial phase, the liver near 70: arteries, kidney cortex and spleen are bright, the veins of the
liver not yet."""

ARTERIAL_SHARE = 0.3
"""Share of CTs in the late arterial phase."""

FIXED_HU = (Organ.AIR, Organ.GAS, Organ.FAT)
"""What a calibrated CT reads the same in everyone (to a few HU)."""


@dataclasses.dataclass(frozen=True)
class Signal:
    """One scan's signal of each tissue (by `Organ` number), and of lesions.

    Attributes:
      tissue: HU, or MRI signal before the gain.
      lesion_unit: what a lesion's contrast is multiplied by: 1 in CT (HU), the liver's signal in MRI.
      modality: which of a lesion's contrasts applies.
    """

    tissue: tuple[float, ...]
    lesion_unit: float
    modality: Literal["CT", "MR"]


def ct_signal(rng: np.random.Generator) -> Signal:
    """One CT's values: a phase, with its timing and the person's own spread; some livers hold fat."""
    phase = 1 if rng.uniform() < ARTERIAL_SHARE else 0
    timing = 1 + 0.08 * float(np.clip(rng.standard_normal(), -2, 2))
    drift = np.clip(rng.standard_normal(len(Organ)), -2, 2)
    values = []
    for t in Organ:
        base = _SIGNAL[t][phase]
        spread = 2.0 if t in FIXED_HU else 4.0
        enhanced = 40 + (base - 40) * timing if t >= Organ.STOMACH and base > 60 else base
        values.append(enhanced + spread * float(drift[t]))
    if rng.uniform() < 0.2:
        values[Organ.LIVER] -= float(rng.uniform(5, 15))
    return Signal(tuple(values), 1.0, "CT")


def mr_signal(rng: np.random.Generator) -> Signal:
    """One MRI's values: the contrast differs from scan to scan, in how well fat is suppressed above all."""
    drift = np.exp(0.07 * np.clip(rng.standard_normal(len(Organ)), -2, 2))
    values = [_SIGNAL[t][2] * float(drift[t]) for t in Organ]
    values[Organ.FAT] *= float(rng.uniform(0.7, 1.9))
    return Signal(tuple(values), values[Organ.LIVER], "MR")
