"""Where the original pipeline is: remembered beside an artifact, and not named in what is published."""

from __future__ import annotations

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
    artifact = Artifact(tmp_path)
    assert find_source_loras(artifact) == ()
    write_source_location(tmp_path, artifact)
    assert find_source_loras(artifact) == ()
    write_source_location(tmp_path, artifact, ["/loras/a:0.5", "/loras/b"])
    assert find_source_loras(artifact) == ("/loras/a:0.5", "/loras/b")
    assert find_source(artifact) == tmp_path


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
