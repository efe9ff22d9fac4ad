"""The manifest: what is written is read again, manifests of earlier releases are read, corrupt ones are rejected."""

from __future__ import annotations

import json
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest
from helpers.described_folder import write_checksum_of, write_listed_manifest
from pydantic import ValidationError

import edgepress
from edgepress.common.errors import UserError
from edgepress.storage.files import FileRecord
from edgepress.storage.manifest import Manifest, library_versions, read_manifest, write_manifest
from edgepress.storage.published_model import CHECKSUMS_SINCE, MANIFEST_VERSION


def make_manifest(**changes: Any) -> Manifest:
    file = FileRecord(path="transformer/config.json", bytes=3, sha256="00" * 32)
    content: dict[str, Any] = {
        "device": "orin",
        "key": "0123456789abcdef",
        "source": "demo",
        "recipe": {"device": "orin", "description": "牌子"},
        "prompts_sha256": "11" * 32,
        "sources": [file],
        "files": [file],
        "layers": [{"name": "layers.0.w2", "rtn_error": 0.25, "error": 0.125}],
        "num_unquantized": 3,
        "sizes": {"transformer": {"before": 100, "after": 30}},
        "size_savings": {"transformer": {"4-bit linears": 70}},
        "fp16_overflows": [],
        "versions": {"edgepress": "0.1.0"},
    }
    return Manifest(**(content | changes))


def test_versions_are_the_installed_ones() -> None:
    installed = library_versions()
    assert installed["edgepress"] == edgepress.__version__
    assert installed["torch"] == version("torch")
    assert installed["diffusers"] == version("diffusers")


def test_a_manifest_that_was_written_is_read_again(tmp_path: Path) -> None:
    write_listed_manifest(make_manifest(), tmp_path)
    assert read_manifest(tmp_path) == make_manifest()
    assert json.loads((tmp_path / "manifest.json").read_text("utf-8"))["device"] == "orin"
    assert "牌子" in (tmp_path / "manifest.json").read_text("utf-8")


def test_the_same_manifest_gives_the_same_bytes(tmp_path: Path) -> None:
    contents = []
    for _ in range(2):
        write_manifest(make_manifest(), tmp_path)
        contents.append((tmp_path / "manifest.json").read_bytes())
    assert contents[0] == contents[1]


def test_a_folder_without_a_manifest_has_none(tmp_path: Path) -> None:
    assert read_manifest(tmp_path) is None
    assert read_manifest(tmp_path / "not-there") is None


@pytest.mark.parametrize(
    "content",
    [
        "",
        "{",
        "\xff",
        '{"schema_version": 3, "prompts_sha256": "", "files": []}',
        json.dumps(make_manifest().model_dump())[:-1],
        json.dumps(make_manifest().model_dump() | {"new": 1}),
    ],
)
def test_a_corrupt_manifest_is_reported_on_one_line(tmp_path: Path, content: str) -> None:
    (tmp_path / "manifest.json").write_text(content, "latin-1")
    write_checksum_of(tmp_path / "manifest.json")
    with pytest.raises(UserError, match=r"manifest\.json is not a valid manifest") as raised:
        read_manifest(tmp_path)
    assert "\n" not in str(raised.value)
    assert "--force" in str(raised.value)


@pytest.mark.parametrize("content", ["[]", "{}", '{"name": "App", "icons": []}', '{"schema_version": 3, "layers": []}'])
def test_a_manifest_of_another_program_is_none(tmp_path: Path, content: str) -> None:
    (tmp_path / "manifest.json").write_text(content)
    assert read_manifest(tmp_path) is None


def test_a_newer_manifest_is_rejected_with_what_to_do(tmp_path: Path) -> None:
    content = make_manifest().model_dump() | {"schema_version": MANIFEST_VERSION + 1, "new": 1}
    (tmp_path / "manifest.json").write_text(json.dumps(content))
    with pytest.raises(UserError, match=r"manifest\.json .* a newer edgepress wrote it\. Upgrade edgepress\."):
        read_manifest(tmp_path)


@pytest.mark.parametrize("path", ["/etc/passwd", "../secret", "a/../../b"])
@pytest.mark.parametrize("key", ["files", "sources"])
def test_no_path_leaves_the_folder(tmp_path: Path, key: str, path: str) -> None:
    content = make_manifest().model_dump()
    content[key][0]["path"] = path
    (tmp_path / "manifest.json").write_text(json.dumps(content))
    write_checksum_of(tmp_path / "manifest.json")
    with pytest.raises(UserError, match=rf"{key}\.0\.path = .* is not a path below this folder"):
        read_manifest(tmp_path)


def test_a_number_that_json_cannot_express_is_rejected_and_the_old_manifest_stays(tmp_path: Path) -> None:
    write_listed_manifest(make_manifest(), tmp_path)
    with pytest.raises(ValueError, match="JSON"):
        write_manifest(make_manifest(layers=[{"error": float("nan")}]), tmp_path)
    assert read_manifest(tmp_path) == make_manifest()


def test_a_manifest_is_immutable() -> None:
    unchanged = make_manifest()
    with pytest.raises(ValidationError, match="frozen"):
        unchanged.device = "pi5"


def test_a_manifest_of_the_first_release_is_read(tmp_path: Path) -> None:
    """Keys as commit 0b5298e wrote them."""
    content = make_manifest(
        schema_version=1,
        recipe={"device": "orin", "quantize": {"scheme": {"symmetric": False}, "extra_schemes": {}}},
        layers=[
            {"layer": "a", "steps": {"rtn": 0.5, "range_search": 0.25, "scale_refit": 0.125}, "stays_float": False}
        ],
        extra_scheme_layers={"w8a8": [{"layer": "a", "steps": {"rtn": 0.5}, "stays_float": True}]},
    )
    text = content.model_dump_json()
    for new, old in {
        "extra_scheme_layers": "also",
        "num_unquantized": "kept",
        "size_savings": "savings",
        "fp16_overflows": "overflowing",
        "stays_float": "kept",
        "range_search": "range",
        "scale_refit": "refit",
        "extra_schemes": "also",
    }.items():
        assert f'"{new}"' in text
        text = text.replace(f'"{new}"', f'"{old}"')
    (tmp_path / "manifest.json").write_text(text.replace('"symmetric":false', '"zero_point":true'))
    write_checksum_of(tmp_path / "manifest.json")
    assert read_manifest(tmp_path) == content


def test_a_manifest_that_was_changed_is_rejected(tmp_path: Path) -> None:
    write_listed_manifest(make_manifest(), tmp_path)
    assert read_manifest(tmp_path) == make_manifest()
    file = tmp_path / "manifest.json"
    file.write_text(file.read_text("utf-8").replace("orin", "pi55"), "utf-8")
    with pytest.raises(UserError, match=r"manifest\.json was changed: .* SHA256SUMS\. Replace the artifact"):
        read_manifest(tmp_path)


def test_a_manifest_that_must_be_listed_is_not_read_unlisted(tmp_path: Path) -> None:
    """Or whoever changes it need only remove SHA256SUMS, or its line."""
    write_listed_manifest(make_manifest(), tmp_path)
    file = tmp_path / "SHA256SUMS"
    for change, problem in ((lambda: file.write_text(""), "does not list manifest"), (file.unlink, "is missing")):
        change()
        with pytest.raises(UserError, match=rf"SHA256SUMS {problem}.*Replace the artifact"):
            read_manifest(tmp_path)


def test_a_manifest_of_a_release_without_checksums_is_read_without_them(tmp_path: Path) -> None:
    manifest = make_manifest(schema_version=CHECKSUMS_SINCE - 1)
    write_manifest(manifest, tmp_path)
    assert read_manifest(tmp_path) == manifest
