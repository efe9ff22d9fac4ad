"""The bundled demo pipeline: genuine classes, small, and good enough to measure quantization with."""

from __future__ import annotations

import json

import numpy as np
import numpy.typing as npt
import pytest
import torch
from safetensors import safe_open

from edgepress.demo.signs import dataset
from edgepress.evaluate.backends.ocr import recognize_lines
from edgepress.evaluate.backends.text_matching import score_text
from edgepress.pipelines.hub import DEMO_PIPELINE
from edgepress.prompts.prompt import Prompt
from edgepress.prompts.reader import load_prompts
from edgepress.quantize.plan import build_plan
from edgepress.recipes.schema import QuantizationSettings

WEIGHTS = sorted(DEMO_PIPELINE.glob("*/*.safetensors"))


def test_the_weights_are_bfloat16_safetensors_of_at_most_48_mb() -> None:
    assert sum(file.stat().st_size for file in DEMO_PIPELINE.rglob("*") if file.is_file()) <= 48_000_000
    assert {file.parent.name for file in WEIGHTS} == {"transformer", "text_encoder", "vae"}
    for file in WEIGHTS:
        with safe_open(file, framework="pt") as weights:
            assert {weights.get_tensor(name).dtype for name in weights.keys()} == {torch.bfloat16}  # noqa: SIM118
    assert not [path for path in DEMO_PIPELINE.rglob("*") if path.suffix in {".bin", ".pt", ".ckpt", ".pkl"}]


def test_the_classes_are_the_genuine_ones() -> None:
    index = json.loads((DEMO_PIPELINE / "model_index.json").read_text())
    assert index["_class_name"] == "ZImagePipeline"
    classes = {name: value[1] for name, value in index.items() if isinstance(value, list)}
    assert classes == {
        "scheduler": "FlowMatchEulerDiscreteScheduler",
        "text_encoder": "Qwen3Model",
        "tokenizer": "Qwen2Tokenizer",
        "transformer": "ZImageTransformer2DModel",
        "vae": "AutoencoderKL",
    }
    assert json.loads((DEMO_PIPELINE / "vae" / "config.json").read_text())["latent_channels"] == 16


def test_every_quantizable_width_is_a_multiple_of_128() -> None:
    plan = build_plan(DEMO_PIPELINE, QuantizationSettings())
    for component in plan.components:
        for block in component.blocks:
            for linear in block.linears:
                assert component.checkpoint.shape(f"{linear}.weight")[1] % 128 == 0, linear


@pytest.mark.parametrize("split", ["calibration", "evaluation"])
def test_the_bundled_prompts_are_the_held_out_ones(split: dataset.Split) -> None:
    assert load_prompts(DEMO_PIPELINE / "prompts" / f"{split}.jsonl") == dataset.prompt_set(split)


def test_words_are_tokenized_by_character() -> None:
    """Every character is one token, and prompts have at most 32 tokens."""
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(DEMO_PIPELINE / "tokenizer")
    for prompt in dataset.prompt_set("evaluation"):
        chat = [{"role": "user", "content": prompt.prompt}]
        text = tokenizer.apply_chat_template(chat, tokenize=False, add_generation_prompt=True, enable_thinking=True)
        tokens = [tokenizer.decode([token]) for token in tokenizer(text).input_ids]
        assert len(tokens) <= 32, prompt.prompt
        assert "".join(tokens) == text
        letters = [token for token in tokens if token in dataset.LETTERS or token in dataset.HANZI]
        assert "".join(letters).endswith("".join(prompt.lines))


@pytest.mark.slow
def test_ocr_reads_generated_images(generated: list[tuple[Prompt, npt.NDArray[np.uint8]]]) -> None:
    """A sample of the held-out words. All of them are in docs/benchmarks/quality.md."""
    exact = [score_text(prompt.lines, recognize_lines(image), prompt.language)["exact"] for prompt, image in generated]
    assert sum(exact) / len(exact) >= 0.9, f"{exact.count(1.0)} of {len(exact)} read exactly"
