"""What each tissue of a procedural abdomen measures in CT and in arterial-phase MRI."""

import dataclasses
from typing import Literal

import numpy as np

from tlseg_jax.phantoms.abdomen_canvas import Organ

ContrastPhase = Literal["portal", "arterial"]

_PORTAL: dict[Organ, float] = {
    Organ.AIR: -1000,
    Organ.COUCH: -60,
    Organ.FAT: -100,
    Organ.MUSCLE: 58,
    Organ.BONE: 850,
    Organ.MARROW: 330,
    Organ.DISC: 85,
    Organ.CANAL: 25,
    Organ.LUNG: -830,
    Organ.HEART: 145,
    Organ.BOWEL: 62,
    Organ.FLUID: 16,
    Organ.GAS: -950,
    Organ.STOMACH: 75,
    Organ.PANCREAS: 88,
    Organ.SPLEEN: 118,
    Organ.SPLEEN_DARK: 118,
    Organ.CORTEX: 195,
    Organ.MEDULLA: 180,
    Organ.AORTA: 152,
    Organ.CAVA: 125,
    Organ.LIVER: 102,
    Organ.HEPATIC_VEIN: 142,
    Organ.PORTAL_VEIN: 152,
    Organ.BILE: 8,
}

CT_HU: dict[ContrastPhase, dict[Organ, float]] = {
    "portal": _PORTAL,
    "arterial": _PORTAL
    | {
        Organ.FAT: -102,
        Organ.MUSCLE: 55,
        Organ.DISC: 82,
        Organ.HEART: 210,
        Organ.BOWEL: 70,
        Organ.STOMACH: 85,
        Organ.PANCREAS: 105,
        Organ.SPLEEN: 140,
        Organ.SPLEEN_DARK: 95,
        Organ.CORTEX: 215,
        Organ.MEDULLA: 120,
        Organ.AORTA: 290,
        Organ.CAVA: 70,
        Organ.LIVER: 68,
        Organ.HEPATIC_VEIN: 60,
        Organ.PORTAL_VEIN: 88,
    },
}
"""HU by phase after contrast: portal venous, as most CTs of LiTS, or late arterial."""

ARTERIAL_SHARE = 0.3
"""Share of CTs in the late arterial phase."""

FIXED_HU = (Organ.AIR, Organ.GAS, Organ.FAT)
"""What a calibrated CT reads the same in everyone (to a few HU)."""

MR_SIGNAL: dict[Organ, float] = {
    Organ.AIR: 0,
    Organ.COUCH: 0,
    Organ.FAT: 30,
    Organ.MUSCLE: 46,
    Organ.BONE: 10,
    Organ.MARROW: 36,
    Organ.DISC: 34,
    Organ.CANAL: 18,
    Organ.LUNG: 7,
    Organ.HEART: 135,
    Organ.BOWEL: 72,
    Organ.FLUID: 26,
    Organ.GAS: 2,
    Organ.STOMACH: 85,
    Organ.PANCREAS: 112,
    Organ.SPLEEN: 150,
    Organ.SPLEEN_DARK: 84,
    Organ.CORTEX: 175,
    Organ.MEDULLA: 70,
    Organ.AORTA: 220,
    Organ.CAVA: 60,
    Organ.LIVER: 72,
    Organ.HEPATIC_VEIN: 56,
    Organ.PORTAL_VEIN: 98,
    Organ.BILE: 24,
}
"""T1-weighted signal with fat saturation in the arterial phase, the liver near 70: arteries, kidney cortex and
spleen are bright, the veins of the liver not yet."""


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
    table = CT_HU["arterial" if rng.uniform() < ARTERIAL_SHARE else "portal"]
    timing = 1 + 0.08 * float(np.clip(rng.standard_normal(), -2, 2))
    drift = np.clip(rng.standard_normal(len(Organ)), -2, 2)
    values = []
    for t in Organ:
        base = table[t]
        spread = 2.0 if t in FIXED_HU else 4.0
        enhanced = 40 + (base - 40) * timing if t >= Organ.STOMACH and base > 60 else base
        values.append(enhanced + spread * float(drift[t]))
    if rng.uniform() < 0.2:
        values[Organ.LIVER] -= float(rng.uniform(5, 15))
    return Signal(tuple(values), 1.0, "CT")


def mr_signal(rng: np.random.Generator) -> Signal:
    """One MRI's values: the contrast differs from scan to scan, in how well fat is suppressed above all."""
    drift = np.exp(0.07 * np.clip(rng.standard_normal(len(Organ)), -2, 2))
    values = [MR_SIGNAL[t] * float(drift[t]) for t in Organ]
    values[Organ.FAT] *= float(rng.uniform(0.7, 1.9))
    return Signal(tuple(values), values[Organ.LIVER], "MR")
