"""What the values of well-known kinds of label map mean, so that messages and commands can name them.

FreeSurfer: `FreeSurferColorLUT.txt`, of which here are the values of `aseg.mgz`. Neuromorphometrics: the protocol of
the MICCAI 2012 multi-atlas challenge, whose values from 100 to 207 are parts of the cortex and are not named here.
TotalSegmentator: the organs and bones of its task "total", version 2, without the ribs.
"""

from collections.abc import Collection, Mapping

_TABLES = ("FreeSurfer", "Neuromorphometrics")

_SIDED: Mapping[str, tuple[tuple[int, int] | None, tuple[int, int] | None]] = {
    "Cerebral White Matter": ((2, 41), (45, 44)),
    "Cerebral Cortex": ((3, 42), None),
    "Lateral Ventricle": ((4, 43), (52, 51)),
    "Inf Lat Vent": ((5, 44), (50, 49)),
    "Cerebellum White Matter": ((7, 46), (41, 40)),
    "Cerebellum Cortex": ((8, 47), None),
    "Thalamus": ((10, 49), None),
    "Caudate": ((11, 50), (37, 36)),
    "Putamen": ((12, 51), (58, 57)),
    "Pallidum": ((13, 52), (56, 55)),
    "Hippocampus": ((17, 53), (48, 47)),
    "Amygdala": ((18, 54), (32, 31)),
    "Lesion": ((25, 57), (54, 53)),
    "Accumbens Area": ((26, 58), (30, 23)),
    "Ventral DC": ((28, 60), (62, 61)),
    "Vessel": ((30, 62), (64, 63)),
    "Choroid Plexus": ((31, 63), None),
    "Cerebellum Exterior": (None, (39, 38)),
    "Cerebral Exterior": (None, (43, 42)),
    "Thalamus Proper": (None, (60, 59)),
    "Basal Forebrain": (None, (75, 76)),
}
"""Structure -> its values left and right in each of `_TABLES`."""

_SINGLE: Mapping[str, tuple[int | None, int | None]] = {
    "3rd Ventricle": (14, 4),
    "4th Ventricle": (15, 11),
    "Brain Stem": (16, 35),
    "CSF": (24, 46),
    "5th Ventricle": (72, 15),
    "WM Hypointensities": (77, None),
    "Non-WM Hypointensities": (80, None),
    "Optic Chiasm": (85, 69),
    "Cerebellar Vermal Lobules I-V": (None, 71),
    "Cerebellar Vermal Lobules VI-VII": (None, 72),
    "Cerebellar Vermal Lobules VIII-X": (None, 73),
}

_PAIRS = {table: {name: two for name, of in _SIDED.items() if (two := of[i])} for i, table in enumerate(_TABLES)}


def _table(i: int) -> Mapping[int, str]:
    sides = _PAIRS[_TABLES[i]].items()
    sided = {two[k]: f"{side} {name}" for k, side in enumerate(("Left", "Right")) for name, two in sides}
    return dict(sorted((sided | {v: name for name, of in _SINGLE.items() if (v := of[i])}).items()))


LABEL_NAMES: Mapping[str, Mapping[int, str]] = {table: _table(i) for i, table in enumerate(_TABLES)}
"""Table -> value -> name."""

_TOTALSEGMENTATOR = (
    "spleen kidney_right kidney_left gallbladder liver stomach pancreas adrenal_gland_right adrenal_gland_left "
    "lung_upper_lobe_left lung_lower_lobe_left lung_upper_lobe_right lung_middle_lobe_right lung_lower_lobe_right "
    "esophagus trachea thyroid_gland small_bowel duodenum colon urinary_bladder prostate kidney_cyst_left "
    "kidney_cyst_right sacrum vertebrae_S1 vertebrae_L5 vertebrae_L4 vertebrae_L3 vertebrae_L2 vertebrae_L1 "
    "vertebrae_T12 vertebrae_T11 vertebrae_T10 vertebrae_T9 vertebrae_T8 vertebrae_T7 vertebrae_T6 vertebrae_T5 "
    "vertebrae_T4 vertebrae_T3 vertebrae_T2 vertebrae_T1 vertebrae_C7 vertebrae_C6 vertebrae_C5 vertebrae_C4 "
    "vertebrae_C3 vertebrae_C2 vertebrae_C1 heart aorta pulmonary_vein brachiocephalic_trunk "
    "subclavian_artery_right subclavian_artery_left common_carotid_artery_right common_carotid_artery_left "
    "brachiocephalic_vein_left brachiocephalic_vein_right atrial_appendage_left superior_vena_cava "
    "inferior_vena_cava portal_vein_and_splenic_vein iliac_artery_left iliac_artery_right iliac_vena_left "
    "iliac_vena_right humerus_left humerus_right scapula_left scapula_right clavicula_left clavicula_right "
    "femur_left femur_right hip_left hip_right spinal_cord gluteus_maximus_left gluteus_maximus_right "
    "gluteus_medius_left gluteus_medius_right gluteus_minimus_left gluteus_minimus_right autochthon_left "
    "autochthon_right iliopsoas_left iliopsoas_right brain skull"
)
"""In the order of their values, from 1."""


def _preset(pairs: Mapping[str, tuple[int, int]], names: Mapping[int, str]) -> Mapping[str, tuple[int, ...]]:
    def plain(name: str) -> str:
        return name.lower().replace(" ", "_").replace("-", "_").replace("thalamus_proper", "thalamus")

    sided = {plain(n) + s: (v,) for n, two in pairs.items() for s, v in zip(("_left", "_right"), two, strict=True)}
    single = {plain(n): (v,) for v, n in names.items() if not n.startswith(("Left ", "Right "))}
    return sided | single


PRESETS: Mapping[str, Mapping[str, tuple[int, ...]]] = {
    **{t.lower(): _preset(_PAIRS[t], LABEL_NAMES[t]) for t in LABEL_NAMES},
    "totalsegmentator": {name: (i + 1,) for i, name in enumerate(_TOTALSEGMENTATOR.split())},
}
"""Table -> structure, with "_left" or "_right" where it has sides -> its values."""

_KNOWN = 0.8
"""Share of a map's values below 100 that a table must name: maps of abdominal organs count from 1 too."""


def table_of(values: Collection[int]) -> str:
    """The table that a label map's values are from; empty where it is neither.

    A table fits where it names most of the values below 100 and both sides of some structure; of two, the one with more
    pairs.
    """
    low = {v for v in values if 0 < v < 100}
    pairs = {table: sum(low.issuperset(two) for two in _PAIRS[table].values()) for table in LABEL_NAMES}
    best = max(pairs, key=lambda table: pairs[table])
    return best if pairs[best] and len(low & LABEL_NAMES[best].keys()) >= _KNOWN * len(low) else ""


def values_in_words(values: Collection[int], structure: str) -> str:
    """The values of a label map, with their names where they are known and those of `structure` first.

    Args:
      values: what the map holds, without 0.
      structure: what is looked for, such as "lateral ventricle".

    Returns:
      Such as "2, 4-5, 100-207; by FreeSurfer's names 4 Left Lateral Ventricle, ...".
    """
    ranges: list[list[int]] = []
    for v in sorted(values):
        if ranges and v == ranges[-1][1] + 1:
            ranges[-1][1] = v
        else:
            ranges.append([v, v])
    text = ", ".join(str(a) if a == b else f"{a}, {b}" if b == a + 1 else f"{a}-{b}" for a, b in ranges)
    table = table_of(values)
    if not table:
        return text
    named = {v: name for v, name in LABEL_NAMES[table].items() if v in values}
    ours = [v for v, name in named.items() if structure.lower() in name.lower()]
    order = [*ours, *(v for v in named if v not in ours)]
    return f"{text}; by {table}'s names " + ", ".join(f"{v} {named[v]}" for v in order)
