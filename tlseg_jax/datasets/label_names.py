"""What the values of two well-known kinds of brain label map mean, so that a message can name them.

FreeSurfer: `FreeSurferColorLUT.txt`, of which here are the values of `aseg.mgz`. Neuromorphometrics: the protocol of
the MICCAI 2012 multi-atlas challenge, whose values from 100 to 207 are parts of the cortex and are not named here.
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
