"""Files of the user are not replaced, though they have the names of edgepress's."""

from __future__ import annotations

from pathlib import Path

import pytest

from edgepress.common.errors import UserError
from edgepress.storage.checksums import write_checksums
from edgepress.storage.files import record_file, write_json
from edgepress.storage.layout import Artifact
from edgepress.storage.own_files import check_own_files
from edgepress.storage.source_location import write_source_location


def write_own_files(artifact: Artifact) -> None:
    (artifact.path / "model").mkdir()
    names = ["manifest.json", "model/model_index.json", "model/README.md"]
    for name in names:
        (artifact.path / name).write_text("{}")
    write_checksums([record_file(artifact.path, name) for name in names], artifact.path)
    write_json({"reading weights": 0.5, "quantizing": 12}, artifact.timings)
    write_source_location(artifact.path, artifact, ["style.safetensors:0.5"])


def test_own_files_are_replaced(tmp_path: Path) -> None:
    check_own_files(Artifact(tmp_path))
    write_own_files(Artifact(tmp_path))
    check_own_files(Artifact(tmp_path))


def test_a_damaged_list_of_hashes_is_replaced(tmp_path: Path) -> None:
    """Else the command that repairs it would refuse to."""
    write_own_files(Artifact(tmp_path))
    file = tmp_path / "SHA256SUMS"
    file.write_bytes(b"\xff" + file.read_bytes()[1:])
    check_own_files(Artifact(tmp_path))


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("SHA256SUMS", f"{'0' * 64}  thesis.pdf\n{'1' * 64}  data.csv\n"),
        ("SHA256SUMS", f"{'0' * 64}  manifest.json\n{'1' * 64}  data.csv\n"),
        ("SHA256SUMS", ""),
        ("timings.json", '{"laps": [61.2, 60.9]}'),
        ("timings.json", '{"finished": true}'),
        ("timings.json", "{}"),
        ("timings.json", "12:30 start"),
        ("local.json", '{"source": "/data", "user": "me"}'),
        ("local.json", '{"host": "localhost"}'),
        ("local.json", "[]"),
    ],
)
def test_files_of_the_user_are_not(name: str, text: str, tmp_path: Path) -> None:
    write_own_files(Artifact(tmp_path))
    (tmp_path / name).write_text(text)
    with pytest.raises(UserError, match=rf"{name} was not made by edgepress.*Choose another output folder, or move it"):
        check_own_files(Artifact(tmp_path))


def test_neither_are_folders_and_links_to_nothing(tmp_path: Path) -> None:
    (tmp_path / "timings.json").mkdir()
    with pytest.raises(UserError, match=r"timings\.json was not made by edgepress"):
        check_own_files(Artifact(tmp_path))
    (tmp_path / "timings.json").rmdir()
    (tmp_path / "local.json").symlink_to("nowhere")
    with pytest.raises(UserError, match=r"local\.json was not made by edgepress"):
        check_own_files(Artifact(tmp_path))
