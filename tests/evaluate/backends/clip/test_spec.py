from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

from edgepress.common.errors import UserError
from edgepress.evaluate.backends.clip.spec import parse_clip_spec


def test_a_folder_of_open_clip(plain: tuple[Path, object]) -> None:
    folder, _ = plain
    spec = parse_clip_spec(f"local-dir:{folder}")
    assert (spec.format, spec.name, spec.path) == ("local-dir", "someone/small", folder)
    assert spec.digest == hashlib.sha256((folder / "open_clip_model.safetensors").read_bytes()).hexdigest()


def test_a_name_and_its_checkpoint(tmp_path: Path) -> None:
    file = tmp_path / "weights.safetensors"
    file.write_bytes(b"weights")
    spec = parse_clip_spec(f"ViT-B-32-quickgelu:{file}")
    assert (spec.format, spec.name, spec.weights) == ("name", "ViT-B-32-quickgelu", (file,))


def test_shards_of_transformers_are_all_its_weights(tmp_path: Path) -> None:
    files = [tmp_path / f"model-0000{i}-of-00002.safetensors" for i in (1, 2)]
    for file in files:
        file.write_bytes(file.name.encode())
    spec = parse_clip_spec(f"transformers:{tmp_path}")
    assert spec.weights == tuple(files)
    assert spec.digest.count("+") == 1


def test_the_file_that_open_clip_prefers_is_taken(tmp_path: Path) -> None:
    for name in ("a.safetensors", "open_clip_pytorch_model.safetensors", "model.safetensors"):
        (tmp_path / name).write_bytes(b"")
    assert parse_clip_spec(f"local-dir:{tmp_path}").weights[0].name == "open_clip_pytorch_model.safetensors"


def test_another_configuration_is_another_clip(changed: Path) -> None:
    before = parse_clip_spec(f"local-dir:{changed}").config_digest
    config = changed / "open_clip_config.json"
    config.write_text(config.read_text().replace('"quick_gelu": false', '"quick_gelu": true'))
    assert parse_clip_spec(f"local-dir:{changed}").config_digest != before


@pytest.mark.parametrize(
    ("text", "match"),
    [
        ("ViT-B-32", "names no CLIP; write local-dir:FOLDER"),
        (":weights.safetensors", "names no CLIP"),
        ("local-dir:nowhere", "there is no folder nowhere"),
        ("transformers:nowhere", "there is no folder nowhere"),
        ("ViT-B-32:nowhere.safetensors", r"no CLIP checkpoint nowhere\.safetensors"),
        ("ViT-B-32:weights.pt", r"is no \.safetensors file"),
        ("local-dir:.", "random ones are never used"),
        ("transformers:.", "random ones are never used"),
    ],
)
def test_what_names_no_weights_is_refused(
    text: str, match: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match=match):
        parse_clip_spec(text)


def test_a_folder_that_leaves_the_checkpoint_to_chance_is_refused(tmp_path: Path) -> None:
    for name in ("epoch_1.safetensors", "epoch_2.safetensors"):
        (tmp_path / name).write_bytes(b"")
    with pytest.raises(UserError, match="holds 2 checkpoints; leave one"):
        parse_clip_spec(f"local-dir:{tmp_path}")
