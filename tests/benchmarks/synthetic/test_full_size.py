"""Random pipelines: the full-size shapes on the meta device, and small ones that generate images."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import numpy as np
import pytest
import torch

from edgepress.benchmarks.synthetic import full_size
from edgepress.benchmarks.synthetic.full_size import FULL_SHAPES, PARAMETERS, TINY_SHAPES
from edgepress.pipelines.sampling import SamplingParams, generate_images, load_pipeline
from edgepress.prompts.prompt import Prompt
from edgepress.quantize.plan import build_plan
from edgepress.recipes.schema import QuantizationSettings
from edgepress.storage.checkpoint import Checkpoint


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("small") / "pipeline"
    full_size.write_pipeline(folder, TINY_SHAPES)
    return folder


@pytest.mark.slow
def test_full_shapes_have_the_published_number_of_parameters() -> None:
    counted = {
        name: full_size.count_parameters(model) for name, model in full_size.make_meta_models(FULL_SHAPES).items()
    }
    assert counted == PARAMETERS == {"transformer": 6154908736, "text_encoder": 4022468096, "vae": 83819683}


def test_the_feed_forward_has_the_published_width() -> None:
    transformer = full_size.make_meta_models(FULL_SHAPES)["transformer"]
    assert transformer.layers[29].feed_forward.w2.weight.shape == (3840, 10240)


def test_with_layers_keeps_the_width() -> None:
    models = full_size.make_meta_models(FULL_SHAPES.with_layers(2))
    assert len(models["transformer"].layers) == len(models["text_encoder"].layers) == 2
    assert models["transformer"].layers[0].attention.to_q.weight.shape == (3840, 3840)


@pytest.mark.slow
def test_the_pipeline_loads_and_generates(small: Path) -> None:
    pipeline = load_pipeline(small, torch.bfloat16)
    assert type(pipeline).__name__ == "ZImagePipeline"
    assert pipeline.scheduler.config.shift == 3.0
    prompt = Prompt(id="p", prompt="a cat", language="en")
    image = np.asarray(generate_images(pipeline, [prompt], SamplingParams(64, 64, steps=8, guidance=0.0))[0])
    assert image.shape == (64, 64, 3)
    assert 10 < image.std() < 120
    latents = pipeline("a cat", height=64, width=64, num_inference_steps=8, guidance_scale=0.0, output_type="latent")
    assert torch.isfinite(latents.images).all()
    assert 0.3 < latents.images.float().std() < 10


def test_the_pipeline_can_be_quantized(small: Path) -> None:
    assert len(build_plan(small, QuantizationSettings()).blocks) == 2 + 2 + 2


def test_weights_are_stored_in_bfloat16_under_the_names_of_the_classes(small: Path) -> None:
    for name, model in full_size.make_meta_models(TINY_SHAPES).items():
        checkpoint = Checkpoint(small / name)
        assert set(checkpoint.names()) == {key for key, _ in model.named_parameters()}
        assert {checkpoint.load_tensor(key).dtype for key in checkpoint.names()} == {torch.bfloat16}


def test_every_run_writes_the_same_weights(small: Path, tmp_path: Path) -> None:
    full_size.write_pipeline(tmp_path / "again", TINY_SHAPES)
    assert _digests(tmp_path / "again") == _digests(small)


def test_no_two_layers_are_alike(small: Path) -> None:
    checkpoint = Checkpoint(small / "transformer")
    first, second = (checkpoint.load_tensor(f"layers.{layer}.attention.to_q.weight").float() for layer in (0, 1))
    assert abs(torch.corrcoef(torch.stack([first.flatten(), second.flatten()]))[0, 1]) < 0.05


def test_linear_layers_keep_the_scale_of_their_inputs() -> None:
    generator = torch.Generator().manual_seed(0)
    weight = full_size.draw_tensor("layers.0.attention.to_q.weight", torch.Size((512, 3840)), generator, 1.0).float()
    output = torch.randn(256, 3840, generator=generator) @ weight.T
    assert 0.9 < output.square().mean() < 1.15
    tails = ((weight / weight.std()) ** 4).mean()
    assert tails > 4, "heavier than the normal distribution's 3"


def test_some_channels_are_loud() -> None:
    generator = torch.Generator().manual_seed(0)
    weight = full_size.draw_tensor("layers.0.ffn_norm1.weight", torch.Size((3840,)), generator, 1.0).float()
    assert int((weight >= 10).sum()) == 8
    assert weight.max() <= 30
    assert weight.min() > 0.1


def test_a_complete_folder_is_kept_and_an_incomplete_one_is_replaced(tmp_path: Path) -> None:
    (tmp_path / "p.new" / "transformer").mkdir(parents=True)
    (tmp_path / "p.new" / "leftover").touch()
    full_size.write_pipeline(tmp_path / "p", TINY_SHAPES)
    assert not (tmp_path / "p" / "leftover").exists()
    assert not (tmp_path / "p.new").exists()
    index = tmp_path / "p" / "model_index.json"
    assert json.loads(index.read_text())["text_encoder"] == ["transformers", "Qwen3Model"]
    index.write_text("edited")
    full_size.write_pipeline(tmp_path / "p", TINY_SHAPES)
    assert index.read_text() == "edited"


def test_the_chat_template_supports_thinking() -> None:
    """The pipeline passes `enable_thinking`; only False changes the text."""
    tokenizer = full_size.make_byte_tokenizer()
    chat = [{"role": "user", "content": "a cat 猫"}]
    thinking, not_thinking = (
        tokenizer.apply_chat_template(chat, tokenize=False, add_generation_prompt=True, enable_thinking=on)
        for on in (True, False)
    )
    assert thinking == "<|im_start|>user\na cat 猫<|im_end|>\n<|im_start|>assistant\n"
    assert not_thinking == f"{thinking}<think>\n\n</think>\n\n"
    assert tokenizer.decode(tokenizer(thinking).input_ids) == thinking


def _digests(folder: Path) -> dict[str, str]:
    return {
        str(file.relative_to(folder)): hashlib.sha256(file.read_bytes()).hexdigest()
        for file in sorted(folder.rglob("*.safetensors"))
    }
