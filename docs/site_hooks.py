"""Adds documents from outside docs/ to the site, and lets links to them work in the repository and on the site."""

from __future__ import annotations

import posixpath
import re
from pathlib import Path
from typing import Any

from mkdocs.structure.files import File, Files

ROOT = Path(__file__).resolve().parents[1]
PAGES = {  # path in the repository: path on the site
    "CONTRIBUTING.md": "contributing.md",
    "CHANGELOG.md": "changelog.md",
    "demo/README.md": "demo.md",
    "demo/clip/README.md": "demo-clip.md",
}
LINK = re.compile(r"(?<=\]\()([^)#:\s]+)(?=[)#])")  # the target of a relative link, without its anchor


def on_files(files: Files, config: Any) -> Files:
    """Adds the pages."""
    for source, target in PAGES.items():
        files.append(File.generated(config, target, abs_src_path=str(ROOT / source)))
    return files


def on_page_markdown(markdown: str, page: Any, **_: Any) -> str:
    """Rewrites links between pages whose places differ between the repository and the site."""
    site_path = page.file.src_uri
    repository_path = next((source for source, target in PAGES.items() if target == site_path), f"docs/{site_path}")

    def rewrite(match: re.Match[str]) -> str:
        target = posixpath.normpath(posixpath.join(posixpath.dirname(repository_path), match[1]))
        on_site = PAGES.get(target, target.removeprefix("docs/") if target.startswith("docs/") else None)
        return match[1] if on_site is None else posixpath.relpath(on_site, posixpath.dirname(site_path) or ".")

    return LINK.sub(rewrite, markdown)
