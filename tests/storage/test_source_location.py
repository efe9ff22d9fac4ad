"""Where the original pipeline is: remembered beside an artifact, and not named in what is published."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from edgepress.storage.layout import Artifact
from edgepress.storage.source_location import find_source, find_source_loras, remove_places, write_source_location


def test_the_pipeline_is_found_while_it_is_there(tmp_path: Path) -> None:
    source, artifact = tmp_path / "pipeline", Artifact(tmp_path)
    assert find_source(artifact) is None
    source.mkdir()
    write_source_location(source, artifact)
    assert find_source(artifact) == source
    source.rmdir()
    assert find_source(artifact) is None


def test_loras_are_remembered_with_their_weights(tmp_path: Path) -> None:
    source, artifact = tmp_path / "pipeline", Artifact(tmp_path / "artifact")
    for folder in (source, artifact.path):
        folder.mkdir()
    assert find_source_loras(artifact) == ()
    write_source_location(source, artifact)
    assert find_source_loras(artifact) == ()
    write_source_location(source, artifact, ["/loras/a:0.5", "/loras/b:1.0"])
    assert find_source_loras(artifact) == ("/loras/a:0.5", "/loras/b:1.0")
    assert find_source(artifact) == source


def test_no_folder_above_is_named_and_all_may_move_together(tmp_path: Path) -> None:
    project = tmp_path / "project"
    source, artifact = project / "models" / "big", Artifact(project / "artifacts" / "pi5")
    for folder in (source, artifact.path):
        folder.mkdir(parents=True)
    write_source_location(source, artifact, [f"{project / 'a.safetensors'}:0.5"])
    assert str(project) not in artifact.local.read_text()
    moved = project.rename(tmp_path / "moved")
    artifact = Artifact(moved / "artifacts" / "pi5")
    assert find_source(artifact) == moved / "models" / "big"
    assert find_source_loras(artifact) == (f"{moved / 'a.safetensors'}:0.5",)


def test_absolute_paths_of_earlier_releases_are_read(tmp_path: Path) -> None:
    source, artifact = tmp_path / "pipeline", Artifact(tmp_path / "artifact")
    for folder in (source, artifact.path):
        folder.mkdir()
    artifact.local.write_text(json.dumps({"source": str(source), "loras": ["/loras/a:0.5"]}))
    assert find_source(artifact) == source
    assert find_source_loras(artifact) == ("/loras/a:0.5",)


@pytest.mark.parametrize("content", ["", "[]", "{}", '{"source": 1}', '{"source": "."}', '{"source": {}}'])
def test_another_content_names_no_pipeline(tmp_path: Path, content: str) -> None:
    (tmp_path / "local.json").write_text(content)
    assert find_source(Artifact(tmp_path)) is None
    assert find_source_loras(Artifact(tmp_path)) == ()


@pytest.mark.parametrize(
    ("path", "name"),
    [
        ("../client/p.jsonl", "p.jsonl"),
        ("./p.jsonl", "p.jsonl"),
        ("client/secret/p.jsonl", "p.jsonl"),
        ("~/p.jsonl", "p.jsonl"),
        ("/p.jsonl", "p.jsonl"),
        ("../client/", "client"),
        ("text-en", "text-en"),
    ],
)
def test_no_path_of_a_prompt_set_is_published(path: str, name: str) -> None:
    assert remove_places({"calibration": {"prompts": path}}) == {"calibration": {"prompts": name}}
    assert remove_places({"clip": f"local-dir:{path}"}) == {"clip": f"local-dir:{name}"}


def test_absolute_paths_become_names() -> None:
    settings = {"model": "/home/me/pipelines/big/", "clip": "local-dir:/data/clip", "sizes": [[64, 64]], "a": ["~/x/y"]}
    unchanged = {
        "prompts": "auto",
        "hub": "owner/name",
        "relative": "a/b",
        "metric": "psnr/mean",
        "count": 3,
        "none": None,
    }
    expected = {"model": "big", "clip": "local-dir:clip", "sizes": [[64, 64]], "a": ["y"]}
    assert remove_places(settings | unchanged) == expected | unchanged
