"""Known runs in, known tables and sentences out."""

import csv
import re
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest
from scipy import stats

from tests.report.test_compare_runs import SOURCE, TARGET, write_run
from tlseg_jax.evaluate.run_tables import CompareRun
from tlseg_jax.figures.slice_examples import ExampleCase
from tlseg_jax.report.compare_report import write_comparison
from tlseg_jax.runtime.errors import InputError

RATE = {"A": 20, "B": 40, "C": 80}
"""Steps in which the loss falls by e: A is fastest, as the report found."""


def losses(model: str, seed: int) -> list[float]:
    return [0.01 + 0.7 * float(np.exp(-i / (RATE[model] + seed))) for i in range(600)]


def volumes(base: float, count: int, spread: float = 0.01) -> dict[str, float]:
    return {f"volume-{i}": round(base + spread * i, 6) for i in range(count)}


def cohort(
    root: Path,
    *,
    target: Mapping[str, float] = {"A": 0.3, "B": 0.5, "C": 0.6},
    source: Mapping[str, float] | None = {"A": 0.05, "B": 0.2, "C": 0.55},
    count: int = 8,
    seeds: int = 3,
    n: int | None = None,
) -> list[CompareRun]:
    """Runs in which seed s scores 0.01 s above seed 0 and volume i of model C another 0.002 i above."""
    runs = []
    for m, base in target.items():
        for s in range(seeds):
            more = 0.012 if m == "C" else 0.01
            dice = {TARGET: volumes(base + 0.01 * s, count, more)}
            if source:
                dice[SOURCE] = volumes(source[m] + 0.01 * s, count, more)
            run = write_run(
                root / f"{m}{s}_{n}", model=m, seed=s, n=n, losses=losses(m, s),
                epochs=[(300, 60.0 + s, 0.5), (600, 30.0, 0.1)], dice=dice,
                detection={"found": 2 + s, "missed": 1, "false": 3, "precision": 0.4, "recall": 2 / 3},
            )  # fmt: skip
            runs.append(run)
    return runs


def pretrained(root: Path, base: float = 0.6, count: int = 8) -> Path:
    return write_run(root / "pretrained", dice={SOURCE: volumes(base, count)}).folder


def rows(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as f:
        return list(csv.DictReader(f))


def write(root: Path, runs: list[CompareRun], before: Path | None, source: str | None = SOURCE) -> tuple[Path, str]:
    page = write_comparison(root / "out", runs, before, TARGET, source, [], False, {})
    return page.parent, page.read_text()


def section(text: str, heading: str) -> str:
    return text.split(f"## {heading}\n", 1)[1].split("\n## ", 1)[0]


def test_tables_hold_the_numbers_of_the_runs(tmp_path: Path) -> None:
    out, text = write(tmp_path, cohort(tmp_path), pretrained(tmp_path))
    times = rows(out / "epoch_times.csv")
    assert [r["model"] for r in times] == ["A", "B", "C"]
    assert float(times[0]["epoch_1"]) == pytest.approx(61 / 60, rel=1e-3)
    assert float(times[0]["total"]) == pytest.approx(91 / 60, rel=1e-3)
    assert len(rows(out / "volumes.csv")) == 3 * 3 * 8
    first = rows(out / "volumes.csv")[1]
    assert (first["model"], first["n"], first["seed"], first["volume"], first["dice"]) == (
        "A", "all", "0", "volume-1", "0.31",
    )  # fmt: skip
    summary = {r["model"]: r for r in rows(out / "summary.csv")}
    assert float(summary["B"]["dice"]) == pytest.approx(0.5 + 0.01 + 0.035)
    each = [float(v) for v in summary["B"]["dice_each"].split(", ")]  # eight volumes are too few for an interval
    assert summary["B"]["dice_low"] == "" and len(each) == 8 and np.mean(each) == pytest.approx(0.545, abs=1e-4)
    # Found 2 + 3 + 4, missed 1 and false 3 in each of three seeds.
    assert float(summary["A"]["precision"]) == pytest.approx(9 / 18) and float(summary["A"]["recall"]) == 9 / 12
    assert (summary["A"]["trained_parameters"], summary["C"]["trained_parameters"]) == ("2012514", "1945250")
    assert float(summary["A"]["seconds"]) == pytest.approx(91)
    assert float(summary["A"]["seconds_an_epoch"]) == pytest.approx(45.5)
    assert "| C | all | 3 | 8 | 0.652 |" in text


def test_the_tests_equal_scipy_on_the_means_over_seeds(tmp_path: Path) -> None:
    out, _ = write(tmp_path, cohort(tmp_path), pretrained(tmp_path))
    found = {(r["measure"], r["comparison"]): r for r in rows(out / "tests.csv")}
    c_a = found[f"dice on {TARGET}", "C - A"]
    i = np.arange(8)
    a, c = 0.31 + 0.01 * i, 0.61 + 0.012 * i
    assert c_a["units"] == "8" and c_a["unit"] == "volume"
    assert float(c_a["mean_difference"]) == pytest.approx((c - a).mean())
    assert float(c_a["wilcoxon_p"]) == pytest.approx(stats.wilcoxon(c, a).pvalue)
    assert float(c_a["t_p"]) == pytest.approx(stats.ttest_rel(c, a).pvalue, rel=1e-4)
    assert float(c_a["wilcoxon_p_holm"]) == pytest.approx(3 * 2 / 2**8)
    assert found[f"dice on {TARGET}", "B - A"]["t_p"] == ""  # all differences are equal
    assert found[f"dice on {SOURCE}", "C - B"]["units"] == "8"
    assert found["steps to the common loss", "B - A"]["units"] == "3"
    assert float(found["steps to the common loss", "B - A"]["smallest_p"]) == 0.25
    assert len(found) == 12


def test_the_answers_follow_the_numbers(tmp_path: Path) -> None:
    out, text = write(tmp_path, cohort(tmp_path, seeds=8), pretrained(tmp_path))
    helped = section(text, "Did pre-training help on the target?")
    assert f"**Model B's Dice on {TARGET} was higher than model A's** (mean difference +0.200" in helped
    assert f"**Model C's Dice on {TARGET} was higher than model A's** (mean difference +0.307" in helped
    slow = section(text, "Does pre-training slow convergence?")
    assert "**Model B converged more slowly than model A.**" in slow
    assert "**Model C converged more slowly than model B.**" in slow
    kept = section(text, "Does freezing keep what was learnt?")
    assert "mean Dice on lits_tumour was 0.635 (8 volumes)" in kept
    assert re.search(r"model B scored 0\.270, 43% of what it was \(mean difference -0\.365.*: it forgot", kept)
    assert f"What freezing did: **Model C's Dice on {SOURCE} was higher than model B's**" in kept
    steps = {(r["model"], r["seed"]): r for r in rows(out / "convergence.csv")}
    # The common loss is that of the slowest run's end; model A's curve in closed form gets there at:
    level = float(steps["A", "0"]["common_loss"])
    assert int(steps["A", "0"]["steps_to_common"]) == pytest.approx(-20 * np.log((level - 0.01) / 0.7), abs=3)


def test_faster_is_said_where_pretraining_is_faster(tmp_path: Path) -> None:
    swap = {"A": "B", "B": "A"}
    runs = [CompareRun(swap[r.model], r.seed, r.n, r.folder) for r in cohort(tmp_path, seeds=7) if r.model in swap]
    _, text = write(tmp_path, runs, None, None)
    assert "**Model B converged faster than model A.**" in section(text, "Does pre-training slow convergence?")
    assert f"**Model B's Dice on {TARGET} was lower than model A's**" in text


def test_too_few_units_decide_nothing(tmp_path: Path) -> None:
    _, text = write(tmp_path, cohort(tmp_path, count=4), pretrained(tmp_path, count=4))
    helped = section(text, "Did pre-training help on the target?")
    assert helped.count("**Not shown, but leaning:**") == 3
    assert "4 volumes cannot give less than p = 0.12 in Wilcoxon's exact test" in helped
    slow = section(text, "Does pre-training slow convergence?")
    assert slow.count("**Not shown, but leaning:**") == 3 and "3 seeds cannot give less than p = 0.25" in slow
    kept = section(text, "Does freezing keep what was learnt?")
    assert "it forgot" not in kept and "lower in every volume, but 4 volumes" in kept


def test_one_seed_and_one_volume_are_told_as_such(tmp_path: Path) -> None:
    out, text = write(tmp_path, cohort(tmp_path, count=1, seeds=1), pretrained(tmp_path, count=1))
    assert "one volume has no spread to judge a difference by" in text
    assert "one seed has no spread to judge a difference by" in text
    for claim in ("was higher than", "was lower than", "**Model B converged"):
        assert claim not in text
    assert rows(out / "summary.csv")[0]["dice_low"] == ""


def test_equal_models_are_not_told_apart(tmp_path: Path) -> None:
    same = {"A": 0.4, "B": 0.4}
    _, text = write(tmp_path, cohort(tmp_path, target=same, source=same), pretrained(tmp_path, base=0.4))
    helped = section(text, "Did pre-training help on the target?")
    assert "**Cannot tell** whether model B's" in helped and "no volume differs" in helped
    assert "nothing is said about freezing" in text


def test_nothing_learnt_is_told(tmp_path: Path) -> None:
    none = {"A": 0.0, "B": 0.0, "C": 0.0}
    out, text = write(tmp_path, cohort(tmp_path, source=none, seeds=1), pretrained(tmp_path, base=-0.035))
    assert "next to nothing, so there was little to keep" in text
    assert all(r["kept"] == "" for r in rows(out / "forgetting.csv"))


def test_several_n_have_their_own_tests_tables_and_curves(tmp_path: Path) -> None:
    runs = [*cohort(tmp_path, n=10, seeds=1), *cohort(tmp_path, n=2, seeds=1), *cohort(tmp_path, seeds=1)]
    out, text = write(tmp_path, runs, pretrained(tmp_path))
    names = {p.name for p in (out / "figures").iterdir()}
    stems = ("curves", "model_A", "model_B", "model_C")
    drawn = {"dice", *(f"{s}{e}" for s in stems for e in ("", "_n2", "_n10"))}
    assert names == {f"{d}.{kind}" for d in drawn for kind in ("png", "svg")}
    assert [r["n"] for r in rows(out / "epoch_times.csv")] == ["2"] * 3 + ["10"] * 3 + ["all"] * 3
    assert len(rows(out / "tests.csv")) == 36
    helped = section(text, "Did pre-training help on the target?")
    assert helped.index("n = 2") < helped.index("n = 10") < helped.index("n = all")
    linked = re.findall(r"\((figures/[^)]+|[a-z_]+\.csv)\)", text)
    assert {f"figures/{n}" for n in names if n.endswith(".png")} <= set(linked)
    assert all((out / p).exists() for p in linked)


def test_synthetic_scans_examples_and_settings_are_told(tmp_path: Path) -> None:
    image = np.random.default_rng(0).random((32, 24)).astype(np.float32)
    example = ExampleCase("volume-1", image, image > 0.9, {m: image for m in "ABC"}, (1.0, 1.0))
    runs = cohort(tmp_path, seeds=1, source=None)
    settings = {"batch": 18, "seeds": [0], "recipe": {"k": 1}}
    page = write_comparison(tmp_path / "a" / "out", runs, None, TARGET, None, [example], True, settings)
    text = page.read_text()
    assert "synthetic: these scores mean nothing for patients" in text
    assert "![Example slices](figures/examples.png)" in text and (page.parent / "figures" / "examples.png").exists()
    assert "- batch: 18\n- seeds: 0\n- recipe: k = 1" in text
    assert "Not measured" in section(text, "Does freezing keep what was learnt?")
    assert "freeze = first_two" in text
    assert not [p for p in page.parent.rglob("*") if p.name.endswith(".tmp")]
    first = {p.name: p.read_bytes() for p in page.parent.rglob("*") if p.is_file()}
    write_comparison(page.parent, runs, None, TARGET, None, [example], True, settings)
    assert first == {p.name: p.read_bytes() for p in page.parent.rglob("*") if p.is_file()}


def test_runs_without_a_score_on_the_source_are_left_out_of_forgetting(tmp_path: Path) -> None:
    runs = cohort(tmp_path, seeds=1)
    for r in runs:
        if r.model == "A":
            path = r.folder / "subjects.csv"
            path.write_text("\n".join(line for line in path.read_text().splitlines() if SOURCE not in line) + "\n")
    out, text = write(tmp_path, runs, pretrained(tmp_path))
    assert [r["model"] for r in rows(out / "forgetting.csv")] == ["B", "C"]
    assert "Model A, which never saw" not in text


def test_what_cannot_be_compared_is_refused_in_one_sentence_and_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no finished runs"):
        write(tmp_path, [], None)
    runs = cohort(tmp_path, seeds=1)
    with pytest.raises(InputError, match="no scores on chaos_liver"):
        write_comparison(tmp_path / "out", runs, None, "chaos_liver", None, [], False, {})
    with pytest.raises(InputError, match=r"pretrained.subjects\.csv has no scores on other_tumour"):
        write(tmp_path, runs, pretrained(tmp_path), "other_tumour")
    odd = write_run(tmp_path / "odd", model="C", dice={TARGET: {"volume-99": 0.1}})
    with pytest.raises(InputError, match="scored on different volumes"):
        write(tmp_path, [r for r in runs if r.model != "C"] + [odd], None)
    two = write_run(tmp_path / "two", model="A", seed=1, dice={TARGET: {"volume-99": 0.1}})
    with pytest.raises(InputError, match="scored on different volumes"):
        write(tmp_path, [runs[0], two], None)
    other = write_run(tmp_path / "other", dice={SOURCE: {"volume-99": 0.1}}).folder
    with pytest.raises(InputError, match="pre-trained model and the transferred ones were scored on different volumes"):
        write(tmp_path, runs, other)
    assert not (tmp_path / "out").exists()
