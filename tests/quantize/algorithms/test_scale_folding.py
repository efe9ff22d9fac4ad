"""Folding alone changes nothing: with scales folded and no rounding, the output stays the same to float32 rounding."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from helpers.tiny_families import FLUX, KLEIN, QWEN, SD3, SDXL, SIDE, write_tiny_family
from torch import Tensor

from edgepress.models.base.family import NOT_SCALED, Fold
from edgepress.models.shared.denoiser_folds import MODULE as DENOISER_FOLDS
from edgepress.pipelines.hub import DEMO_PIPELINE
from edgepress.pipelines.sampling import SamplingParams, generate_images, load_pipeline, resolve_sampling
from edgepress.prompts.prompt import Prompt
from edgepress.prompts.reader import load_prompts
from edgepress.quantize.algorithms.scale_folding import ScaleLayout, find_layout, fold_scale
from edgepress.quantize.plan import build_plan
from edgepress.recipes.schema import GenerationSettings, QuantizationSettings


def make_layout(width: int) -> ScaleLayout:
    """Each input has a value of its own."""
    return ScaleLayout(torch.arange(width), torch.arange(width))


def test_a_norm_is_divided_and_its_readers_multiplied() -> None:
    weights = {"n.weight": torch.tensor([2.0, 4.0]), "a.weight": torch.ones(3, 2)}
    used = fold_scale(weights, Fold("n", ("a",), "norm"), torch.tensor([2.0, 0.5]), make_layout(2), torch.float32)
    assert weights["n.weight"].tolist() == [1.0, 8.0]
    assert weights["a.weight"].tolist() == [[2.0, 0.5]] * 3
    assert used.tolist() == [2.0, 0.5]


def test_rounding_of_a_stored_norm_is_made_up_for_in_the_readers() -> None:
    norm, scale = torch.rand(64) + 0.5, torch.rand(64) + 0.5
    weights = {"n.weight": norm.bfloat16().float(), "a.weight": torch.eye(64)}
    before = weights["n.weight"].clone()
    fold_scale(weights, Fold("n", ("a",), "norm"), scale, make_layout(64), torch.bfloat16)
    stored = weights["n.weight"]
    assert torch.equal(stored, stored.bfloat16().float())
    torch.testing.assert_close(stored * weights["a.weight"].diag(), before, rtol=1e-6, atol=0)


def test_rows_and_bias_are_divided() -> None:
    weights = {"v.weight": torch.ones(2, 3), "v.bias": torch.ones(2), "o.weight": torch.ones(1, 2)}
    fold_scale(weights, Fold("v", ("o",), "rows"), torch.tensor([2.0, 4.0]), make_layout(2), torch.float32)
    assert weights["v.weight"].tolist() == [[0.5] * 3, [0.25] * 3]
    assert weights["v.bias"].tolist() == [0.5, 0.25]
    assert weights["o.weight"].tolist() == [[2.0, 4.0]]


def test_query_heads_that_share_values_share_scales() -> None:
    """Four query heads, two of values, two channels each: heads 0 and 1 read channels 0, 1; heads 2 and 3 read 2, 3."""
    fold = Fold("v", ("o",), "rows", ("heads", "kv"))
    layout = find_layout(fold, {"heads": 4, "kv": 2}, 8)
    assert layout.rows.tolist() == [0, 1, 2, 3]
    assert layout.channel.tolist() == [0, 1, 0, 1, 2, 3, 2, 3]


def test_the_bias_of_a_norm_is_divided() -> None:
    weights = {"n.weight": torch.tensor([2.0, 4.0]), "n.bias": torch.tensor([1.0, 3.0]), "a.weight": torch.ones(3, 2)}
    fold_scale(weights, Fold("n", ("a",), "norm"), torch.tensor([2.0, 0.5]), make_layout(2), torch.float32)
    assert weights["n.bias"].tolist() == [0.5, 6.0]


def test_values_of_two_streams_are_divided_and_both_outputs_multiplied() -> None:
    weights = {f"{name}.weight": torch.ones(2, 2) for name in ("v", "add_v", "o", "add_o")} | {"v.bias": torch.ones(2)}
    fold = Fold("v", ("o",), "rows", joint_prev_op="add_v", joint_linears=("add_o",))
    fold_scale(weights, fold, torch.tensor([2.0, 4.0]), make_layout(2), torch.float32)
    assert weights["v.weight"].tolist() == weights["add_v.weight"].tolist() == [[0.5] * 2, [0.25] * 2]
    assert weights["v.bias"].tolist() == [0.5, 0.25]
    assert weights["o.weight"].tolist() == weights["add_o.weight"].tolist() == [[2.0, 4.0]] * 2


@pytest.mark.parametrize(
    ("name", "rows", "channel"),
    [
        ("list_first_half", [0, 1, 2], [0, 1, 2]),
        ("list_second_half", [3, 4, 5], [0, 1, 2]),
        ("list_attention_values", [0, 1], [0, 1, NOT_SCALED]),
        ("list_fused_values", [4, 5, 7], [0, 1, 2]),  # queries 0-1, keys 2-3, values 4-5, gate 6, what it multiplies 7
    ],
)
def test_channels_of_linears_that_make_more_than_values(name: str, rows: list[int], channel: list[int]) -> None:
    fold = Fold("v", ("o",), "rows", channels=f"{DENOISER_FOLDS}:{name}")
    layout = find_layout(fold, {"num_attention_heads": 1, "attention_head_dim": 2}, 3)
    assert layout.rows.tolist() == rows
    assert layout.channel.tolist() == channel
    assert not fold.divides_one_output


def test_rows_that_nothing_scaled_reads_stay() -> None:
    weights = {"v.weight": torch.ones(4, 1), "v.bias": torch.ones(4), "o.weight": torch.ones(1, 3)}
    layout = ScaleLayout(torch.tensor([2, 3]), torch.tensor([0, 1, NOT_SCALED]))
    fold_scale(weights, Fold("v", ("o",), "rows"), torch.tensor([2.0, 4.0]), layout, torch.float32)
    assert weights["v.weight"].flatten().tolist() == weights["v.bias"].tolist() == [1, 1, 0.5, 0.25]
    assert weights["o.weight"].tolist() == [[2, 4, 1]]


def generate(folder: Path, fold_scales: bool) -> Tensor:
    """Final latents of two prompts, in float32, with random scales folded into every block or not."""
    pipeline = load_pipeline(folder, torch.float32)
    if fold_scales:
        fold_everything(pipeline, folder)
    prompts = [prompt.prompt for prompt in load_prompts(folder / "prompts" / "calibration.jsonl")[:2]]
    sampling = resolve_sampling(GenerationSettings(steps=4), folder)
    generators = [torch.Generator().manual_seed(i) for i in range(2)]
    with torch.no_grad():
        latents: Tensor = pipeline(
            prompts,
            height=sampling.height,
            width=sampling.width,
            num_inference_steps=sampling.steps,
            guidance_scale=0.0,
            generator=generators,
            output_type="latent",
        ).images
    return latents


def fold_everything(pipeline: object, folder: Path) -> None:
    generator = torch.Generator().manual_seed(5)
    for component in build_plan(folder, QuantizationSettings()).components:
        model = getattr(pipeline, component.name)
        if type(model).__name__ in dict(component.spec.weight_prefixes) and not hasattr(model, "layers"):
            model = model.base_model  # of one with a head
        for unit in component.blocks:
            block = model.get_submodule(unit.path)
            weights = {name: parameter.data for name, parameter in block.named_parameters()}
            for fold in unit.spec.folds:
                width = weights[f"{fold.linears[0]}.weight"].shape[1]
                layout = find_layout(fold, component.config, width)
                scale = torch.exp(torch.randn(len(layout.rows), generator=generator))
                fold_scale(weights, fold, scale, layout, torch.float32)
            for name, parameter in block.named_parameters():
                parameter.data = weights[name]


def check(folder: Path) -> None:
    plain, folded = generate(folder, fold_scales=False), generate(folder, fold_scales=True)
    deviation = ((plain - folded).norm() / plain.norm()).item()
    assert deviation < 2e-5, f"folding changed the latents by {deviation:.2e}"


def test_folding_changes_nothing_on_the_real_block_layout(tiny: Path) -> None:
    check(tiny)


@pytest.mark.slow
@pytest.mark.parametrize("name", [FLUX, SD3, SDXL, KLEIN, QWEN])
def test_folding_changes_nothing_in_other_families(name: str, tmp_path: Path) -> None:
    write_tiny_family(name, tmp_path)
    components = build_plan(tmp_path, QuantizationSettings()).components
    assert all(any(block.spec.folds for block in part.blocks) for part in components), "a component has no folds"
    latents, prompt = [], Prompt(id="p", prompt="a cat", language="en")
    pipeline, sampling = load_pipeline(tmp_path, torch.float32), SamplingParams(SIDE, SIDE, 2, 0.0)
    for folds in (False, True):
        if folds:
            fold_everything(pipeline, tmp_path)
        latents.append(generate_images(pipeline, [prompt], sampling, output_type="latent")[0])
    plain, folded = latents
    assert 0 < ((plain - folded).norm() / plain.norm()).item() < 2e-5  # rounding shows that scales were folded


@pytest.mark.slow
def test_folding_changes_nothing_on_the_demo() -> None:
    check(DEMO_PIPELINE)
