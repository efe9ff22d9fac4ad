"""One quantized text encoder serves pipelines of two families: its files are taken over, or refused in a sentence."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers.tiny import write_tiny_pipeline
from helpers.tiny_families import KLEIN, SIDE, randomize, write_tiny_family

import edgepress.loading  # noqa: F401  registers the loader
from edgepress.common.errors import UserError
from edgepress.pipelines.sampling import SamplingParams, generate_images, load_pipeline
from edgepress.prompts.prompt import Prompt
from edgepress.quantize.pipeline import quantize_pipeline
from edgepress.recipes.schema import GenerationSettings, QuantizationSettings, Recipe
from edgepress.storage.files import hash_file, hash_files

pytestmark = pytest.mark.slow

WIDTH = 32  # of the states of KLEIN's text encoder


def make_recipe(**settings: Any) -> Recipe:
    calibration = GenerationSettings(count=1, steps=1, size=(SIDE, SIDE))
    return Recipe(
        device="test", quantize=QuantizationSettings(**{"method": "gptq"} | settings), calibration=calibration
    )


@pytest.fixture(scope="module")
def sources(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A Z-Image and a FLUX.2 klein with the same text encoder and tokenizer."""
    from diffusers import ZImageTransformer2DModel

    folder = tmp_path_factory.mktemp("sources")
    write_tiny_family(KLEIN, folder / "klein")
    write_tiny_pipeline(folder / "z_image")
    for name in ("text_encoder", "tokenizer"):
        shutil.rmtree(folder / "z_image" / name)
        shutil.copytree(folder / "klein" / name, folder / "z_image" / name)
    config = json.loads((folder / "z_image" / "transformer" / "config.json").read_text("utf-8"))
    torch.manual_seed(0)
    transformer = randomize(ZImageTransformer2DModel.from_config(config | {"cap_feat_dim": WIDTH}))
    transformer.save_pretrained(folder / "z_image" / "transformer")
    return {"klein": folder / "klein", "z_image": folder / "z_image"}


@pytest.fixture(scope="module")
def quantized(sources: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The artifact of the Z-Image."""
    artifact = tmp_path_factory.mktemp("quantized") / "z_image"
    quantize_pipeline(make_recipe(), sources["z_image"], artifact)
    return artifact


def test_the_files_of_the_text_encoder_are_taken_over(
    sources: dict[str, Path], quantized: Path, tmp_path: Path
) -> None:
    result = quantize_pipeline(make_recipe(), sources["klein"], tmp_path / "klein", reuse=[quantized])
    weights = [
        {file.sha256 for file in hash_files(artifact / "model" / "text_encoder") if file.path.endswith("safetensors")}
        for artifact in (quantized, tmp_path / "klein")
    ]
    assert weights[0] == weights[1]
    (record,) = result.manifest.reused.values()
    assert (list(result.manifest.reused), record.component) == (["text_encoder"], "text_encoder")
    assert {layer["layer"].partition(".")[0] for layer in result.manifest.layers} == {"text_encoder", "transformer"}
    assert not quantize_pipeline(make_recipe(), sources["klein"], tmp_path / "klein", reuse=[quantized]).created
    with pytest.raises(
        UserError, match=r"was made from another recipe, .* or reused text encoder, or by another version"
    ):
        quantize_pipeline(make_recipe(), sources["klein"], tmp_path / "klein")
    pipeline = load_pipeline(tmp_path / "klein" / "model", torch.float32)
    prompt = Prompt(id="p", prompt="a cat", language="en")
    (latents,) = generate_images(pipeline, [prompt], SamplingParams(SIDE, SIDE, 1, 1.0), output_type="latent")
    assert torch.isfinite(latents).all()


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"scheme": {"bits": 4, "group_size": 32, "symmetric": True}}, r"other settings \(quantize\.scheme\)"),
        ({"method": "rtn"}, r"other settings \(quantize\.steps\)"),
        ({"method": "best"}, "cannot be reused with the method 'best'"),
    ],
)
def test_other_settings_are_refused(
    settings: dict[str, Any], message: str, sources: dict[str, Path], quantized: Path, tmp_path: Path
) -> None:
    with pytest.raises(UserError, match=message):
        quantize_pipeline(make_recipe(**settings), sources["klein"], tmp_path / "out", reuse=[quantized])


def test_other_weights_and_other_folders_are_refused(sources: dict[str, Path], quantized: Path, tmp_path: Path) -> None:
    write_tiny_pipeline(tmp_path / "source")
    with pytest.raises(UserError, match=r"no text encoder that was quantized from the same weights .*SHA-256"):
        quantize_pipeline(make_recipe(), tmp_path / "source", tmp_path / "out", reuse=[quantized])
    with pytest.raises(UserError, match="is no artifact with a quantized model"):
        quantize_pipeline(make_recipe(), sources["klein"], tmp_path / "out", reuse=[tmp_path])


def test_blocks_that_only_this_pipeline_reads_are_refused(
    sources: dict[str, Path], quantized: Path, tmp_path: Path
) -> None:
    shutil.copytree(quantized, tmp_path / "short")
    file, sums = tmp_path / "short" / "manifest.json", tmp_path / "short" / "SHA256SUMS"
    manifest, recorded = json.loads(file.read_text("utf-8")), hash_file(file)
    manifest["layers"] = [layer for layer in manifest["layers"] if ".layers.26." not in layer["layer"]]
    file.write_text(json.dumps(manifest), "utf-8")
    sums.write_text(sums.read_text("utf-8").replace(recorded, hash_file(file)), "utf-8")
    with pytest.raises(UserError, match=r"lacks 1 blocks that this pipeline reads, such as layers\.26"):
        quantize_pipeline(make_recipe(), sources["klein"], tmp_path / "out", reuse=[tmp_path / "short"])
