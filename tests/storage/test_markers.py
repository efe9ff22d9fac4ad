"""JSON files of edgepress are distinguished from those of other programs, even where they are damaged."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from edgepress.storage.markers import JsonAuthor, identify_author

KEYS = ("schema_version", "prompts_sha256", "files")
MANIFEST = json.dumps({"schema_version": 3, "device": "orin", "prompts_sha256": "0", "files": []}, indent=2)


@pytest.mark.parametrize(
    ("text", "author"),
    [
        (MANIFEST, JsonAuthor.EDGEPRESS),
        (MANIFEST[:-10], JsonAuthor.EDGEPRESS),
        (MANIFEST.replace('"orin"', "\0rin"), JsonAuthor.EDGEPRESS),
        (MANIFEST.replace("files", "fines"), JsonAuthor.EDGEPRESS),
        ("", JsonAuthor.UNKNOWN),
        (MANIFEST[:20], JsonAuthor.UNKNOWN),
        ("{}", JsonAuthor.ANOTHER),
        ("[]", JsonAuthor.ANOTHER),
        ('{"name": "App", "icons": [], "schema_version": 3}', JsonAuthor.ANOTHER),
        (json.dumps({"examples": [json.loads(MANIFEST)]}), JsonAuthor.ANOTHER),
    ],
)
def test_the_keys_tell_who_wrote_it(tmp_path: Path, text: str, author: JsonAuthor) -> None:
    (tmp_path / "manifest.json").write_text(text)
    assert identify_author(tmp_path / "manifest.json", KEYS) is author


def test_what_is_missing_or_no_file_is_unknown(tmp_path: Path) -> None:
    assert identify_author(tmp_path, KEYS) is identify_author(tmp_path / "nowhere", KEYS) is JsonAuthor.UNKNOWN
