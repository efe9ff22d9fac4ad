"""The streamed reference computes what the whole one does, to the bit, while its blocks stay on disk."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from helpers.tiny import IMAGE_SIZE, edit_weights
from torch import Tensor, nn

from edgepress.common.errors import UserError
from edgepress.pipelines.sampling import SamplingParams, generate_images, load_pipeline
from edgepress.prompts.prompt import Prompt, load_prompts
from edgepress.quantize.calibration.streaming import load_streaming_pipeline, stop_at_denoiser
from edgepress.quantize.plan import QuantizationPlan, build_plan
from edgepress.recipes.schema import QuantizationSettings
from edgepress.storage.checkpoint import Checkpoint

SAMPLING = SamplingParams(height=IMAGE_SIZE, width=IMAGE_SIZE, steps=2, guidance=0.0)
META = torch.device("meta")


def prompts_of(folder: Path) -> list[Prompt]:
    return load_prompts(folder / "prompts" / "calibration.jsonl")


@pytest.fixture(scope="module")
def plan(tiny: Path) -> QuantizationPlan:
    return build_plan(tiny, QuantizationSettings())


@pytest.fixture
def streamed(plan: QuantizationPlan) -> Any:
    return load_streaming_pipeline(plan, torch.float32)


def blocks_of(plan: QuantizationPlan, pipeline: Any) -> dict[str, nn.Module]:
    return {unit.name: getattr(pipeline, unit.component).get_submodule(unit.path) for unit in plan.blocks}


def on_meta(block: nn.Module) -> bool:
    """All parameters are without values; a mixture of both is an error."""
    (found,) = {parameter.device == META for parameter in block.parameters()}
    return found


# ---------------------------------------------------------------- what it computes


@pytest.mark.parametrize("guidance", [0.0, 3.0])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_latents_are_those_of_the_whole_pipeline_to_the_bit(
    tiny: Path, plan: QuantizationPlan, dtype: torch.dtype, guidance: float
) -> None:
    sampling = SamplingParams(IMAGE_SIZE, IMAGE_SIZE, 2, guidance)
    found, expected = (
        generate_images(pipeline, prompts_of(tiny), sampling, output_type="latent")
        for pipeline in (load_streaming_pipeline(plan, dtype), load_pipeline(tiny, dtype))
    )
    assert len(found) == len(expected) == 3
    assert all(torch.equal(a, b) for a, b in zip(found, expected, strict=True))


def test_pictures_are_those_of_the_whole_pipeline(tiny: Path, streamed: Any) -> None:
    prompts = prompts_of(tiny)[:1]
    found, expected = (
        np.asarray(generate_images(pipeline, prompts, SAMPLING)[0])
        for pipeline in (streamed, load_pipeline(tiny, torch.float32))
    )
    assert expected.std() > 1
    assert np.array_equal(found, expected)


def test_weights_stored_in_bfloat16_are_widened_as_the_whole_pipeline_widens_them(tiny: Path, tmp_path: Path) -> None:
    source = tmp_path / "pipeline"
    shutil.copytree(tiny, source)
    with edit_weights(source / "transformer") as tensors:
        tensors.update({name: tensor.bfloat16() for name, tensor in tensors.items()})
    found, expected = (
        generate_images(pipeline, prompts_of(tiny)[:1], SAMPLING, output_type="latent")[0]
        for pipeline in (
            load_streaming_pipeline(build_plan(source, QuantizationSettings()), torch.float32),
            load_pipeline(source, torch.float32),
        )
    )
    assert torch.equal(found, expected)


def test_a_second_call_computes_the_same(tiny: Path, streamed: Any) -> None:
    first, second = (
        generate_images(streamed, prompts_of(tiny)[:1], SAMPLING, output_type="latent")[0] for _ in range(2)
    )
    assert torch.equal(first, second)


def test_what_the_text_encoder_hands_on_is_the_same_without_its_unread_layer(tiny: Path, streamed: Any) -> None:
    """A padded batch, as the pipeline gives it; the last layer has neither weights nor children."""
    ids = torch.arange(24).reshape(2, 12)
    mask = torch.arange(12) < torch.tensor([[12], [7]])

    def read(model: Any) -> Tensor:
        with torch.no_grad():
            states: Tensor = model(input_ids=ids, attention_mask=mask, output_hidden_states=True).hidden_states[-2]
        return states[mask]

    assert torch.equal(read(streamed.text_encoder), read(load_pipeline(tiny, torch.float32).text_encoder))
    unread = streamed.text_encoder.get_submodule("layers.2")
    assert not list(unread.parameters())
    assert not list(unread.children())


# ---------------------------------------------------------------- what it holds


def test_blocks_hold_no_weights_before_and_after_a_call(tiny: Path, plan: QuantizationPlan, streamed: Any) -> None:
    blocks = blocks_of(plan, streamed)
    assert len(blocks) == 5
    assert all(on_meta(block) for block in blocks.values())
    generate_images(streamed, prompts_of(tiny)[:1], SAMPLING, output_type="latent")
    assert all(on_meta(block) for block in blocks.values())


def test_one_block_at_a_time_holds_weights(tiny: Path, plan: QuantizationPlan, streamed: Any) -> None:
    blocks = blocks_of(plan, streamed)
    held: list[list[str]] = []

    def look(*_: Any) -> None:
        held.append([name for name, block in blocks.items() if not on_meta(block)])

    for unit in plan.blocks:
        blocks[unit.name].get_submodule(unit.spec.linears[0]).register_forward_hook(look)
    generate_images(streamed, prompts_of(tiny)[:1], SAMPLING, output_type="latent")
    refiners, layers = ["transformer.noise_refiner.0", "transformer.context_refiner.0"], ["transformer.layers.0"]
    texts = ["text_encoder.layers.0", "text_encoder.layers.1"]
    assert held == [[name] for name in texts + 2 * (refiners + layers)]


def test_what_stands_outside_the_blocks_is_there_and_needs_no_gradient(plan: QuantizationPlan, streamed: Any) -> None:
    for part in plan.components:
        inside = tuple(f"{path}." for path in [*(unit.path for unit in part.blocks), *part.unused_blocks])
        outside = {
            name: parameter
            for name, parameter in getattr(streamed, part.name).named_parameters()
            if not name.startswith(inside)
        }
        assert outside
        assert [name for name, parameter in outside.items() if parameter.device == META] == []
    assert not any(parameter.requires_grad for parameter in streamed.transformer.parameters())
    assert not streamed.transformer.training
    assert not streamed.text_encoder.training


def test_weights_of_unread_blocks_are_never_read(
    tiny: Path, plan: QuantizationPlan, monkeypatch: pytest.MonkeyPatch
) -> None:
    read: list[str] = []
    tensor = Checkpoint.load_tensor

    def told(self: Checkpoint, name: str) -> Tensor:
        read.append(f"{self.folder.name}.{name}")
        return tensor(self, name)

    monkeypatch.setattr(Checkpoint, "tensor", told)
    generate_images(load_streaming_pipeline(plan, torch.float32), prompts_of(tiny)[:1], SAMPLING, output_type="latent")
    assert any(name.startswith("text_encoder.layers.1.") for name in read)
    assert not [name for name in read if name.startswith("text_encoder.layers.2.")]
    assert read.count("transformer.layers.0.feed_forward.w2.weight") == SAMPLING.steps
    assert read.count("text_encoder.embed_tokens.weight") == 1


# ---------------------------------------------------------------- stopping


def test_what_comes_before_the_denoiser_runs_and_nothing_after(tiny: Path, streamed: Any) -> None:
    ran: list[str] = []
    streamed.text_encoder.register_forward_hook(lambda *_: ran.append("text encoder"))
    streamed.transformer.register_forward_hook(lambda *_: ran.append("denoiser"))
    with stop_at_denoiser(streamed.transformer):
        generate_images(streamed, prompts_of(tiny), SAMPLING)
        ran.append("after")
    assert ran == ["text encoder"]
    generate_images(streamed, prompts_of(tiny)[:1], SAMPLING, output_type="latent")
    assert ran == ["text encoder", "text encoder", "denoiser", "denoiser"]


def test_errors_are_not_swallowed_where_it_stops() -> None:
    with pytest.raises(UserError, match="wrong"), stop_at_denoiser(nn.Linear(1, 1)):
        raise UserError("wrong")
