"""What is exported: a diffusers folder or an artifact, whose files are those that were quantized."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
from helpers.small_graphs import packed, random_codes, stored
from helpers.tiny import edit_weights

from edgepress.common.errors import UserError
from edgepress.export.graph.source_model import open_source, read_tokenizer_files
from edgepress.storage import manifest as artifact

NAMES = ("tokenizer.json", "chat_template.jinja", "tokenizer_config.json")


@pytest.fixture
def pressed(tiny: Path, tmp_path: Path) -> Path:
    """An artifact folder as quantizing leaves it, with the weights of the original."""
    folder = tmp_path / "artifact"
    shutil.copytree(tiny, folder / "model")
    manifest = artifact.Manifest(
        device="test",
        key="key",
        source=str(tiny),
        recipe={},
        prompts_sha256="",
        sources=[],
        files=artifact.hash_files(folder / "model"),
        layers=[],
        num_unquantized=0,
        sizes={},
        size_savings={},
        fp16_overflows=[],
        versions={},
    )
    artifact.write_manifest(manifest, folder)
    return folder


def test_an_artifact_and_its_model_are_the_same(pressed: Path) -> None:
    for folder in (pressed, pressed / "model"):
        model = open_source(folder)
        assert model.folder == pressed / "model"
        assert model.manifest is not None
        assert model.verify_and_hash() == model.manifest.files


def test_a_pipeline_that_was_not_pressed_has_no_manifest_to_be_held_against(tiny: Path) -> None:
    model = open_source(tiny)
    assert model.manifest is None
    assert {file.path for file in model.verify_and_hash()} >= {"model_index.json", "vae/config.json"}


def test_a_folder_without_a_model_is_refused(tmp_path: Path) -> None:
    with pytest.raises(
        UserError, match=r"holds no model/ and no model_index\.json; make one with 'edgepress quantize'"
    ):
        open_source(tmp_path)


def test_an_artifact_without_its_manifest_is_refused_but_not_its_model_alone(pressed: Path) -> None:
    (pressed / "manifest.json").unlink()
    with pytest.raises(UserError, match=r"manifest\.json is missing, .* quantize again, or give --model \S+/model to"):
        open_source(pressed)
    assert open_source(pressed / "model").manifest is None


def test_a_weight_that_changed_since_is_named(pressed: Path) -> None:
    with edit_weights(pressed / "model" / "transformer") as tensors:
        tensors["x_pad_token"] += 1
    with pytest.raises(UserError, match=r"transformer/.*\.safetensors was changed since it was quantized"):
        open_source(pressed).verify_and_hash()


@pytest.mark.parametrize("change", ["gone", "new"])
def test_files_that_went_or_came_since_are_named(change: str, pressed: Path) -> None:
    path = pressed / "model" / ("model_index.json" if change == "new" else "vae/config.json")
    if change == "new":
        path = path.with_name("more.json")
        path.write_text("{}")
    else:
        path.unlink()
    with pytest.raises(UserError, match=rf"{path.name} was changed since"):
        open_source(pressed / "model").verify_and_hash()


def test_configs_are_those_of_every_part_without_how_it_is_stored(pressed: Path) -> None:
    path = pressed / "model" / "transformer" / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"quantization_config": {"bits": 4}}))
    configs = open_source(pressed).configs()
    assert configs.keys() == {"scheduler", "text_encoder", "transformer", "vae"}
    assert "quantization_config" not in configs["transformer"]
    assert configs["scheduler"]["shift"] == 3.0


def test_the_symmetric_solution_of_4_bits_is_found_among_others(pressed: Path) -> None:
    schemes = {
        "a": {"bits": 8, "group_size": 64, "zero_point": False},
        "b": {"bits": 4, "group_size": 64, "zero_point": True},
        "c": {"bits": 4, "group_size": "channel", "zero_point": False},
        "d": {"bits": 4, "group_size": 64, "zero_point": False},
    }
    for name, scheme in schemes.items():
        folder = pressed / "model" / "solutions" / name / "transformer"
        stored(folder, packed({"a": random_codes(8, 64, 64, zero_points=False)}))
        (folder / "config.json").write_text(json.dumps({"scheme": scheme}))
    solution = open_source(pressed).find_symmetric_solution("transformer")
    assert solution is not None
    assert solution.folder == pressed / "model" / "solutions" / "d" / "transformer"
    assert open_source(pressed).find_symmetric_solution("text_encoder") is None


def test_a_wrapped_component_is_read_by_the_names_of_its_modules(pressed: Path) -> None:
    from helpers.tiny import store_as_published

    plain = set(open_source(pressed).open_checkpoint("text_encoder").names())
    store_as_published(pressed / "model", head=True)
    checkpoint = open_source(pressed).open_checkpoint("text_encoder")
    assert set(checkpoint.names()) == plain
    assert isinstance(checkpoint.load_tensor("embed_tokens.weight"), torch.Tensor)


def test_a_chat_template_inside_the_config_becomes_a_file(pressed: Path) -> None:
    folder = pressed / "model" / "tokenizer"
    template = (folder / "chat_template.jinja").read_text()
    config = json.loads((folder / "tokenizer_config.json").read_text()) | {"chat_template": template}
    (folder / "tokenizer_config.json").write_text(json.dumps(config))
    (folder / "chat_template.jinja").unlink()
    assert read_tokenizer_files(open_source(pressed), NAMES)["chat_template.jinja"] == template


def test_a_tokenizer_without_its_file_is_refused(pressed: Path) -> None:
    (pressed / "model" / "tokenizer" / "tokenizer.json").unlink()
    with pytest.raises(UserError, match=r"tokenizer\.json is missing"):
        read_tokenizer_files(open_source(pressed), NAMES)
