"""What the values of well-known kinds of label map mean, so that messages and commands can name them.

FreeSurfer: `FreeSurferColorLUT.txt`, of which here are the values of `aseg.mgz`. Neuromorphometrics: the protocol of
the MICCAI 2012 multi-atlas challenge, whose values from 100 to 207 are parts of the cortex and are not named here.
TotalSegmentator: the organs and bones of its task "total", version 2, without the ribs.
"""

from collections.abc import Collection, Mapping

_FREESURFER_PAIRS = {
    "Cerebral White Matter": (2, 41),
    "Cerebral Cortex": (3, 42),
    "Lateral Ventricle": (4, 43),
    "Inf Lat Vent": (5, 44),
    "Cerebellum White Matter": (7, 46),
    "Cerebellum Cortex": (8, 47),
    "Thalamus": (10, 49),
    "Caudate": (11, 50),
    "Putamen": (12, 51),
    "Pallidum": (13, 52),
    "Hippocampus": (17, 53),
    "Amygdala": (18, 54),
    "Lesion": (25, 57),
    "Accumbens Area": (26, 58),
    "Ventral DC": (28, 60),
    "Vessel": (30, 62),
    "Choroid Plexus": (31, 63),
}
_NEUROMORPHOMETRICS_PAIRS = {
    "Accumbens Area": (30, 23),
    "Amygdala": (32, 31),
    "Caudate": (37, 36),
    "Cerebellum Exterior": (39, 38),
    "Cerebellum White Matter": (41, 40),
    "Cerebral Exterior": (43, 42),
    "Cerebral White Matter": (45, 44),
    "Hippocampus": (48, 47),
    "Inf Lat Vent": (50, 49),
    "Lateral Ventricle": (52, 51),
    "Lesion": (54, 53),
    "Pallidum": (56, 55),
    "Putamen": (58, 57),
    "Thalamus Proper": (60, 59),
    "Ventral DC": (62, 61),
    "Vessel": (64, 63),
    "Basal Forebrain": (75, 76),
}


def _table(pairs: Mapping[str, tuple[int, int]], single: Mapping[int, str]) -> Mapping[int, str]:
    left = {two[0]: f"Left {name}" for name, two in pairs.items()}
    right = {two[1]: f"Right {name}" for name, two in pairs.items()}
    return dict(sorted((left | right | dict(single)).items()))


LABEL_NAMES: Mapping[str, Mapping[int, str]] = {
    "FreeSurfer": _table(
        _FREESURFER_PAIRS,
        {
            14: "3rd Ventricle",
            15: "4th Ventricle",
            16: "Brain Stem",
            24: "CSF",
            72: "5th Ventricle",
            77: "WM Hypointensities",
            80: "Non-WM Hypointensities",
            85: "Optic Chiasm",
        },
    ),
    "Neuromorphometrics": _table(
        _NEUROMORPHOMETRICS_PAIRS,
        {
            4: "3rd Ventricle",
            11: "4th Ventricle",
            15: "5th Ventricle",
            35: "Brain Stem",
            46: "CSF",
            69: "Optic Chiasm",
            71: "Cerebellar Vermal Lobules I-V",
            72: "Cerebellar Vermal Lobules VI-VII",
            73: "Cerebellar Vermal Lobules VIII-X",
        },
    ),
}
"""Table -> value -> name."""

_PAIRS = {"FreeSurfer": _FREESURFER_PAIRS, "Neuromorphometrics": _NEUROMORPHOMETRICS_PAIRS}

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
