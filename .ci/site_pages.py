"""A hook of MkDocs: README.md and other pages outside docs/ become pages of the site, with their links turned."""

import re
from pathlib import Path
from typing import Any

from mkdocs.structure.files import File, Files

ROOT = Path(__file__).resolve().parents[1]
PAGES = ("CONTRIBUTING.md", "CHANGELOG.md", "CITATION.cff", "LICENSE", "deploy/README.md", "benchmarks/*.md")
PICTURES = "benchmarks/results/*/*.png"


def on_files(files: Files, config: Any) -> Files:
    """Add the pages, and the pictures that they show."""
    home = (ROOT / "README.md").read_text(encoding="utf-8").replace("](docs/", "](")
    files.append(File.generated(config, "index.md", content=home))
    for path in sorted(p for pattern in (*PAGES, PICTURES) for p in ROOT.glob(pattern)):
        files.append(File.generated(config, path.relative_to(ROOT).as_posix(), abs_src_path=str(path)))
    return files


def on_page_markdown(markdown: str, page: Any, **_: Any) -> str:
    """Links from docs/ to the folder above, and from elsewhere to docs/, as they lie in the site."""
    above = "../" * page.file.src_uri.count("/")
    markdown = re.sub(r"\]\((?:\.\./)+docs/", f"]({above}", markdown)
    if page.file.src_uri.count("/") == 0:
        markdown = re.sub(r"\]\((\.\./|docs/)", "](", markdown)
    return markdown
