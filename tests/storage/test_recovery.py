"""What was downloaded is downloaded again; what edgepress made is made or copied again."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from edgepress.common.errors import UserError
from edgepress.storage.files import read_json_object
from edgepress.storage.recovery import advise_recovery

MANIFEST = json.dumps({"schema_version": 3, "prompts_sha256": "0", "files": []})
CONFIG = json.dumps({"schema_version": 1, "family": "f", "graphs": {}, "host": {}})


def write(file: Path, text: str) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text)


def test_a_pipeline_is_downloaded_again(tmp_path: Path) -> None:
    write(tmp_path / "model" / "vae" / "config.json", "{}")
    assert advise_recovery(tmp_path / "model" / "vae" / "config.json") == "Download the model again."
    write(tmp_path / "manifest.json", '{"name": "App"}')
    assert advise_recovery(tmp_path / "model") == "Download the model again."


@pytest.mark.parametrize("place", ["model", "model/vae", "model/vae/config.json", "onnx/tokenizer/tokenizer.json"])
def test_an_artifact_is_made_or_copied_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, place: str) -> None:
    write(tmp_path / "orin" / "manifest.json", MANIFEST)
    write(tmp_path / "orin" / "onnx" / "pipeline.json", CONFIG)
    artifact = tmp_path / "orin"
    expected = f"Make {artifact} again, or copy it again as a whole: 'edgepress verify {artifact}' lists what is wrong."
    assert advise_recovery(artifact / place) == expected
    monkeypatch.chdir(artifact)
    assert advise_recovery(Path(place)) == expected


def test_errors_of_readers_have_it(tmp_path: Path) -> None:
    write(tmp_path / "manifest.json", MANIFEST)
    write(tmp_path / "model" / "vae" / "config.json", "{")
    with pytest.raises(UserError, match=r"config\.json cannot be read \(line 1 is not valid JSON\)\. Make .* again"):
        read_json_object(tmp_path / "model" / "vae" / "config.json")
