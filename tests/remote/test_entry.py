"""Where buckets are known of: by the commands' start, and by nothing that works within."""

import re
from pathlib import Path

from tests.remote.bucket import Bucket
from tlseg_jax.remote.entry import Buckets, read_folder
from tlseg_jax.runtime import elsewhere
from tlseg_jax.runtime.elsewhere import Elsewhere, using

ROOT = Path(__file__).resolve().parents[2]


def test_nothing_but_the_commands_start_imports_it() -> None:
    sources = [p for top in ("tlseg_jax", "experiments", "benchmarks") for p in (ROOT / top).rglob("*.py")]
    imports = re.compile(r"^\s*((from|import) tlseg_jax\.remote|from tlseg_jax import .*\bremote\b)", re.M)
    found = {str(p.relative_to(ROOT)) for p in sources if imports.search(p.read_text(encoding="utf-8"))}
    assert {n for n in found if not n.startswith("tlseg_jax/remote/")} == {"tlseg_jax/actions/places.py"}


def test_the_body_alone_is_told(tmp_path: Path) -> None:
    with using(Elsewhere()):
        with using(Buckets()):
            assert elsewhere.current() == Buckets()
        assert elsewhere.current() == Elsewhere()
        assert elsewhere.current().find(str(tmp_path)) == tmp_path


def test_named_files_are_fetched_and_go_with_those_in_the_bucket(bucket: Bucket) -> None:
    for name in ("a/manifest.json", "b/manifest.json", "b/sub/manifest.json", "b/other", ".c/manifest.json"):
        bucket.put(f"stores/{name}", name.encode())
    root = read_folder(f"{bucket}/stores")
    Buckets().fetch(root, "*/manifest.json")
    there = {p.relative_to(root).as_posix(): p.read_text() for p in root.rglob("*") if p.is_file()}
    assert there == {n: n for n in ("a/manifest.json", "b/manifest.json")}
    bucket.delete("stores/a/manifest.json")
    Buckets().fetch(root / "a")
    assert not (root / "a" / "manifest.json").exists() and (root / "b" / "manifest.json").exists()
