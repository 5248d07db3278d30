"""What each tissue of a procedural abdomen measures in CT and in arterial-phase MRI."""

import dataclasses
from typing import Literal

import numpy as np

from tlseg_jax.phantoms.abdomen_canvas import Tissue

Phase = Literal["portal", "arterial"]

CT_HU: dict[Phase, dict[Tissue, float]] = {
    "portal": {
        Tissue.AIR: -1000,
        Tissue.COUCH: -60,
        Tissue.FAT: -100,
        Tissue.MUSCLE: 58,
        Tissue.BONE: 850,
        Tissue.MARROW: 330,
        Tissue.DISC: 85,
        Tissue.CANAL: 25,
        Tissue.LUNG: -830,
        Tissue.HEART: 145,
        Tissue.BOWEL: 62,
        Tissue.FLUID: 16,
        Tissue.GAS: -950,
        Tissue.STOMACH: 75,
        Tissue.PANCREAS: 88,
        Tissue.SPLEEN: 118,
        Tissue.SPLEEN_DARK: 118,
        Tissue.CORTEX: 195,
        Tissue.MEDULLA: 180,
        Tissue.AORTA: 152,
        Tissue.CAVA: 125,
        Tissue.LIVER: 102,
        Tissue.HEPATIC_VEIN: 142,
        Tissue.PORTAL_VEIN: 152,
        Tissue.BILE: 8,
    },
    "arterial": {
        Tissue.AIR: -1000,
        Tissue.COUCH: -60,
        Tissue.FAT: -102,
        Tissue.MUSCLE: 55,
        Tissue.BONE: 850,
        Tissue.MARROW: 330,
        Tissue.DISC: 82,
        Tissue.CANAL: 25,
        Tissue.LUNG: -830,
        Tissue.HEART: 210,
        Tissue.BOWEL: 70,
        Tissue.FLUID: 16,
        Tissue.GAS: -950,
        Tissue.STOMACH: 85,
        Tissue.PANCREAS: 105,
        Tissue.SPLEEN: 140,
        Tissue.SPLEEN_DARK: 95,
        Tissue.CORTEX: 215,
        Tissue.MEDULLA: 120,
        Tissue.AORTA: 290,
        Tissue.CAVA: 70,
        Tissue.LIVER: 68,
        Tissue.HEPATIC_VEIN: 60,
        Tissue.PORTAL_VEIN: 88,
        Tissue.BILE: 8,
    },
}
"""HU by phase after contrast: portal venous, as most CTs of LiTS, or late arterial."""

ARTERIAL_SHARE = 0.3
"""Share of CTs in the late arterial phase."""

FIXED_HU = (Tissue.AIR, Tissue.GAS, Tissue.FAT)
"""What a calibrated CT reads the same in everyone (to a few HU)."""

MR_SIGNAL: dict[Tissue, float] = {
    Tissue.AIR: 0,
    Tissue.COUCH: 0,
    Tissue.FAT: 30,
    Tissue.MUSCLE: 46,
    Tissue.BONE: 10,
    Tissue.MARROW: 36,
    Tissue.DISC: 34,
    Tissue.CANAL: 18,
    Tissue.LUNG: 7,
    Tissue.HEART: 135,
    Tissue.BOWEL: 72,
    Tissue.FLUID: 26,
    Tissue.GAS: 2,
    Tissue.STOMACH: 85,
    Tissue.PANCREAS: 112,
    Tissue.SPLEEN: 150,
    Tissue.SPLEEN_DARK: 84,
    Tissue.CORTEX: 175,
    Tissue.MEDULLA: 70,
    Tissue.AORTA: 220,
    Tissue.CAVA: 60,
    Tissue.LIVER: 72,
    Tissue.HEPATIC_VEIN: 56,
    Tissue.PORTAL_VEIN: 98,
    Tissue.BILE: 24,
}
"""T1-weighted signal with fat saturation in the arterial phase, the liver near 70: arteries, kidney cortex and
spleen are bright, the veins of the liver not yet."""


@dataclasses.dataclass(frozen=True)
class Signal:
    """One scan's signal of each tissue (by `Tissue` number), and of lesions.

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
    drift = np.clip(rng.standard_normal(len(Tissue)), -2, 2)
    values = []
    for t in Tissue:
        base = table[t]
        spread = 2.0 if t in FIXED_HU else 4.0
        enhanced = 40 + (base - 40) * timing if t >= Tissue.STOMACH and base > 60 else base
        values.append(enhanced + spread * float(drift[t]))
    if rng.uniform() < 0.2:
        values[Tissue.LIVER] -= float(rng.uniform(5, 15))
    return Signal(tuple(values), 1.0, "CT")


def mr_signal(rng: np.random.Generator) -> Signal:
    """One MRI's values: the contrast differs from scan to scan, in how well fat is suppressed above all."""
    drift = np.exp(0.07 * np.clip(rng.standard_normal(len(Tissue)), -2, 2))
    values = [MR_SIGNAL[t] * float(drift[t]) for t in Tissue]
    values[Tissue.FAT] *= float(rng.uniform(0.7, 1.9))
    return Signal(tuple(values), values[Tissue.LIVER], "MR")
