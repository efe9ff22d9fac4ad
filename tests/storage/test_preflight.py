"""Whether an artifact can be written is known before any work, and nothing is created to find out."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from edgepress.common.errors import UserError
from edgepress.storage.checksums import write_checksums
from edgepress.storage.files import record_file
from edgepress.storage.layout import MARKERS, Artifact
from edgepress.storage.preflight import check_output, check_replaceable, check_results_folder
from edgepress.storage.publishing import artifact_lock


def test_nothing_is_created(tmp_path: Path) -> None:
    check_output(tmp_path / "a" / "b")
    assert not list(tmp_path.iterdir())


def test_a_used_artifact_can_be_written_again(tmp_path: Path) -> None:
    with artifact_lock(tmp_path / "artifact"):
        pass
    check_output(tmp_path / "artifact")


def test_another_process_is_noticed_and_its_lock_is_kept(tmp_path: Path) -> None:
    with artifact_lock(tmp_path / "artifact"):
        for _ in range(2):
            with pytest.raises(UserError, match=r"Another edgepress process is using .*artifact\. .*output folder"):
                check_output(tmp_path / "artifact")


@pytest.mark.parametrize("place", ["artifact", "artifact/.work", "."])
def test_a_file_in_the_way(tmp_path: Path, place: str) -> None:
    blocked = tmp_path / "parent" / place
    blocked.parent.mkdir(parents=True, exist_ok=True)
    blocked.write_text("in the way")
    with pytest.raises(UserError, match=r" is not a folder, so .*output folder"):
        check_output(tmp_path / "parent" / "artifact")


def test_a_dangling_link_in_the_way(tmp_path: Path) -> None:
    (tmp_path / "artifact").symlink_to(tmp_path / "nowhere")
    with pytest.raises(UserError, match="artifact is not a folder"):
        check_output(tmp_path / "artifact")


def test_a_file_system_that_cannot_be_written() -> None:
    with pytest.raises(
        UserError, match=r"^/proc.* is read-only\. Change its permissions, or choose another output folder"
    ):
        check_output(Path("/proc/self/artifact"))


def test_a_virtual_file_system_is_tried() -> None:
    """Its permissions allow a superuser everything."""
    with pytest.raises(
        UserError,
        match=r"^/proc/artifact cannot be created, since /proc is read-only\. Change its",
    ):
        check_output(Path("/proc/artifact"))


def test_an_artifact_is_not_in_an_export(tmp_path: Path) -> None:
    """It would be lost when the export is replaced."""
    (tmp_path / "onnx").mkdir()
    (tmp_path / "onnx" / "pipeline.json").write_text('{"schema_version": 1, "family": "x", "graphs": {}, "host": {}}')
    with pytest.raises(UserError, match=r"onnx, which is an export: it does not belong there\. Choose another output"):
        check_output(tmp_path / "onnx" / "artifact")


def test_an_artifact_is_not_in_a_pipeline(tmp_path: Path) -> None:
    (tmp_path / "model_index.json").write_text("{}")
    with pytest.raises(
        UserError, match=r"is in .*, which is a pipeline: it does not belong there\. Choose another output folder"
    ):
        check_output(tmp_path / "gguf" / "artifact")


def test_a_name_that_is_too_long(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"is too long for the file system\. Choose a shorter output folder"):
        check_output(tmp_path / "absent" / ("a" * 300))


def test_a_path_through_a_link_to_itself(tmp_path: Path) -> None:
    (tmp_path / "loop").symlink_to("loop")
    for path in (tmp_path / "loop", tmp_path / "loop" / "artifact"):
        for check in (check_output, check_results_folder):
            with pytest.raises(UserError, match=r"leads through a link to itself\. Choose another output folder"):
                check(path)


OWN_CONFIG = '{"schema_version": 1, "family": "f", "graphs": {}, "host": {}}'


def test_only_what_edgepress_made_is_replaced(tmp_path: Path) -> None:
    folder, description = tmp_path / "onnx", tmp_path / "onnx" / "pipeline.json"
    check_replaceable(folder, [description])
    folder.mkdir()
    check_replaceable(folder, [description])
    (folder / "my_model.onnx").touch()
    with pytest.raises(UserError, match=r"onnx was not made by edgepress, because .*pipeline\.json is missing"):
        check_replaceable(folder, [description])
    description.write_text(OWN_CONFIG)
    check_replaceable(folder, [description])


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ('{"pipeline": "build", "stages": []}', r", because .*pipeline\.json is another program's"),
        ('{"schema_version": 1, "family": "f"}', r", because .*pipeline\.json is another program's"),
        ("", r", because .*pipeline\.json is damaged"),
    ],
)
def test_a_description_of_another_program_does_not_count(tmp_path: Path, text: str, reason: str) -> None:
    (tmp_path / "pipeline.json").write_text(text)
    with pytest.raises(UserError, match=rf"was not made by edgepress{reason}"):
        check_replaceable(tmp_path, [tmp_path / "pipeline.json"])


def test_a_damaged_description_of_edgepress_counts(tmp_path: Path) -> None:
    """Else the command that repairs it would refuse to."""
    (tmp_path / "pipeline.json").write_text(OWN_CONFIG.removesuffix("}"))
    check_replaceable(tmp_path, [tmp_path / "pipeline.json"])


@pytest.mark.parametrize("name", ["onnx", "model"])
def test_what_the_user_added_to_a_folder_is_not_replaced_with_it(name: str, tmp_path: Path) -> None:
    """An export has its list of hashes in itself, a model beside it; engines are built where the artifact runs."""
    folder = tmp_path / name
    (folder / "engines").mkdir(parents=True)
    for file in ("a.bin", "engines/b.engine"):
        (folder / file).touch()
    description = folder / "pipeline.json" if name == "onnx" else tmp_path / "manifest.json"
    keys = MARKERS[description.name]
    description.write_text(json.dumps(dict.fromkeys(keys, 1)))
    paths = ["a.bin", "pipeline.json"] if name == "onnx" else ["model/a.bin", "manifest.json"]
    write_checksums([record_file(description.parent, path) for path in paths], description.parent)
    check_replaceable(folder, [description])
    (folder / "notes.txt").touch()
    with pytest.raises(UserError, match=r"notes\.txt was not made by edgepress, and .* will be replaced\. Move it"):
        check_replaceable(folder, [description])


def test_a_manifest_of_another_program_is_not_replaced(tmp_path: Path) -> None:
    manifest = tmp_path / "manifest.json"
    manifest.write_text('{"name": "App", "icons": [], "start_url": "."}')
    with pytest.raises(UserError, match=r"manifest\.json was not made by edgepress\. Choose another"):
        check_replaceable(manifest, [manifest])


def test_room_on_the_disk(tmp_path: Path) -> None:
    free = shutil.disk_usage(tmp_path).free
    check_output(tmp_path / "artifact", free // 2)
    with pytest.raises(UserError, match=r"artifact needs at least \d+\.\d GB, but its disk has \d+\.\d GB free"):
        check_output(tmp_path / "artifact", 2 * free + 10**9)
    assert not Artifact(tmp_path / "artifact").work.exists()


@pytest.mark.parametrize("name", ["onnx", "onnx/results", "model", "model/transformer/results"])
def test_results_are_not_written_into_what_is_published_as_a_whole(name: str, tmp_path: Path) -> None:
    artifact = Artifact(tmp_path)
    for file in (artifact.onnx / "pipeline.json", artifact.model / "model_index.json"):
        file.parent.mkdir()
        file.touch()
    check_results_folder(artifact.evaluation)
    with pytest.raises(UserError, match=r"it does not belong there\. Choose another output folder\."):
        check_results_folder(tmp_path / name)
