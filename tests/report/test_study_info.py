"""study.json is read strictly."""

import json
from pathlib import Path
from typing import Any

import pytest

from tests.report.sweep_results import BRAIN, REMEDIES, Truth, study_dict, write_study
from tlseg_jax.report.study_info import read_study
from tlseg_jax.runtime.errors import InputError


def test_what_was_written_is_read(tmp_path: Path) -> None:
    methods = (*BRAIN, *REMEDIES, Truth("f", "f_x", factors={"skull": "kept"}))
    path = write_study(
        tmp_path / "study.json", methods, failed=[{"cell": "c1", "reason": "out of memory"}], missing=["c2"]
    )
    found = read_study(path)
    assert [m.name for m in found.methods] == [t.name for t in methods]
    assert found.method("MAL-C-FT l2sp").baseline == "MAL-C-FT"  # type: ignore[union-attr]
    assert found.method("nobody") is None and found.has_factors
    assert found.n == (2, 4, 8, 16) and found.unseen == ("oas_c",) and found.seeds == 3 and found.folds == 0
    assert found.exclusions == {"hdt_c": (("sub-99", "the label is empty"),)}
    assert found.failed == (("c1", "out of memory"),) and found.missing == ("c2",)
    assert found.seconds == 123.4 and found.settings["steps"] == "100" and found.synthetic


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"kind": "movies"}, "'kind', which is \"movies\", must be one of volumes, slices; remove"),
        ({"n": [2, "four"]}, "'n', .*: 'four' is no number of labelled scans"),
        ({"seeds": True}, "'seeds', which is true, must be a whole number, 0 or more"),
        ({"seeds": -1}, "'seeds', which is -1, must be a whole number, 0 or more"),
        ({"methods": [{"pretask": "x"}]}, "lacks 'methods.0.name'"),
        ({"methods": [{"name": "A"}, {"name": "A"}]}, "the method 'A' is there twice"),
        ({"exclusions": {"hdt_c": [{"subject": 3}]}}, "'exclusions.hdt_c.0.subject', which is 3, must be text"),
        ({"seconds": "long"}, "'seconds', .*, must be a number, 0 or more"),
        ({"synthetic": 1}, "'synthetic', which is 1, must be true or false"),
    ],
)
def test_a_wrong_field_is_named(tmp_path: Path, fields: dict[str, Any], words: str) -> None:
    path = tmp_path / "study.json"
    path.write_text(json.dumps(study_dict() | fields))
    with pytest.raises(InputError, match=words):
        read_study(path)


def test_a_missing_or_damaged_file(tmp_path: Path) -> None:
    path = tmp_path / "study.json"
    with pytest.raises(InputError, match="does not exist: run the sweep first"):
        read_study(path)
    for text in ('{"name": ', "[]"):
        path.write_text(text)
        with pytest.raises(InputError, match="remove the file and run the sweep again"):
            read_study(path)
    plain = study_dict()
    del plain["task"]
    path.write_text(json.dumps(plain))
    with pytest.raises(InputError, match="lacks 'task'"):
        read_study(path)
