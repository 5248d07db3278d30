"""What is known of a model that is handed on: data, settings, scores, licence, use and limits; and nobody's name.

Of the scans that it has seen the card holds checksums and counts. It holds no subject, no person and no path.
"""

import hashlib
import importlib.metadata
import json
import platform
from collections.abc import Mapping, Sequence
from typing import Any

from tlseg_jax.checkpoints.checkpoint import SavedModel
from tlseg_jax.checkpoints.exported import FORMAT
from tlseg_jax.evaluate.results import IN_PERSON
from tlseg_jax.models.networks import count_parameters
from tlseg_jax.models.unet import UNetConfig
from tlseg_jax.studies.assess import title_of

NOT_STATED = "not stated"

PASSED_ON = (
    *("network", "spec", "prepare", "synthetic", "pretask", "task", "n", "seed"),
    *("seen_images", "seen_voxels", "versions", "patch_box", "smallest_pieces"),
)
"""What of a checkpoint's description goes with the model: not the persons, whose names may tell who they are."""

SCORES = (
    *("n", "iou_mean", "iou_std", "iou_median", "iou_min", "iou_max", "dice_mean", "dice_std"),
    *("reference_ml_mean", "predicted_ml_mean", "volume_error_ml_mean", "volume_error_ml_std", "empty_predictions"),
    *("hd95_mm_mean", "hd95_mm_std", "asd_mm_mean", "asd_mm_std", "distances_n", "distances_undefined"),
    *("synthetic", "tiles", "tta", "mm"),
)
"""What of a test set's summary goes with the model."""

DETECTION = ("overlap", "found", "missed", "false", "precision", "recall")

PACKAGES = ("jax", "flax", "orbax-checkpoint", "tlseg-jax")


def public_description(description: Mapping[str, Any], step: int) -> dict[str, Any]:
    """A checkpoint's description as it may be handed on: enough to rebuild the network and to prepare a new scan."""
    kept = {k: description[k] for k in PASSED_ON if k in description}
    return kept | {"step": step, "seen_persons": [], "persons_seen": len(description["seen_persons"])}


def make_card(
    saved: SavedModel, settings: Mapping[str, Any], summary: Mapping[str, Any], licence: str, program: Mapping[str, Any]
) -> dict[str, Any]:
    """The card as plain values; the files' checksums are added when they are written.

    Args:
      settings, summary: of the run, its `settings.json` and `summary.json`; the second is empty where there is none.
      licence: in words, or "".
      program: what the card says of the StableHLO program; empty where there is none.
    """
    d = saved.description
    job, start = settings["job"], settings.get("pretrained")
    return {
        "format": FORMAT,
        "title": title_of(d),
        "run": settings_digest(settings),
        "weights": saved.weights,
        "licence": licence.strip() or NOT_STATED,
        "model": public_description(d, saved.step),
        "parameters": count_parameters(saved.params),
        "data": {
            "task": d["task"],
            "labelled_scans": d["n"],
            "validation_scans": len(settings.get("validation_subjects", ())),
            "images_seen": len(d["seen_images"]),
            "persons_seen": len(d["seen_persons"]),
            "store": settings["data"]["store"],
            "synthetic": bool(d["synthetic"]),
        },
        "start": None if start is None else {"task": start["task"], "step": start["step"]},
        "settings": job,
        "scores": scores_of(summary, saved.step),
        "versions": {"trained": d["versions"], "exported": _versions()},
        "intended_use": _intended_use(d, saved.config),
        "limits": _limits(d, saved.config, summary, saved.step, bool(program)),
        "program": dict(program),
    }


def _program_lines(program: Mapping[str, Any]) -> list[str]:
    if not program:
        return []
    return [
        f"`{program['file']}`: StableHLO by jax.export, for {', '.join(program['platforms'])}; "
        f"({program['input']['shape']}) {program['input']['dtype']}: {program['input']['meaning']} -> "
        f"({program['output']['shape']}) {program['output']['dtype']}: {program['output']['meaning']}; "
        f"sides: {program['sides']}"
    ]


def settings_digest(settings: Mapping[str, Any]) -> str:
    """A checksum of a run's settings, which tells two runs apart."""
    return hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()


def scores_of(summary: Mapping[str, Any], step: int) -> dict[str, Any]:
    """Test set -> its scores, without the subjects; none where they are of another step than the model."""
    if summary.get("model_step") != step:
        return {}
    out = {}
    for name, entry in summary.get("test_sets", {}).items():
        kept = {k: entry[k] for k in SCORES if k in entry}
        if not IN_PERSON.items() <= entry.items() and "detection" not in entry:  # which slices always have
            kept = {k: v for k, v in kept.items() if "_ml_" not in k and "_mm_" not in k}
        kept["seen_in_training"] = len(entry.get("seen_in_training", ()))
        if "detection" in entry:
            kept["detection"] = {k: entry["detection"][k] for k in DETECTION if k in entry["detection"]}
        out[name] = kept
    return out


def _versions() -> dict[str, str]:
    out = {"python": platform.python_version()}
    for name in PACKAGES:
        try:
            out[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            out[name] = "not installed as a package"
    return out


def _what(d: Mapping[str, Any], config: UNetConfig) -> str:
    """The kind of scan and what is marked in it."""
    spec = d["spec"]
    if config.dimensions == 2:
        return f"{' and '.join(spec['structures'])} in {spec['modality']} volumes, slice by slice"
    # One structure was told by itself before there could be several.
    structures = spec.get("structures") or [spec["structure"]]
    return f"{' and '.join(structures)} in volumes of the {spec['space']} space"


def _intended_use(d: Mapping[str, Any], config: UNetConfig) -> list[str]:
    return [
        f"Research: marks the {_what(d, config)}, on scans like those that it was trained on.",
        "A start for fine-tuning on few labelled scans of a related structure.",
        "Not for diagnosis or treatment: it is no medical device, and nobody has tested it as one.",
    ]


def _limits(
    d: Mapping[str, Any], config: UNetConfig, summary: Mapping[str, Any], step: int, program: bool
) -> list[str]:
    lines = []
    if d["synthetic"]:
        lines.append("It has only seen drawn scans: its scores, and what it marks in real ones, mean nothing.")
    if (d.get("prepare") or {}).get("from_labels"):
        lines.append("It has seen no scan: its images were drawn from label maps.")
    lines.append(f"It was trained on {d['n']} labelled scan(s) of {d['task']}; other scanners and patients may differ.")
    if not scores_of(summary, step):
        lines.append("No scores of this model are known.")
    else:
        lines.append("Each score is a mean over the few test scans that the table counts.")
        old = [name for name, s in scores_of(summary, step).items() if "predicted_ml_mean" not in s]
        if old:
            lines.append(
                f"Volumes on {', '.join(old)} were counted on a template's grid, not in the persons, and are left out: "
                "evaluate the run again to have them."
            )
    if d.get("patch_box"):
        lines.append("It sees one fixed patch of the prepared volume: structure outside of it is never found.")
    lines += [
        "Scans that it has seen are known by checksums of their files and voxels alone: another scan of the same "
        "person is not recognised."
    ]
    if program:
        lines += [
            "JAX promises to read the program (StableHLO) for six months; the checkpoint does not expire.",
            "Program and checkpoint differ by rounding."
            + (
                " Where two values of a pooling cell are equal but for that, what is un-pooled may move by a voxel."
                if config.up == "switch"
                else ""
            ),
        ]
    if config.dimensions == 2:
        lines.append("The forest that drops false components (`postprocess`) is no part of it.")
    return lines


def card_text(card: Mapping[str, Any]) -> str:
    """The card in Markdown, for people."""
    data, model, program, start = card["data"], card["model"], card["program"], card["start"]
    first = "random parameters" if start is None else f"the model of {start['task']}, step {start['step']}"
    seen = f"{data['images_seen']} scans of {data['persons_seen']} persons"
    parts = {
        "Use": _bullets(card["intended_use"]),
        "Limits": _bullets(card["limits"]),
        "Data": _bullets(
            [
                f"data set: {data['task']}{', drawn' if data['synthetic'] else ''}; store {data['store']}",
                f"labelled scans: {data['labelled_scans']}, of which {data['validation_scans']} for validation",
                f"seen in training and pre-training: {seen} (checksums of the scans in card.json)",
                f"start: {first}",
                *_fields(model["spec"]),
            ]
        ),
        "Preparation": _bullets(_fields(model["prepare"]) or ["as the data set says"]),
        "Scores": _score_table(card["scores"]),
        "Settings": _bullets(_fields(_flat(card["settings"]))),
        "Files": _bullets(
            [
                "`checkpoint/`: Orbax: parameters, running averages and a description",
                *_program_lines(program),
                "`card.json`: all of this, and the SHA-256 of each file",
            ]
        ),
        "Versions": _bullets(
            [f"{when}: " + ", ".join(f"{k} {v}" for k, v in found.items()) for when, found in card["versions"].items()]
        ),
    }
    head = (
        f"# {card['title']}\n\nNetwork `{model['network']['name']}`, {card['parameters']:,} parameters, step "
        f"{model['step']}. Licence: {card['licence']}.\n"
    )
    return "\n".join([head, *(f"## {title}\n\n{text}\n" for title, text in parts.items())])


def _bullets(lines: Sequence[str]) -> str:
    return "\n".join(f"- {line}" for line in lines)


def _fields(settings: Mapping[str, Any]) -> list[str]:
    return [f"{k}: {json.dumps(v)}" for k, v in settings.items()]


def _flat(settings: Mapping[str, Any]) -> dict[str, Any]:
    out: dict[str, Any] = {}
    for k, v in settings.items():
        out |= {f"{k}.{inner}": value for inner, value in v.items()} if isinstance(v, Mapping) else {k: v}
    return out


def _score_table(scores: Mapping[str, Any]) -> str:
    if not scores:
        return "None."
    lines = [
        "| test set | scans | IoU mean | IoU std | Dice mean | predicted / reference ml | HD95 mm (without one) | "
        "seen in training |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for name, s in scores.items():
        spread = "-" if s.get("iou_std") is None else f"{s['iou_std']:.3f}"
        volumes, hd95 = "-", "-"
        if "predicted_ml_mean" in s:
            volumes = f"{s['predicted_ml_mean']:.2f} / {s['reference_ml_mean']:.2f}"
        if s.get("hd95_mm_mean") is not None:
            hd95 = f"{s['hd95_mm_mean']:.2f} ({s['distances_undefined']})"
        drawn = " (drawn)" if s.get("synthetic") else ""
        lines.append(
            f"| {name}{drawn} | {s['n']} | {s['iou_mean']:.3f} | {spread} | {s['dice_mean']:.3f} | "
            f"{volumes} | {hd95} | {s['seen_in_training']} |"
        )
    return "\n".join(lines)
