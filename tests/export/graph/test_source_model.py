"""The pipeline that is exported: a diffusers folder, or the model of an artifact with unchanged files."""

from __future__ import annotations

import json
import math
import shutil
from pathlib import Path

import pytest
import torch
from helpers.described_folder import write_listed_manifest
from helpers.small_graphs import make_awq_tensors, make_random_weight, write_component
from helpers.tiny import edit_weights

from edgepress.common.errors import UserError
from edgepress.export.graph.source_model import open_source
from edgepress.storage.files import hash_files
from edgepress.storage.manifest import Manifest


@pytest.fixture
def quantized(tiny: Path, tmp_path: Path) -> Path:
    """An artifact folder as quantization writes it, with the weights of the original."""
    folder = tmp_path / "artifact"
    shutil.copytree(tiny, folder / "model")
    manifest = Manifest(
        device="test",
        key="key",
        source=str(tiny),
        recipe={},
        prompts_sha256="",
        sources=[],
        files=hash_files(folder / "model"),
        layers=[],
        num_unquantized=0,
        sizes={},
        size_savings={},
        fp16_overflows=[],
        versions={},
    )
    write_listed_manifest(manifest, folder)
    return folder


def test_an_artifact_and_its_model_are_the_same(quantized: Path) -> None:
    for folder in (quantized, quantized / "model"):
        model = open_source(folder)
        assert model.folder == quantized / "model"
        assert model.manifest is not None
        assert model.verify_and_hash() == model.manifest.files


def test_an_original_pipeline_has_no_manifest(tiny: Path) -> None:
    model = open_source(tiny)
    assert model.manifest is None
    assert {file.path for file in model.verify_and_hash()} >= {"model_index.json", "vae/config.json"}


def test_a_folder_without_a_model_is_rejected(tmp_path: Path) -> None:
    with pytest.raises(
        UserError, match=r"is an? .*\. Give a diffusers folder, or an artifact that 'edgepress quantize' made"
    ):
        open_source(tmp_path)


def test_an_artifact_without_its_manifest_is_rejected_but_its_model_is_not(quantized: Path) -> None:
    (quantized / "manifest.json").unlink()
    with pytest.raises(
        UserError,
        match=r"Cannot verify \S+/model: \S+manifest\.json is missing\. Quantize again, or pass --model \S+/model ",
    ):
        open_source(quantized)
    assert open_source(quantized / "model").manifest is None


def test_a_changed_weight_is_reported(quantized: Path) -> None:
    with edit_weights(quantized / "model" / "transformer") as tensors:
        tensors["x_pad_token"] += 1
    with pytest.raises(UserError, match=r"transformer/.*\.safetensors was changed since it was quantized"):
        open_source(quantized).verify_and_hash()


@pytest.mark.parametrize("change", ["removed", "new"])
def test_removed_and_new_files_are_reported(change: str, quantized: Path) -> None:
    path = quantized / "model" / ("model_index.json" if change == "new" else "vae/config.json")
    if change == "new":
        path = path.with_name("more.json")
        path.write_text("{}")
    else:
        path.unlink()
    reason = "was added since" if change == "new" else "is missing, which manifest.json lists"
    for check in ("verify_and_hash", "check_recorded"):
        with pytest.raises(UserError, match=rf"{path.name} {reason}"):
            getattr(open_source(quantized / "model"), check)()


def test_configs_are_those_of_every_component_without_quantization(quantized: Path) -> None:
    path = quantized / "model" / "transformer" / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"quantization_config": {"bits": 4}}))
    configs = open_source(quantized).configs
    assert configs.keys() == {"scheduler", "text_encoder", "transformer", "vae"}
    assert "quantization_config" not in configs["transformer"]
    assert configs["scheduler"]["shift"] == 3.0


def test_a_scheduler_may_hold_an_infinity(quantized: Path) -> None:
    """DPM-Solver's default of lambda_min_clipped."""
    file = quantized / "model/scheduler/scheduler_config.json"
    file.write_text(json.dumps(json.loads(file.read_text("utf-8")) | {"lambda_min_clipped": -math.inf}), "utf-8")
    assert open_source(quantized / "model").configs["scheduler"]["lambda_min_clipped"] == -math.inf


def test_the_symmetric_int4_solution_is_selected(quantized: Path) -> None:
    schemes = {
        "a": {"bits": 8, "group_size": 64, "zero_point": False},
        "b": {"bits": 4, "group_size": 64, "zero_point": True},
        "c": {"bits": 4, "group_size": "channel", "zero_point": False},
        "d": {"bits": 4, "group_size": 64, "zero_point": False},
    }
    for name, scheme in schemes.items():
        folder = quantized / "model" / "solutions" / name / "transformer"
        write_component(folder, make_awq_tensors({"a": make_random_weight(8, 64, 64, zero_points=False)}))
        (folder / "config.json").write_text(json.dumps({"scheme": scheme}))
    solution = open_source(quantized).find_symmetric_solution("transformer")
    assert solution is not None
    assert solution.folder == quantized / "model" / "solutions" / "d" / "transformer"
    assert open_source(quantized).find_symmetric_solution("text_encoder") is None


def test_weights_of_a_wrapped_component_have_the_names_of_its_modules(quantized: Path) -> None:
    from helpers.tiny import store_as_published

    plain = set(open_source(quantized).open_checkpoint("text_encoder").names())
    store_as_published(quantized / "model", head=True)
    checkpoint = open_source(quantized).open_checkpoint("text_encoder")
    assert set(checkpoint.names()) == plain
    assert isinstance(checkpoint.load_tensor("embed_tokens.weight"), torch.Tensor)


def test_checkpoints_are_opened_once(tiny: Path) -> None:
    source = open_source(tiny)
    assert source.open_checkpoint("transformer") is source.open_checkpoint("transformer")


def test_an_unknown_extra_graph_is_rejected(tiny: Path) -> None:
    with pytest.raises(UserError, match=r"has no optional graph 'nothing'\. Choose from: .*vae_encoder"):
        open_source(tiny, ["nothing"])


def test_a_chat_template_inside_the_config_becomes_a_file(quantized: Path) -> None:
    folder = quantized / "model" / "tokenizer"
    template = (folder / "chat_template.jinja").read_text()
    config = json.loads((folder / "tokenizer_config.json").read_text()) | {"chat_template": template}
    (folder / "tokenizer_config.json").write_text(json.dumps(config))
    (folder / "chat_template.jinja").unlink()
    assert open_source(quantized).read_tokenizer_files()["chat_template.jinja"] == template


def test_a_tokenizer_without_its_file_is_rejected(quantized: Path) -> None:
    (quantized / "model" / "tokenizer" / "tokenizer.json").unlink()
    with pytest.raises(UserError, match=r"tokenizer\.json is missing"):
        open_source(quantized).read_tokenizer_files()
