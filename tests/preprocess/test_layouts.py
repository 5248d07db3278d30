"""Scans are found in every layout; a subject that cannot be used is named with the reason."""

import json
import os
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from tlseg_jax.preprocess.dry_run import check_source, format_rows
from tlseg_jax.preprocess.layouts.found import Found, check_any, person_of, unsafe_name
from tlseg_jax.preprocess.layouts.layouts import find_scans
from tlseg_jax.preprocess.layouts.pairs import role_of
from tlseg_jax.preprocess.reading.scan import ScanFiles
from tlseg_jax.runtime.errors import InputError

DATA = Path(__file__).resolve().parents[2].parent / "shared" / "data"


def touch(folder: Path, *names: str) -> Path:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()
    return folder


def listing(folder: Path, text: str, name: str = "cohort.csv") -> Path:
    (folder / name).write_text(text, encoding="utf-8")
    return folder / name


def subjects(found: Found) -> list[str]:
    return [s.subject for s in found.scans]


def reason(found: Found, subject: str) -> str:
    (text,) = [e.reason for e in found.exclusions if e.subject == subject]
    assert text.endswith(".") and "\n" not in text
    return text


# pairs


@pytest.mark.parametrize(
    ("stem", "want"),
    [
        ("sub-1000_T1w", ("sub-1000", "image")),
        ("sub-1000_labels", ("sub-1000", "label")),
        ("a_T1", ("a", "image")),
        ("a_image", ("a", "image")),
        ("a", ("a", "image")),
        ("a_label", ("a", "label")),
        ("a_seg", ("a", "label")),
        ("a_Segmentation", ("a", "label")),
        ("a_mask", ("a", "mask")),
        ("a_brainmask", ("a", "mask")),
        ("a_desc-brain_mask", ("a", "mask")),
        ("volume-7", ("7", "image")),
        ("segmentation-7", ("7", "label")),
        ("image_12", ("12", "image")),
        ("label_12", ("12", "label")),
        ("T1w", ("T1w", "image")),
        ("maskell", ("maskell", "image")),
    ],
)
def test_roles(stem: str, want: tuple[str, str]) -> None:
    assert role_of(stem) == want


def test_pairs(tmp_path: Path) -> None:
    touch(tmp_path, "b_T1w.nii.gz", "b_labels.nii", "b_brainmask.mgz", "a.nii", "a_seg.mgh", "notes.txt")
    touch(tmp_path, "._a.nii", "deeper/c_T1w.nii.gz")
    found = find_scans(tmp_path)
    assert found.layout == "pairs" and not found.exclusions
    assert found.scans == (
        ScanFiles("a", tmp_path / "a.nii", tmp_path / "a_seg.mgh"),
        ScanFiles("b", tmp_path / "b_T1w.nii.gz", tmp_path / "b_labels.nii", tmp_path / "b_brainmask.mgz"),
    )


def test_pairs_exclusions(tmp_path: Path) -> None:
    touch(tmp_path, "a_T1w.nii.gz", "a_labels.nii.gz")
    touch(tmp_path, "no_T1w.nii.gz", "no_mask.nii.gz", "only_seg.nii.gz")
    touch(tmp_path, "two_T1w.nii.gz", "two_T1w.nii", "two_seg.nii.gz")
    touch(tmp_path, "tags_T1w.nii.gz", "tags_seg.nii.gz", "tags_labels.nii.gz", "q?_T1w.nii", "q?_seg.nii")
    found = find_scans(tmp_path)
    assert subjects(found) == ["a"]
    assert [e.subject for e in found.exclusions] == ["no", "only", "q?", "tags", "two"]
    assert "no_T1w.nii.gz has no label map" in reason(found, "no")
    assert "no_mask.nii.gz is taken as its brain mask" in reason(found, "no")
    assert "only_seg.nii.gz" in reason(found, "only") and "no image" in reason(found, "only")
    assert "two_T1w.nii " in reason(found, "two") and "two_T1w.nii.gz" in reason(found, "two")
    assert "2 label maps" in reason(found, "tags")
    assert "cannot name a folder" in reason(found, "q?")


def test_without_labels(tmp_path: Path) -> None:
    touch(tmp_path, "a_T1w.nii.gz", "b_T1w.nii.gz", "b_labels.nii.gz", "c_labels.nii.gz")
    found = find_scans(tmp_path, need_label=False)
    assert subjects(found) == ["a", "b"] and not found.exclusions
    assert all(s.label is None for s in found.scans)
    one = find_scans(tmp_path / "a_T1w.nii.gz", need_label=False)
    assert one.layout == "file" and one.scans == (ScanFiles("a", tmp_path / "a_T1w.nii.gz"),)


def test_images_without_a_single_label_map_say_so(tmp_path: Path) -> None:
    found = find_scans(touch(tmp_path, "a_T1w.nii.gz", "b_T1w.nii.gz"))
    assert not found.scans
    with pytest.raises(InputError, match=r"a_T1w.nii.gz has no label map.*b_T1w.nii.gz has no label map"):
        check_any(0, found.exclusions, tmp_path)


# CSV


def test_csv(tmp_path: Path) -> None:
    touch(tmp_path, "scans/a.nii.gz", "scans/a,b.nii.gz", "labels/a.nii.gz", "labels/b.nii.gz", "m.nii.gz")
    path = listing(
        tmp_path,
        "Subject, image ,label,mask,split,person,age\n"
        "s1,scans/a.nii.gz,labels/a.nii.gz,m.nii.gz,Train,p1,33\n"
        f's2,"scans/a,b.nii.gz",{tmp_path}/labels/b.nii.gz,,test,,\n'
        ",,,,,,\n",
    )
    want = (
        ScanFiles(
            "s1", tmp_path / "scans/a.nii.gz", tmp_path / "labels/a.nii.gz", tmp_path / "m.nii.gz", "train", "p1"
        ),
        ScanFiles("s2", tmp_path / "scans/a,b.nii.gz", tmp_path / "labels/b.nii.gz", None, "test", "s2"),
    )
    for source in (path, tmp_path):  # by name, and as the only list of a folder
        found = find_scans(source)
        assert (found.layout, found.scans, found.exclusions) == ("csv", want, ())


def test_the_line_of_a_fault_is_the_file_s_under_a_line_for_excel(tmp_path: Path) -> None:
    touch(tmp_path, "a.nii", "b.nii")
    for text in (
        "sep=;\r\nsubject;image;label\r\ns;a.nii;gone.nii\r\n",
        "\ufeffSEP=,\nsubject,image,label\ns,a.nii,gone.nii\n",
    ):
        found = find_scans(listing(tmp_path, text))
        assert "cohort.csv line 3 (s): the label" in found.exclusions[0].reason


def test_csv_exclusions(tmp_path: Path) -> None:
    touch(tmp_path, "a.nii", "al.nii", "b.nii", "bl.nii")
    path = listing(
        tmp_path,
        "subject,image,label,mask\n"
        "ok,a.nii,al.nii,\n"
        "gone,nowhere.nii,al.nii,\n"
        "unlabelled,b.nii,,\n"
        "twice,b.nii,bl.nii,\n"
        "twice,bl.nii,bl.nii,\n"
        "../up,al.nii,bl.nii,\n"
        ",b.nii,bl.nii,\n"
        "maskless,al.nii,bl.nii,no.nii\n",
    )
    found = find_scans(path)
    assert subjects(found) == ["ok"] and len(found.exclusions) == 7
    assert f"{path} line 3 (gone): the image {tmp_path / 'nowhere.nii'} does not exist" in reason(found, "gone")
    assert "line 4 (unlabelled) has no label" in reason(found, "unlabelled")
    assert all("on lines 5, 6" in e.reason for e in found.exclusions if e.subject == "twice")
    assert "line 8 has no subject" in reason(found, "line 8")
    assert "the mask" in reason(found, "maskless")
    assert any(e.subject == "../up" for e in found.exclusions)


def test_csv_one_image_for_two_subjects(tmp_path: Path) -> None:
    touch(tmp_path, "a.nii", "l.nii")
    found = find_scans(listing(tmp_path, "subject,image,label\np,a.nii,l.nii\nq,./a.nii,l.nii\n"))
    assert not found.scans and "several subjects" in reason(found, "p")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("subject,image\ns,a.nii\n", "no column 'label' (it has subject, image)"),
        ("subject,image,label,image\ns,a,b,c\n", "2 columns named 'image'"),
        ("subject,image,label\n", "no rows"),
        ("", "is empty"),
        ("subject,image,label,split\ns,a.nii,b.nii,validation\n", "the split 'validation'"),
        ('subject,image,label\n"s,a.nii,b.nii\n', "cannot be read as CSV"),
    ],
)
def test_bad_csv(text: str, words: str, tmp_path: Path) -> None:
    with pytest.raises(InputError) as caught:
        find_scans(listing(touch(tmp_path, "a.nii", "b.nii"), text))
    assert words in str(caught.value) and str(tmp_path / "cohort.csv") in str(caught.value)


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "cp1252", "utf-16"])
@pytest.mark.parametrize("name", ["list.csv", "LIST.CSV", "list.tsv"])
@pytest.mark.parametrize("delimiter", [",", ";", "\t"])
def test_a_list_as_spreadsheets_write_it(encoding: str, name: str, delimiter: str, tmp_path: Path) -> None:
    touch(tmp_path, "José.NII.GZ", "b.nii", "other_T1w.nii", "other_seg.nii")
    text = "Subject,Image,Label\r\nJosé,José.NII.GZ,b.nii\r\n".replace(",", delimiter)
    (tmp_path / name).write_bytes(text.encode(encoding))
    for source in (tmp_path, tmp_path / name):
        found = find_scans(source)
        assert found.layout == "csv" and subjects(found) == ["José"]
        assert found.scans[0].image == tmp_path / "José.NII.GZ"


@pytest.mark.parametrize(
    "content",
    [
        "subject,image,label\na,b,c\n".encode("utf-16-le"),
        b"subject,image,label\na,\x81\x8d,c\n",
        b'subject,image,label\n"a,b,c\n',
        b"subject,image\na,a_T1w.nii\n",
    ],
)
def test_a_list_beside_pairs_that_cannot_be_read_is_never_passed_over(content: bytes, tmp_path: Path) -> None:
    touch(tmp_path, "a_T1w.nii", "a_seg.nii")
    (tmp_path / "list.CSV").write_bytes(content)
    with pytest.raises(InputError, match=r"list\.CSV"):
        find_scans(tmp_path)


def test_image_label_and_list_may_spell_one_name_in_different_ways(tmp_path: Path) -> None:
    nfc, nfd, devanagari = "Zo\u00eb", "Zoe\u0308", "\u0930\u094b\u0917\u0940"
    touch(tmp_path, f"{nfc}_T1w.NII.GZ", f"{nfd}_labels.Nii.gz", f"{devanagari}_T1w.nii", f"{devanagari}_labels.nii")
    for role in (b"T1w", b"labels"):
        Path(os.fsdecode(os.fsencode(tmp_path) + b"/M\xfcller_" + role + b".nii")).touch()
    found = find_scans(tmp_path)
    assert subjects(found) == ["M\u00fcller", nfc, devanagari] and not found.exclusions
    assert all(s.label is not None and s.label.exists() for s in found.scans)
    rows = [f"{nfd},{nfd}_T1w.NII.GZ,{nfc}_labels.Nii.gz", "M\u00fcller,M\u00fcller_T1w.nii,M\u00fcller_labels.nii"]
    by_list = find_scans(listing(tmp_path, "\n".join(["subject,image,label", *rows])))
    assert {(s.image, s.label) for s in by_list.scans} == {(s.image, s.label) for s in found.scans[:2]}


def test_two_lists_are_too_many_and_another_table_is_none(tmp_path: Path) -> None:
    touch(tmp_path, "a_T1w.nii", "a_seg.nii")
    listing(tmp_path, "number,name\n1,caudate\n", "labels.csv")
    assert find_scans(tmp_path).layout == "pairs"
    with pytest.raises(InputError, match="has none"):
        find_scans(tmp_path, "csv")
    text = "subject,image,label\na,a_T1w.nii,a_seg.nii\n"
    listing(tmp_path, text, "one.csv")
    assert find_scans(tmp_path).layout == "csv"
    listing(tmp_path, text, "two.csv")
    with pytest.raises(InputError, match=r"one\.csv, two\.csv"):
        find_scans(tmp_path)


# BIDS


def test_bids(tmp_path: Path) -> None:
    touch(tmp_path, "sub-01/anat/sub-01_T1w.nii.gz", "sub-01/anat/sub-01_T2w.nii.gz", "dataset_description.json")
    touch(tmp_path, *(f"sub-02/ses-{s}/anat/sub-02_ses-{s}_run-1_T1w.nii.gz" for s in "ab"))
    touch(tmp_path, "sub-03/anat/sub-03_T1w.nii.gz", "sub-04/anat/sub-04_T1w.nii.gz")
    d = "derivatives/manual/"
    touch(tmp_path, d + "sub-01/anat/sub-01_desc-brain_mask.nii.gz", d + "sub-01/anat/sub-01_dseg.nii.gz")
    touch(tmp_path, d + "sub-01/anat/sub-01_space-MNI152NLin6Asym_dseg.nii.gz")
    touch(tmp_path, d + "sub-02/ses-a/anat/sub-02_ses-a_run-1_desc-aseg_dseg.nii.gz")
    touch(tmp_path, d + "sub-02/ses-b/anat/sub-02_ses-b_run-1_label-caudate_mask.nii.gz")
    touch(tmp_path, d + "sub-04/anat/sub-04_dseg.nii.gz", "derivatives/other/sub-04_desc-x_dseg.nii.gz")
    found = find_scans(tmp_path)
    assert found.layout == "bids"
    assert [(s.subject, s.person) for s in found.scans] == [
        ("sub-01", "sub-01"),
        ("sub-02_ses-a_run-1", "sub-02"),
        ("sub-02_ses-b_run-1", "sub-02"),
    ]
    first = found.scans[0]
    assert first.image == tmp_path / "sub-01/anat/sub-01_T1w.nii.gz"
    assert first.label == tmp_path / d / "sub-01/anat/sub-01_dseg.nii.gz"
    assert first.mask == tmp_path / d / "sub-01/anat/sub-01_desc-brain_mask.nii.gz"
    assert "no label map" in reason(found, "sub-03") and "2 label maps" in reason(found, "sub-04")
    assert len(find_scans(tmp_path, need_label=False).scans) == 5


# nnU-Net and Decathlon


def nnunet(folder: Path, **about: object) -> Path:
    (folder / "dataset.json").write_text(json.dumps(about))
    return folder


def test_nnunet(tmp_path: Path) -> None:
    touch(tmp_path, "imagesTr/p_001_0000.nii.gz", "labelsTr/p_001.nii.gz", "imagesTr/p_002_0000.nii.gz")
    touch(tmp_path, "imagesTs/p_009_0000.nii.gz", "imagesTr/._p_001_0000.nii.gz")
    nnunet(tmp_path, channel_names={"0": "T1"}, file_ending=".nii.gz")
    found = find_scans(tmp_path)
    assert found.layout == "nnunet"
    image, label = tmp_path / "imagesTr/p_001_0000.nii.gz", tmp_path / "labelsTr/p_001.nii.gz"
    assert found.scans == (ScanFiles("p_001", image, label),)
    assert "no label map" in reason(found, "p_002") and len(found.exclusions) == 1
    assert subjects(find_scans(tmp_path, need_label=False)) == ["p_001", "p_002", "p_009"]
    touch(tmp_path, "labelsTs/p_009.nii.gz")
    assert [(s.subject, s.split) for s in find_scans(tmp_path).scans] == [("p_001", "train"), ("p_009", "test")]


def test_decathlon(tmp_path: Path) -> None:
    # Four digits at the end of a case's name are no channel when its label has them too.
    touch(tmp_path, *(f"{f}Tr/case_000{n}.nii.gz" for f in ("images", "labels") for n in (1, 2)))
    nnunet(tmp_path, modality={"0": "MRI"})
    found = find_scans(tmp_path)
    assert subjects(found) == ["case_0001", "case_0002"] and found.scans[0].label is not None
    assert found.scans[0].label.name == "case_0001.nii.gz"


@pytest.mark.parametrize(
    ("about", "words"),
    [
        ({"channel_names": {"0": "T1", "1": "FLAIR"}}, "2 channels (T1, FLAIR)"),
        ({"modality": {"0": "T2", "1": "ADC"}}, "2 channels (T2, ADC)"),
        ({"channel_names": {"0": "T1"}, "file_ending": ".png"}, "'.png'"),
    ],
)
def test_unusable_nnunet(about: dict[str, object], words: str, tmp_path: Path) -> None:
    touch(tmp_path, "imagesTr/a_0000.nii.gz", "labelsTr/a.nii.gz")
    with pytest.raises(InputError) as caught:
        find_scans(nnunet(tmp_path, **about))
    assert words in str(caught.value)


def test_second_channel_file_and_broken_json(tmp_path: Path) -> None:
    touch(tmp_path, "imagesTr/a_0000.nii.gz", "imagesTr/a_0001.nii.gz", "labelsTr/a.nii.gz")
    with pytest.raises(InputError, match=r"a_0001\.nii\.gz"):
        find_scans(nnunet(tmp_path, channel_names={"0": "T1"}))
    (tmp_path / "dataset.json").write_text('{"modality": ')
    with pytest.raises(InputError, match=r"dataset\.json cannot be read"):
        find_scans(tmp_path)


# the source as a whole


def test_bad_sources(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="does not exist"):
        find_scans(tmp_path / "nowhere")
    with pytest.raises(InputError, match="no layout 'pair'"):
        find_scans(tmp_path, "pair")
    with pytest.raises(InputError, match=r"looked for pairs.*CSV.*BIDS.*nnU-Net"):
        find_scans(tmp_path)
    wanted = r"^\S+ holds no image that can be read: give a folder with scans in it, of the formats .*DICOM series\.$"
    with pytest.raises(InputError, match=wanted):
        find_scans(tmp_path, need_label=False)
    for layout, words in (("pairs", "_labels"), ("bids", "derivatives"), ("nnunet", "imagesTr"), ("csv", "CSV")):
        with pytest.raises(InputError, match=words):
            find_scans(tmp_path, layout)
    touch(tmp_path, "a_T1w.nii.gz", "b.txt")
    with pytest.raises(InputError, match="single image"):
        find_scans(tmp_path / "a_T1w.nii.gz")
    with pytest.raises(InputError, match=r"neither folder, \.csv list nor image"):
        find_scans(tmp_path / "b.txt", need_label=False)


def test_ambiguous_source_and_the_way_out(tmp_path: Path) -> None:
    touch(tmp_path, "a_T1w.nii.gz", "a_seg.nii.gz", "imagesTr/c.nii.gz", "labelsTr/c.nii.gz")
    with pytest.raises(InputError, match="nnunet or pairs: say which with `layout`"):
        find_scans(tmp_path)
    assert subjects(find_scans(tmp_path, "pairs")) == ["a"]
    assert subjects(find_scans(tmp_path, "nnunet")) == ["c"]


# the dry run


def test_dry_run_table(tmp_path: Path) -> None:
    voxels = np.arange(4 * 5 * 6, dtype=np.uint8).reshape(4, 5, 6)
    for name in ("good_T1w", "good_seg", "shifted_T1w", "text_T1w", "text_seg"):
        nib.Nifti1Image(voxels, np.diag([-1, 1, 2, 1])).to_filename(tmp_path / f"{name}.nii.gz")
    nib.Nifti1Image(voxels, np.diag([-1.0, 1, 3, 1])).to_filename(tmp_path / "shifted_seg.nii.gz")
    (tmp_path / "text_T1w.nii.gz").write_text("not found")
    touch(tmp_path, "unlabelled_T1w.nii.gz")
    rows = check_source(find_scans(tmp_path), (1, 2))
    assert [r.subject for r in rows] == ["good", "shifted", "text", "unlabelled"]
    good = rows[0]
    assert (good.shape, good.spacing, good.orientation, good.problem) == ((4, 5, 6), (1, 1, 2), "LAS", "")
    assert "mm away" in rows[1].problem and rows[1].shape == (4, 5, 6)
    assert "holds text" in rows[2].problem and rows[2].shape == ()
    assert "no label map" in rows[3].problem
    assert "cannot hold the label value 1035" in check_source(find_scans(tmp_path), (1035,))[0].problem
    lines = format_rows(rows).splitlines()
    assert len(lines) == 6 and lines[-1] == "4 subjects: 1 look usable, 3 would be excluded."
    column = lines[0].index("voxels")
    assert [line[column : column + 5] for line in lines[1:5]] == ["4x5x6", "4x5x6", "-    ", "-    "]


def test_real_folder() -> None:
    folder = DATA / "brain_oasis"
    if not folder.is_dir():
        pytest.skip("no real scans here")
    found = find_scans(folder)
    assert found == find_scans(folder, "pairs")
    assert found.layout == "pairs" and len(found.scans) == 15 and not found.exclusions
    rows = check_source(found, (36, 37))
    assert {r.orientation for r in rows} == {"LAS"} and not any(r.problem for r in rows)


def bids(folder: Path, images: list[str], derived: list[str]) -> Path:
    touch(folder, *(f"sub-1/anat/{n}.nii.gz" for n in images))
    touch(folder, *(f"derivatives/fs/sub-1/anat/{n}.nii.gz" for n in derived))
    return folder


def test_bids_scans_are_told_apart_by_all_entities_and_runs_by_number(tmp_path: Path) -> None:
    names = ["sub-1_acq-hi_run-1", "sub-1_acq-hi_run-02", "sub-1_acq-lo_rec-norm", "sub-1"]
    images = [f"{n}_{t}" for n, t in zip(names, ("T1w", "t1w", "T1W", "T1w"), strict=True)]
    labels = ["sub-1_acq-hi_run-01", "sub-1_acq-hi_run-2", "sub-1_acq-lo_rec-norm_space-orig", "sub-1"]
    found = find_scans(bids(tmp_path, images, [f"{n}_dseg" for n in labels]))
    assert found.layout == "bids" and not found.exclusions
    assert {(s.subject, s.image.name, s.label.name, s.person) for s in found.scans if s.label} == {
        (n, f"{i}.nii.gz", f"{d}_dseg.nii.gz", "sub-1") for n, i, d in zip(names, images, labels, strict=True)
    }


def test_bids_names_the_nearest_scan_of_a_label_map_that_has_none(tmp_path: Path) -> None:
    found = find_scans(bids(tmp_path, ["sub-1_run-1_T1w", "sub-1_acq-b_run-2_T1w"], ["sub-1_run-2_dseg"]))
    assert "sub-1_acq-b_run-2_T1w comes nearest and differs in acq" in reason(found, "sub-1_run-2")
    assert len(found.exclusions) == 3 and not found.scans


def test_bids_segmentations_are_chosen_by_desc(tmp_path: Path) -> None:
    derived = ["sub-1_desc-aseg_dseg", "sub-1_desc-aparcaseg_dseg", "sub-1_dseg", "sub-1_desc-brain_mask"]
    folder = bids(tmp_path, ["sub-1_T1w"], derived)
    assert "3 label maps with the desc aparcaseg, aseg, none: say which with `desc=" in reason(
        find_scans(folder), "sub-1"
    )
    for desc, name in (("aseg", derived[0]), ("aparcaseg", derived[1]), ("none", derived[2])):
        (scan,) = find_scans(folder, desc=desc).scans
        assert scan.label is not None and scan.label.name == f"{name}.nii.gz" and scan.mask is not None
    with pytest.raises(InputError, match=r"desc 'asg' \(there are aparcaseg, aseg, none\)"):
        find_scans(folder, desc="asg")
    with pytest.raises(InputError, match="`desc=aseg`"):
        find_scans(touch(tmp_path / "p", "a_T1w.nii", "a_seg.nii"), desc="aseg")


@pytest.mark.parametrize("name", ["Zo\u00eb", "Zoe\u0308", "\u0930\u094b\u0917\u0940", "\u60a3\u8005-1", "a" * 120])
def test_letters_of_any_script_name_a_folder(name: str) -> None:
    assert unsafe_name(name) == ""


@pytest.mark.parametrize("name", ["", "../a", "a/b", "-a", "a.", "\u60a3" * 90, "a" * 121, "a\u202e"])
def test_what_cannot_name_a_folder_is_refused(name: str) -> None:
    assert "cannot name a folder" in unsafe_name(name)


# persons

REPEATS = {
    "OAS1_0001_MR1": "OAS1_0001",
    "OAS1_0001_MR2": "OAS1_0001",
    "pat3_ses-1": "pat3",
    "pat3_ses-2_run-1": "pat3",
    "sub-7_ses-a": "sub-7",
    "sub-7_ses-b_run-2": "sub-7",
    "head_run": "head_run",
    "case_MRI": "case_MRI",
    "p-MR1": "p",
    "p_session2": "p",
    "p_ses1": "p",
    "p-visit_3": "p",
    "p_run02": "p",
    "p_runner": "p_runner",
    "case_sessions": "case_sessions",
    "x_visitor1": "x_visitor1",
    "_MR1": "_MR1",
    "a_MR1_b_MR2": "a_MR1_b",
    "sub-1000": "sub-1000",
    "7": "7",
}
"""Subject -> person."""


@pytest.mark.parametrize("layout", ["pairs", "cases", "csv", "nnunet"])
def test_repeat_scans_are_one_person_in_every_layout(layout: str, tmp_path: Path) -> None:
    names = [s for s in REPEATS if not s.startswith("_")]
    if layout == "csv":
        touch(tmp_path, *(f"{s}.nii" for s in names), *(f"l{s}.nii" for s in names))
        listing(tmp_path, "subject,image,label\n" + "".join(f"{s},{s}.nii,l{s}.nii\n" for s in names))
    for s in names:
        if layout == "pairs":
            touch(tmp_path, f"{s}_T1w.nii.gz", f"{s}_labels.nii.gz")
        elif layout == "cases":
            touch(tmp_path, f"{s}/artery.nii", f"{s}/label.nii")
        elif layout == "nnunet":
            touch(tmp_path, f"imagesTr/{s}_0000.nii.gz", f"labelsTr/{s}.nii.gz")
    found = find_scans(tmp_path, layout)
    assert {s.subject: s.person for s in found.scans} == {s: REPEATS[s] for s in names}


def test_a_person_column_overrides_the_names(tmp_path: Path) -> None:
    touch(tmp_path, *(f"{k}{i}.nii" for k in "il" for i in range(3)))
    rows = ["subject,image,label,person", "a_MR1,i0.nii,l0.nii,x", "a_MR2,i1.nii,l1.nii,y", "a_MR3,i2.nii,l2.nii,"]
    found = find_scans(listing(tmp_path, "\n".join(rows)))
    assert {s.subject: s.person for s in found.scans} == {"a_MR1": "x", "a_MR2": "y", "a_MR3": "a"}


def test_names_without_a_repeats_ending_are_persons_of_their_own() -> None:
    assert {s: person_of(s) for s in REPEATS} == REPEATS
