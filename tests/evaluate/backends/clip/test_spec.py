from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pytest

from edgepress.common.errors import UserError
from edgepress.evaluate.backends.clip.spec import parse_clip_spec


def test_folder_in_open_clip_format(tiny_clip: tuple[Path, object]) -> None:
    folder, _ = tiny_clip
    spec = parse_clip_spec(f"local-dir:{folder}")
    assert (spec.format, spec.name, spec.path) == ("local-dir", "someone/small", folder)
    assert spec.digest == hashlib.sha256((folder / "open_clip_model.safetensors").read_bytes()).hexdigest()


def test_architecture_and_checkpoint(tmp_path: Path) -> None:
    file = tmp_path / "weights.safetensors"
    file.write_bytes(b"weights")
    spec = parse_clip_spec(f"ViT-B-32-quickgelu:{file}")
    assert (spec.format, spec.name, spec.weights) == ("name", "ViT-B-32-quickgelu", (file,))


def test_shards_of_transformers_are_found(tmp_path: Path) -> None:
    files = [tmp_path / f"model-0000{i}-of-00002.safetensors" for i in (1, 2)]
    for file in files:
        file.write_bytes(file.name.encode())
    (tmp_path / "model-00009-of-00009.safetensors").write_bytes(b"outdated")
    weight_map = {file.name: file.name for file in files}
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": weight_map}))
    spec = parse_clip_spec(f"transformers:{tmp_path}")
    assert spec.weights == tuple(files)
    assert spec.digest.count("+") == 1


def test_file_that_open_clip_prefers_is_used(tmp_path: Path) -> None:
    for name in ("a.safetensors", "open_clip_pytorch_model.safetensors", "model.safetensors"):
        (tmp_path / name).write_bytes(b"")
    assert parse_clip_spec(f"local-dir:{tmp_path}").weights[0].name == "open_clip_pytorch_model.safetensors"


def test_digest_depends_on_the_configuration(copied_folder: Path) -> None:
    before = parse_clip_spec(f"local-dir:{copied_folder}").config_digest
    config = copied_folder / "open_clip_config.json"
    config.write_text(config.read_text().replace('"quick_gelu": false', '"quick_gelu": true'))
    assert parse_clip_spec(f"local-dir:{copied_folder}").config_digest != before


@pytest.mark.parametrize(
    ("text", "match"),
    [
        ("ViT-B-32", r"Invalid --clip 'ViT-B-32'\. Use local-dir:FOLDER"),
        (":weights.safetensors", "Invalid --clip"),
        ("local-dir:nowhere", "nowhere does not exist. Give --clip the folder"),
        ("local-dir:file.gguf", r"file\.gguf is a single file of weights\. Give --clip the folder"),
        ("transformers:nowhere", "nowhere does not exist"),
        ("ViT-B-32:nowhere.safetensors", r"nowhere\.safetensors does not exist"),
        ("ViT-B-32:weights.pt", r"is not a \.safetensors file"),
        ("local-dir:.", "contains no CLIP weights .* Give another --clip"),
        ("transformers:.", "contains no CLIP weights .* Give another --clip"),
    ],
)
def test_invalid_specs_are_refused(text: str, match: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file.gguf").touch()
    with pytest.raises(UserError, match=match):
        parse_clip_spec(text)


def test_folder_with_several_checkpoints_is_refused(tmp_path: Path) -> None:
    for name in ("epoch_1.safetensors", "epoch_2.safetensors"):
        (tmp_path / name).write_bytes(b"")
    with pytest.raises(UserError, match=r"contains 2 checkpoints\. Keep only one"):
        parse_clip_spec(f"local-dir:{tmp_path}")
