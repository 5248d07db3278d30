"""One map from person to side for the data sets of a split_group, kept in their manifests ("persons").

    "persons": {"OAS1_0001": {"number": 0, "split": "train"}, ...}

It holds everyone that the data set has ever listed, so that whoever leaves or comes moves nobody else, neither from one
side of the split to the other nor (by the number, see `folds`) from fold to fold.
"""

import dataclasses
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from tlseg_jax.datasets.splits import Split, numbered
from tlseg_jax.preprocess.layouts.found import person_of
from tlseg_jax.preprocess.store.records import images_of, read_json_if_any
from tlseg_jax.runtime import elsewhere
from tlseg_jax.runtime.errors import InputError

NOBODY_LEFT = "Those who are left were all on one side of the earlier split, so they are split anew."

Records = Mapping[str, dict[str, Any]]


def unite_scans(records: Records) -> list[str]:
    """Give scans of one image (equal voxels) one person, in the records; say whose scans are one person's.

    Returns:
      Warnings: who was made one by the files, and who is one by the endings of the names.
    """
    warnings = []
    of_image: dict[str, list[str]] = {}
    for s in sorted(records):
        for image in images_of(records[s]):
            of_image.setdefault(image, []).append(s)
    groups = {tuple(of) for of in of_image.values() if len(of) > 1}
    # Of some records only the file's checksum is known: a group of one file may be part of one of its voxels.
    for same in sorted(g for g in groups if not any(set(g) < set(other) for other in groups)):
        persons = sorted({records[s]["person"] for s in same})
        for r in records.values():
            if r["person"] in persons:
                r["person"] = persons[0]
        warnings.append(
            f"{', '.join(same)} are the same image (equal voxels): they count as one person, {persons[0]}, and "
            "stand on one side of every split; leave all but one out."
        )
    repeats: dict[str, list[str]] = {}
    for s, r in sorted(records.items()):
        if r["person"] == person_of(s):
            repeats.setdefault(r["person"], []).append(s)
    several = {p: of for p, of in repeats.items() if len(of) > 1}
    if several:
        person, scans = next(iter(several.items()))
        warnings.append(
            f"{sum(map(len, several.values()))} scans are of {len(several)} person(s) by the endings of their names, "
            f"such as {person} ({', '.join(scans[:4])}): a person's scans stand on one side of every split. Where that "
            "is wrong, say who is who in the 'person' column of a CSV list."
        )
    return warnings


@dataclasses.dataclass(frozen=True)
class Earlier:
    """What is known of the persons of a data set before it is split.

    Attributes:
      own: person -> side in this data set's manifest, if it was split by the same rule.
      others: person -> side in the other data sets of the group, which win.
      map: "persons" of this data set's manifest.
      warnings: whose earlier sides disagree, or were split by another rule.
    """

    own: dict[str, Split]
    others: dict[str, Split]
    map: dict[str, dict[str, Any]]
    warnings: list[str]

    @property
    def sides(self) -> dict[str, Split]:
        """Person -> side that stays."""
        return self.own | self.others

    def new_map(self, persons: Iterable[str], sides: Mapping[str, Split]) -> dict[str, dict[str, Any]]:
        """The map with these persons in it.

        Args:
          persons: everyone that the source lists, usable or not.
          sides: person -> side now.
        """
        known = {p: int(e["number"]) for p, e in self.map.items()}
        stay = self.own | dict(sides)
        numbers = numbered([*persons, *sides], known)
        return {p: {"number": k} | ({"split": stay[p]} if p in stay else {}) for p, k in numbers.items()}


def earlier_sides(
    records: Records,
    given: Mapping[str, str],
    group: str,
    store_root: Path,
    folder: Path,
    same_rule: Callable[[Mapping[str, Any]], bool],
) -> Earlier:
    """What the manifests of a group say of these scans' persons.

    A person is known by name, by the name of a scan, and by the checksum of an image.

    Args:
      records: of this data set, its persons united (`unite_scans`).
      given: subject -> side where the source says so.
      same_rule: whether a manifest was split by the rule that is asked for now.

    Raises:
      InputError: the source puts a scan on another side than a data set of the group.
    """
    names = {r["person"] for r in records.values()}
    by_image = {i: r["person"] for r in records.values() for i in images_of(r)}
    found: dict[bool, dict[str, set[str]]] = {True: {}, False: {}}
    own_map: dict[str, dict[str, Any]] = {}
    warnings = []
    elsewhere.current().fetch(store_root, "*/manifest.json")  # others may have written theirs meanwhile
    for path in sorted(store_root.glob("*/manifest.json")):
        manifest = read_json_if_any(path)
        if manifest is None or manifest.get("spec", {}).get("split_group") != group:
            continue
        ours, same = path.parent == folder, same_rule(manifest)
        kept: dict[str, set[str]] = {}
        listed = {p: e for p, e in manifest.get("persons", {}).items() if isinstance(e, dict) and "number" in e}
        for p, e in listed.items():
            if (p in names or ours) and "split" in e:
                kept.setdefault(p, set()).add(e["split"])
        for s, r in manifest.get("subjects", {}).items():
            them = {by_image.get(i) for i in images_of(r)} | {records[s]["person"] if s in records else None}
            them |= {r.get("person")} & names
            for p in them - {None}:
                kept.setdefault(str(p), set()).add(r["split"])
            if s in given and r["split"] != given[s] and not ours:
                raise InputError(
                    f"Subject {s} is to be in {given[s]} and is in {r['split']} in the data set {path.parent}, which "
                    "shares its split: put it on one side, or use another `store`."
                )
        if ours:
            own_map = listed or {p: {"number": k} for p, k in numbered(_persons(manifest)).items()}
            if not same:
                continue  # another split is asked for
        elif not same and kept:
            warnings.append(
                f"{len(kept)} person(s) keep the side that they have in {path.parent}, which shares its split "
                f"(split_group {group}) and was split by another rule: to split anew, remove both."
            )
        for p, sides in kept.items():
            found[ours].setdefault(p, set()).update(sides)
    for p in sorted(names):
        if len(found[True].get(p, set()) | found[False].get(p, set())) > 1:
            warnings.append(
                f"The scans of {p} were on both sides of an earlier split: all of them train now. Models that were "
                "tested on one of them are to be tested anew."
            )
            found[False][p] = {"train"}
    own, others = ({p: _side(s) for p, s in found[k].items()} for k in (True, False))
    return Earlier(own, others, own_map, warnings)


def _persons(manifest: Mapping[str, Any]) -> set[str]:
    return {str(r["person"]) for r in manifest.get("subjects", {}).values()}


def _side(sides: set[str]) -> Split:
    return "train" if "train" in sides else "test"
