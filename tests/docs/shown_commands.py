"""The commands and the Python that the README and docs/ show, run as shown: in a folder that has what they name."""

import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from tests.docs import stand_ins
from tests.test_docs import README, ROOT, shown_code
from tlseg_jax.studies.choose_study import BUILT_IN
from tlseg_jax.studies.study import read_study_file

PAGES = [README, *sorted((ROOT / "docs").glob("*.md"))]

COMMAND = re.compile(r"^(?:\S*python -m experiments\.|tlseg )(\w+) (?=-)")

CANNOT_RUN = {
    "--coordinator=": "needs several machines; tests/runtime/test_cluster.py runs several processes",
    "s3://BUCKET": "needs a bucket; tests/remote/ runs these commands on a server of this machine",
    "postprocess --run=RUN": "needs a network that has learnt; tests/experiments/test_postprocess.py has one",
}
"""Part of a command -> why no test machine can run it."""


TINY = {"steps": 2, "pretrain_steps": 2}

SHORT_API = f"""
import functools, tlseg_jax.api
for name, given in {{"prepare": {{"workers": 1}}, "finetune": {TINY}}}.items():
    setattr(tlseg_jax.api, name, functools.partial(getattr(tlseg_jax.api, name), **given))
"""
"""Makes the functions' lengths as tiny as `shortened` those of the commands."""


def commands_of(page: Path) -> list[str]:
    """Command lines in the order of the page; a name without flags is no line to type."""
    lines = [part.strip() for line in shown_code(page) for part in line.split(" && ")]
    return list(dict.fromkeys(line for line in lines if COMMAND.match(line)))


def python_of(page: Path) -> list[str]:
    """Blocks of Python that stand by themselves."""
    blocks = re.findall(r"^```python\n(.*?)^```$", page.read_text("utf-8"), re.MULTILINE | re.DOTALL)
    return [block for block in blocks if re.search("^import ", block, re.MULTILINE)]


def shortened(line: str) -> list[str]:
    """The command's words, with flags behind that make it tiny: of two of one name the last one counts."""
    match = COMMAND.match(line)
    assert match is not None
    name, words = match[1], shlex.split(line)
    words = [sys.executable if w.endswith("python") else w for w in words]
    if words[0] == "tlseg":
        words[:2] = [sys.executable, "-m", f"experiments.{name}"]
    name = [name, *re.findall(r"experiments\.(\w+)", line)][-1]  # what `launch` launches
    cohort = [] if "--store" in line else ["--cohort_train=2", "--cohort_test=1"]
    if name == "prepare" and "--join" not in line and "--from_labels" not in line:
        slices = re.search("--dataset=(lits|mri_artery)", line)
        coarse = [] if re.search("--spacing=[2-9]", line) else ["--spacing=2"]
        words += ["--pixels=32,32", "--resize=fit", "--test_volumes=1"] if slices else coarse
        words += ["--workers=1"]  # on so few scans the start of a process takes longer than its share
    elif name == "pretrain":
        words += ["--steps=2", *cohort]
    elif name == "finetune":
        words += ["--n=2", "--steps=2", "--pretrain_steps=2", *cohort]
    elif name == "sweep":
        words += ["--n=2", "--seeds=1", "--steps=2", "--pretrain_steps=2", *cohort]
        words += ["--folds=5"] if "--folds=8" in line else []  # of five persons
        words += [] if "--methods" in line or "--study=brain" not in line else ["--methods=HDT-V-FT,HDT-C-E2E"]
        if "--label_maps" in line:  # four maps, and one of 33 data sets
            words += ["--cohort_train=2", "--methods=f_caudate_HD_MNI305_kept_trial_manual"]
    return words


def data_of(line: str) -> list[str]:
    """The data sets that a command trains on or scores: those it names, and those of its study, if that is ours."""
    names = re.findall(r"--(?:task|pretask|dataset)=([a-z]\w+)", line)
    for study in re.findall(r"--study=(\w+)(?: |$)", line):
        ours = read_study_file(BUILT_IN / f"{study}.toml")
        names += [ours.task, *ours.unseen, *ours.pretasks]
    return names


def making(name: str, pages: Sequence[Path]) -> str | None:
    """The first command of pages that prepares a data set into DIR."""
    named = re.compile(rf"--name={name} |--dataset=\S*{name}\.toml |^(?!.* --name=).*--dataset={name} ")
    commands = (c for page in pages for c in commands_of(page))
    return next((c for c in commands if "experiments.prepare" in c and "--store=DIR" in c and named.search(c)), None)


def copy_new(source: Path, to: Path) -> None:
    """Copy the built-in cohorts, and what is prepared of them, that a desk has and another one lacks."""
    for made in [*source.glob("runs/cohort/*"), *source.glob("runs/store/*")]:
        if not (to / made.relative_to(source)).exists():
            shutil.copytree(made, to / made.relative_to(source))


class Desk:
    """A folder in which commands are typed: SCANS, LABELMAPS and so on lie in it, made when they are first named."""

    def __init__(self, folder: Path, page: Path, scans: int, shared: Path | None = None) -> None:
        """Of `shared` the prepared data sets hdt_c, hdt_v, hdt_wb and oas_c stand in DIR, where the page makes none.

        Its registrations are there, too, and the built-in cohorts that a page before this one made.
        """
        self.folder, self.page, self.scans, self.shared = folder, page, scans, shared
        folder.mkdir(parents=True, exist_ok=True)
        self.compiled = folder.parent / "compiled"
        if shared is not None:  # finding a registration again and drawing a cohort take longest
            shutil.copytree(shared / "DIR" / ".registrations", folder / "DIR" / ".registrations")
            copy_new(shared, folder)

    def run(self, line: str) -> subprocess.CompletedProcess[str]:
        """Run a command, shortened; or a block of Python, as in a notebook."""
        self.bring(line)
        words = shortened(line) if COMMAND.match(line) else [sys.executable, "-c", SHORT_API + line]
        devices = 8 if "--mesh" in line else 2 if "--batch_size=8" in line else 1
        env = os.environ | {
            "PYTHONPATH": str(ROOT),
            "XLA_FLAGS": "" if "launch" in line else f"--xla_force_host_platform_device_count={devices}",
            "JAX_COMPILATION_CACHE_DIR": str(self.compiled),
            "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
            "JAX_DISABLE_MOST_OPTIMIZATIONS": "1",  # of two steps compiling takes most
        }
        done = subprocess.run(
            words, cwd=self.folder, env=env, capture_output=True, text=True, check=False, timeout=1200
        )
        if self.shared is not None and done.returncode == 0:
            copy_new(self.folder, self.shared)
        return done

    def bring(self, line: str) -> None:
        """What the command names and a reader has."""
        makers = {
            "SCANS": lambda to: stand_ins.write_scans(to, range(1, 1 + self.scans)),
            "OASIS": lambda to: stand_ins.write_scans(to, range(1, 6), "neuromorphometrics"),
            "HEADS": lambda to: stand_ins.write_scans(to, range(51, 53)),
            "OLDER": lambda to: stand_ins.write_scans(to, range(61, 64), "neuromorphometrics"),
            "OTHERS": lambda to: stand_ins.write_scans(to, range(51, 57)),
            "LABELMAPS": lambda to: stand_ins.write_label_maps(to, range(91, 95)),
            "LITS": lambda to: stand_ins.write_abdomens(to, range(5)),
            "MSD": lambda to: stand_ins.write_abdomens(to, range(10, 34), tumour=False),
            "CHAOS": lambda to: stand_ins.write_abdomens(to, range(40, 50), tumour=False),
            "CASES": lambda to: stand_ins.write_cases(to, range(60, 66)),
            "MRIS": lambda to: stand_ins.write_abdomens(to, range(70, 76)),
            "scan.nii.gz": self.one_scan,
        }
        if "--store=DIR" in line and "experiments.prepare" not in line:
            self.prepare_data(line)
        for seed in re.findall(r"RUN(\d)", line):
            self.must(
                f"python -m experiments.finetune --pretask=none --n=2 --store=DIR --seed={seed} --name=seed{seed}"
            )
            (self.folder / f"RUN{seed}").symlink_to(self.folder / f"runs/finetune/seed{seed}")
        for name in re.findall(r"[=,][\w-]+:([\w.]+)", line if "--compare" in line else ""):
            stand_ins.write_scores(self.folder / name, self.folder / "W/sweep/brain/results.csv")
        for value in re.findall(r'(?:=|"|=")([^\s,"=]+)', line):
            place = self.folder / value
            if place.exists():
                continue
            if value == "runs/finetune/NAME":
                place.symlink_to(sorted(p for p in place.parent.iterdir())[0])
            elif value in makers:
                if self.shared is not None and (self.shared / value).exists():
                    place.symlink_to(self.shared / value)
                else:
                    makers[value](place)
            elif value.endswith("participants.tsv"):
                stand_ins.write_participants(place, self.folder / "W/sweep/brain/results.csv")
            elif value.endswith(".toml"):
                place.parent.mkdir(parents=True, exist_ok=True)
                kept = ROOT / value
                place.write_text(kept.read_text("utf-8") if kept.exists() else self.toml(place.stem), "utf-8")

    def prepare_data(self, line: str) -> None:
        """What the command trains on or scores and no earlier one of the page made: as another page says, or shared."""
        if self.shared is not None:
            for source in ("SCANS", "OTHERS"):  # manifests name them as they were given
                if not (self.folder / source).exists():
                    (self.folder / source).symlink_to(self.shared / source)
            for kept in sorted((self.shared / "DIR").glob("*_*")):
                if not (self.folder / "DIR" / kept.name).exists() and making(kept.name, [self.page]) is None:
                    shutil.copytree(kept, self.folder / "DIR" / kept.name)
        for name in data_of(line):
            first = making(name, [self.page, *PAGES])
            if first is not None and not (self.folder / "DIR" / name).exists():
                self.must(first)

    def must(self, line: str) -> None:
        done = self.run(line)
        assert done.returncode == 0, f"{line}: {done.stderr}"

    def one_scan(self, to: Path) -> None:
        self.bring("=SCANS")
        shutil.copy(sorted((self.folder / "SCANS").glob("*_T1w.nii.gz"))[0], to)

    def toml(self, stem: str) -> str:
        """The block of the page whose first line names the file, as in "# mine.toml"."""
        blocks = re.findall(r"^```toml\n(.*?)^```$", self.page.read_text("utf-8"), re.MULTILINE | re.DOTALL)
        (found,) = (b for b in blocks if b.startswith(f"# {stem}.toml\n"))
        return str(found)
