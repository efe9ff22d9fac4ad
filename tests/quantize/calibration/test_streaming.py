"""The streamed reference computes the same bits as the whole pipeline while its blocks stay on disk."""

from __future__ import annotations

import shutil
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from helpers.tiny import IMAGE_SIZE, edit_weights
from torch import Tensor, nn

from edgepress.common.errors import UserError
from edgepress.pipelines.sampling import SamplingParams, generate_images, load_pipeline
from edgepress.prompts.prompt import Prompt
from edgepress.prompts.reader import load_prompts
from edgepress.quantize.calibration import streaming
from edgepress.quantize.calibration.streaming import load_streaming_pipeline, stop_at_denoiser
from edgepress.quantize.plan import QuantizationPlan, build_plan
from edgepress.recipes.schema import QuantizationSettings
from edgepress.storage.checkpoint import Checkpoint

SAMPLING = SamplingParams(height=IMAGE_SIZE, width=IMAGE_SIZE, steps=2, guidance=0.0)
META = torch.device("meta")


def load_calibration_prompts(folder: Path) -> list[Prompt]:
    return load_prompts(folder / "prompts" / "calibration.jsonl")


@pytest.fixture(scope="module")
def plan(tiny: Path) -> QuantizationPlan:
    return build_plan(tiny, QuantizationSettings())


@pytest.fixture
def streamed(plan: QuantizationPlan) -> Any:
    return load_streaming_pipeline(plan, torch.float32)


def get_blocks(plan: QuantizationPlan, pipeline: Any) -> dict[str, nn.Module]:
    return {block.name: getattr(pipeline, block.component).get_submodule(block.path) for block in plan.blocks}


def is_unloaded(block: nn.Module) -> bool:
    """Whether all parameters are without values; a mixture is an error."""
    (unloaded,) = {parameter.device == META for parameter in block.parameters()}
    return unloaded


# ---------------------------------------------------------------- what it computes


@pytest.mark.parametrize("guidance", [0.0, 3.0])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_latents_have_the_same_bits_as_those_of_the_whole_pipeline(
    tiny: Path, plan: QuantizationPlan, dtype: torch.dtype, guidance: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(streaming, "choose_matmul_dtype", lambda dtype, _: dtype)  # as where products need no float32
    sampling = SamplingParams(IMAGE_SIZE, IMAGE_SIZE, 2, guidance)
    latents, expected = (
        generate_images(pipeline, load_calibration_prompts(tiny), sampling, output_type="latent")
        for pipeline in (load_streaming_pipeline(plan, dtype), load_pipeline(tiny, dtype))
    )
    assert len(latents) == len(expected) == 3
    assert all(torch.equal(a, b) for a, b in zip(latents, expected, strict=True))


def test_images_are_those_of_the_whole_pipeline(tiny: Path, streamed: Any) -> None:
    prompts = load_calibration_prompts(tiny)[:1]
    image, expected = (
        np.asarray(generate_images(pipeline, prompts, SAMPLING)[0])
        for pipeline in (streamed, load_pipeline(tiny, torch.float32))
    )
    assert expected.std() > 1
    assert np.array_equal(image, expected)


def test_weights_stored_in_bfloat16_are_converted_as_in_the_whole_pipeline(tiny: Path, tmp_path: Path) -> None:
    source = tmp_path / "pipeline"
    shutil.copytree(tiny, source)
    with edit_weights(source / "transformer") as tensors:
        tensors.update({name: tensor.bfloat16() for name, tensor in tensors.items()})
    latents, expected = (
        generate_images(pipeline, load_calibration_prompts(tiny)[:1], SAMPLING, output_type="latent")[0]
        for pipeline in (
            load_streaming_pipeline(build_plan(source, QuantizationSettings()), torch.float32),
            load_pipeline(source, torch.float32),
        )
    )
    assert torch.equal(latents, expected)


def test_a_second_call_computes_the_same(tiny: Path, streamed: Any) -> None:
    first, second = (
        generate_images(streamed, load_calibration_prompts(tiny)[:1], SAMPLING, output_type="latent")[0]
        for _ in range(2)
    )
    assert torch.equal(first, second)


def test_the_text_encoder_computes_the_same_without_its_unused_layer(tiny: Path, streamed: Any) -> None:
    """On a padded batch, as in the pipeline; the last layer has neither weights nor children."""
    ids = torch.arange(24).reshape(2, 12)
    mask = torch.arange(12) < torch.tensor([[12], [7]])

    def encode(model: Any) -> Tensor:
        with torch.no_grad():
            states: Tensor = model(input_ids=ids, attention_mask=mask, output_hidden_states=True).hidden_states[-2]
        return states[mask]

    assert torch.equal(encode(streamed.text_encoder), encode(load_pipeline(tiny, torch.float32).text_encoder))
    unused = streamed.text_encoder.get_submodule("layers.2")
    assert not list(unused.parameters())
    assert not list(unused.children())


# ---------------------------------------------------------------- what is in memory


def test_blocks_have_no_weights_before_and_after_a_call(tiny: Path, plan: QuantizationPlan, streamed: Any) -> None:
    blocks = get_blocks(plan, streamed)
    assert len(blocks) == 5
    assert all(is_unloaded(block) for block in blocks.values())
    generate_images(streamed, load_calibration_prompts(tiny)[:1], SAMPLING, output_type="latent")
    assert all(is_unloaded(block) for block in blocks.values())


def test_one_block_at_a_time_has_weights(tiny: Path, plan: QuantizationPlan, streamed: Any) -> None:
    blocks = get_blocks(plan, streamed)
    loaded: list[list[str]] = []

    def record(*_: Any) -> None:
        loaded.append([name for name, block in blocks.items() if not is_unloaded(block)])

    for block in plan.blocks:
        blocks[block.name].get_submodule(block.spec.linears[0]).register_forward_hook(record)
    generate_images(streamed, load_calibration_prompts(tiny)[:1], SAMPLING, output_type="latent")
    refiners, layers = ["transformer.noise_refiner.0", "transformer.context_refiner.0"], ["transformer.layers.0"]
    texts = ["text_encoder.layers.0", "text_encoder.layers.1"]
    assert loaded == [[name] for name in texts + 2 * (refiners + layers)]


def test_everything_outside_the_blocks_is_loaded_and_needs_no_gradient(plan: QuantizationPlan, streamed: Any) -> None:
    for part in plan.components:
        block_prefixes = tuple(f"{path}." for path in [*(block.path for block in part.blocks), *part.unused_blocks])
        outside = {
            name: parameter
            for name, parameter in getattr(streamed, part.name).named_parameters()
            if not name.startswith(block_prefixes)
        }
        assert outside
        assert [name for name, parameter in outside.items() if parameter.device == META] == []
    assert not any(parameter.requires_grad for parameter in streamed.transformer.parameters())
    assert not streamed.transformer.training
    assert not streamed.text_encoder.training


def test_weights_of_unused_blocks_are_never_loaded(
    tiny: Path, plan: QuantizationPlan, monkeypatch: pytest.MonkeyPatch
) -> None:
    loaded: list[str] = []
    load_tensors = Checkpoint.load_tensors

    def load_and_record(self: Checkpoint, names: Iterable[str]) -> Iterator[tuple[str, Tensor]]:
        for name, tensor in load_tensors(self, names):
            loaded.append(f"{self.folder.name}.{name}")
            yield name, tensor

    monkeypatch.setattr(Checkpoint, "load_tensors", load_and_record)
    generate_images(
        load_streaming_pipeline(plan, torch.float32), load_calibration_prompts(tiny)[:1], SAMPLING, output_type="latent"
    )
    assert any(name.startswith("text_encoder.layers.1.") for name in loaded)
    assert not [name for name in loaded if name.startswith("text_encoder.layers.2.")]
    assert loaded.count("transformer.layers.0.feed_forward.w2.weight") == SAMPLING.steps
    assert loaded.count("text_encoder.embed_tokens.weight") == 1


# ---------------------------------------------------------------- stopping


def test_only_what_comes_before_the_denoiser_runs(tiny: Path, streamed: Any) -> None:
    events: list[str] = []
    streamed.text_encoder.register_forward_hook(lambda *_: events.append("text encoder"))
    streamed.transformer.register_forward_hook(lambda *_: events.append("denoiser"))
    with stop_at_denoiser(streamed.transformer):
        generate_images(streamed, load_calibration_prompts(tiny), SAMPLING)
        events.append("after")
    assert events == ["text encoder"]
    generate_images(streamed, load_calibration_prompts(tiny)[:1], SAMPLING, output_type="latent")
    assert events == ["text encoder", "text encoder", "denoiser", "denoiser"]


def test_other_errors_pass_through() -> None:
    with pytest.raises(UserError, match="wrong"), stop_at_denoiser(nn.Linear(1, 1)):
        raise UserError("wrong")
