"""Which parameters are frozen: ordered rules that cover every parameter, as data."""

import dataclasses
import re
from collections.abc import Collection, Mapping
from typing import Any, Literal

from flax.traverse_util import flatten_dict, unflatten_dict

from tlseg_jax.runtime.choose import choose
from tlseg_jax.runtime.errors import InputError

Fate = Literal["trained", "frozen"]
Freeze = Literal["encoder", "encoder_without_bottleneck", "first_two", "first_two_convolutions", "norm_only", "none"]


@dataclasses.dataclass(frozen=True)
class Rule:
    """Parameters whose path ("encoder_0/conv_0/kernel") matches `pattern` from its start are `part`.

    "if_fresh" is trained where any of them is not pre-trained, else frozen.
    """

    pattern: str
    part: Fate | Literal["if_fresh"]


_REST = Rule(r".*", "trained")

FREEZING: Mapping[str, tuple[Rule, ...]] = {
    # Section 3.1: "the encoder is frozen and only the decoder weights are allowed to change".
    # Whether the bottleneck belongs to the encoder is not said: it is taken to.
    "encoder": (Rule(r"(encoder_\d+|bottleneck)/", "frozen"), _REST),
    "encoder_without_bottleneck": (Rule(r"encoder_\d+/", "frozen"), _REST),
    # The liver report's model C, read as the first two resolution levels.
    "first_two": (Rule(r"encoder_[01]/", "frozen"), _REST),
    # The other reading: the first level's two convolutions, with their norms and short skip.
    "first_two_convolutions": (Rule(r"encoder_0/", "frozen"), _REST),
    # The batch norms' scales and offsets, whose running averages then move too, and a head that is new.
    "norm_only": (Rule(r"[^/]+/bn_\d+/", "trained"), Rule(r"head/", "if_fresh"), Rule(r".*", "frozen")),
    "none": (_REST,),
}


def get_rules(name: str) -> tuple[Rule, ...]:
    """The rules of a named freezing.

    Raises:
      InputError: no freezing has that name.
    """
    return choose("freezing", name, FREEZING)


def label_parameters(params: Mapping[str, Any], rules: tuple[Rule, ...], fresh: Collection[str] = ()) -> dict[str, Any]:
    """A tree like `params` of "trained" and "frozen".

    The first rule that matches a parameter decides, so each is covered exactly once.

    Args:
      params: of the network; arrays or shapes.
      rules: in order.
      fresh: what is not pre-trained, as `restore.Restored.fresh` has it.

    Raises:
      InputError: a parameter that no rule covers, a rule that decides for none, or nothing left to train.
    """
    used: set[Rule] = set()
    out: dict[tuple[str, ...], Fate] = {}
    for path in flatten_dict(params):
        name = "/".join(path)
        rule = next((r for r in rules if re.match(r.pattern, name)), None)
        if rule is None:
            raise InputError(f"No freezing rule covers the parameter {name}: end the rules with '.*'.")
        used.add(rule)
        if rule.part == "if_fresh":
            new = any(re.match(rule.pattern, f) for f in fresh)
            out[path] = "trained" if new else "frozen"
        else:
            out[path] = rule.part
    idle = [r.pattern for r in rules if r not in used]
    if idle:
        raise InputError(f"The freezing rule '{idle[0]}' decides for no parameter of this network: correct it.")
    if "trained" not in out.values():
        raise InputError("The freezing rules leave nothing to train: mark at least one parameter as trained.")
    return unflatten_dict(out)  # type: ignore[no-any-return]


def split_parameters(params: Mapping[str, Any], labels: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """(trained, frozen): two trees, each with its own part of the leaves; `merge_parameters` joins them."""
    flat, parts = flatten_dict(params), flatten_dict(labels)
    trained = {k: v for k, v in flat.items() if parts[k] == "trained"}
    frozen = {k: v for k, v in flat.items() if parts[k] == "frozen"}
    return unflatten_dict(trained), unflatten_dict(frozen)


def merge_parameters(trained: Mapping[str, Any], frozen: Mapping[str, Any]) -> dict[str, Any]:
    """The whole tree again."""
    return unflatten_dict(flatten_dict(trained) | flatten_dict(frozen))  # type: ignore[no-any-return]


def frozen_batch_norms(labels: Mapping[str, Any]) -> frozenset[str]:
    """Paths ("encoder_0/bn_0") of the batch norms whose scale is frozen."""
    return frozenset(
        "/".join(path[:-1]) for path, part in flatten_dict(labels).items() if path[-1] == "scale" and part == "frozen"
    )


def parameter_table(params: Mapping[str, Any], labels: Mapping[str, Any]) -> str:
    """An aligned table of the blocks with their trained and frozen parameter counts."""
    counts: dict[str, dict[str, int]] = {}
    parts = flatten_dict(labels)
    for path, leaf in flatten_dict(params).items():
        row = counts.setdefault(path[0], {"trained": 0, "frozen": 0})
        row[parts[path]] += int(leaf.size)
    total = {p: sum(r[p] for r in counts.values()) for p in ("trained", "frozen")}
    lines = [f"{'block':<14}{'trained':>10}{'frozen':>10}"]
    for name, row in [*counts.items(), ("total", total)]:
        lines.append(f"{name:<14}{row['trained']:>10,}{row['frozen']:>10,}")
    return "\n".join(lines)
