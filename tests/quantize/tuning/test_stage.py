"""Tuning a pipeline: same size, same bytes whenever it is interrupted, and every scheme has its floats."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from edgepress.common.errors import UserError
from edgepress.export.graph.source_model import open_source
from edgepress.export.verification.golden import TorchReference
from edgepress.quantize.pipeline import quantize_pipeline
from edgepress.quantize.result import QuantizeResult
from edgepress.quantize.tuning import blocks, budget, end_to_end
from edgepress.quantize.tuning import stage as stage_module
from edgepress.recipes.schema import GenerationSettings, QuantizationSettings, Recipe

SCHEMES = {
    "qdq": {"group_size": 32, "symmetric": True},
    "w8a8": {"bits": 8, "group_size": "channel", "symmetric": True, "narrow_range": True, "activations": "dynamic"},
}
MINUTES = 0.015  # a few steps
WEIGHTS = "transformer/diffusion_pytorch_model.safetensors"


def make_recipe(tune: Any, extra_schemes: dict[str, Any], **quantize: Any) -> Recipe:
    settings = {"method": "rtn", "scheme": {"group_size": 32}, "tune": tune, "extra_schemes": extra_schemes} | quantize
    return Recipe(
        device="test",
        quantize=QuantizationSettings.model_validate(settings),
        calibration=GenerationSettings(count=1, steps=1),
    )


@pytest.fixture(scope="module")
def plain(lean: Path, tmp_path_factory: pytest.TempPathFactory) -> QuantizeResult:
    return quantize_pipeline(make_recipe("off", SCHEMES), lean, tmp_path_factory.mktemp("plain"))


@pytest.fixture(scope="module")
def tuned(lean: Path, tmp_path_factory: pytest.TempPathFactory) -> QuantizeResult:
    """Tuned at a rate that is low enough for random weights."""
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(end_to_end, "RATE", 5e-4)
        return quantize_pipeline(make_recipe(MINUTES, SCHEMES), lean, tmp_path_factory.mktemp("tuned"))


def load(result: QuantizeResult, scheme: str = "") -> dict[str, Tensor]:
    return load_file(result.model / ("solutions" if scheme else "") / scheme / WEIGHTS)


def hash_model(folder: Path) -> dict[str, str]:
    files = [path for path in sorted(folder.rglob("*")) if path.is_file()]
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def test_the_record_says_what_was_done(tuned: QuantizeResult) -> None:
    records = tuned.manifest.tuning["transformer"]
    assert set(records) == {"model", *SCHEMES}
    for record in records.values():
        assert (record.prompts, record.validation_prompts) == (2, 1)
        assert (record.samples, record.validation_samples) == (6, 1)  # with three seeds, and one
        assert record.validation_after <= record.validation_before
        assert record.steps >= 1


def test_zero_points_and_sizes_stay_as_they_are(plain: QuantizeResult, tuned: QuantizeResult) -> None:
    before, after = load(plain), load(tuned)
    assert before.keys() == after.keys()
    for name, tensor in before.items():
        assert (tensor.shape, tensor.dtype) == (after[name].shape, after[name].dtype), name
        if name.endswith("qzeros"):
            assert torch.equal(tensor, after[name])
    assert tuned.manifest.sizes["transformer"] == plain.manifest.sizes["transformer"]
    changed = [name for name, tensor in before.items() if not torch.equal(tensor, after[name])]
    assert any(name.endswith(".scales") for name in changed)
    assert any(not name.endswith(".scales") for name in changed)


def test_other_schemes_have_floats_of_their_own(plain: QuantizeResult, tuned: QuantizeResult) -> None:
    """Those of one scheme are not right for another."""
    for scheme in SCHEMES:
        before, after = load(plain, scheme), load(tuned, scheme)
        assert before.keys() < after.keys()
        assert not any(name.endswith("qweight") for name in after.keys() - before.keys())
    eight_bits = [name for name in load(plain, "w8a8") if name.endswith("qweight")]
    assert all(torch.equal(load(plain, "w8a8")[name], load(tuned, "w8a8")[name]) for name in eight_bits)
    original = load(plain)
    assert any(
        not torch.equal(tensor, original[name]) for name, tensor in load(tuned, "qdq").items() if name in original
    )


def test_what_validation_measured_is_what_readers_load(tuned: QuantizeResult) -> None:
    """The solution of qdq, loaded over the model as exports load it, has the tuned tensors everywhere."""
    source = open_source(tuned.output)
    solution = source.find_symmetric_solution("transformer")
    assert solution is not None
    module = TorchReference(tuned.model, source.family, {"transformer": solution}).load_component("transformer")
    state = module.state_dict()
    for name, tensor in load(tuned, "qdq").items():
        assert torch.equal(state[name].to(tensor.dtype), tensor), name


@pytest.fixture
def two_threads() -> Iterator[None]:
    """PyTorch computes with two threads, and after an error in tuning still does."""
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    assert torch.get_num_threads() == 2
    torch.set_num_threads(before)


def interrupt(recipe: Recipe, source: Path, output: Path, stage: str, step: int) -> None:
    """Quantizes until a stage has taken a step."""

    def report(current: str, done: int, _: int, /) -> None:
        if (current, done) == (stage, step):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        quantize_pipeline(recipe, source, output, progress=report)


def test_the_same_bytes_with_more_threads_and_after_an_interruption(
    lean: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest
) -> None:
    recipe = make_recipe(0.003, {}, components=["transformer"])
    whole = quantize_pipeline(recipe, lean, tmp_path / "whole")
    request.getfixturevalue("two_threads")
    monkeypatch.setattr("edgepress.quantize.tuning.trainer.SAVE_INTERVAL_S", 0)
    interrupt(recipe, lean, tmp_path / "killed", "tuning transformer", 2)
    assert list((tmp_path / "killed" / ".work").rglob("*-state.safetensors"))
    resumed = quantize_pipeline(recipe, lean, tmp_path / "killed")
    assert hash_model(resumed.model) == hash_model(whole.model)


def test_a_large_denoiser_is_tuned_block_by_block(
    tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest
) -> None:
    """With the same bytes with more threads, and after an interruption anywhere."""
    monkeypatch.setattr(stage_module, "MAX_PARAMETERS", 10**4)
    monkeypatch.setattr(blocks, "RATE", 1e-4)
    monkeypatch.setattr(budget, "MAX_BLOCK_IMAGES", 3)
    recipe = make_recipe(0.005, {}, components=["transformer"])
    whole = quantize_pipeline(recipe, tiny, tmp_path / "whole")
    record = whole.manifest.tuning["transformer"]["model"]
    assert record.validation_after < record.validation_before
    assert (record.prompts, record.validation_prompts) == (2, 1)
    request.getfixturevalue("two_threads")
    monkeypatch.setattr("edgepress.quantize.tuning.trainer.SAVE_INTERVAL_S", 0)
    interrupt(recipe, tiny, tmp_path / "killed", "tuning: reference", 1)
    interrupt(recipe, tiny, tmp_path / "killed", "tuning transformer", record.steps // 2)
    resumed = quantize_pipeline(recipe, tiny, tmp_path / "killed")
    assert hash_model(resumed.model) == hash_model(whole.model)


def test_a_large_denoiser_is_left_as_it_is_by_auto(
    lean: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(stage_module, "MAX_PARAMETERS", 10**4)
    result = quantize_pipeline(make_recipe("auto", {}, components=["transformer"]), lean, tmp_path / "out")
    assert result.manifest.tuning == {}
    assert "transformer is not tuned: it would take more than 30 minutes" in caplog.text


def test_without_a_quantized_denoiser_there_is_nothing_to_tune(lean: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no denoiser is quantized"):
        quantize_pipeline(make_recipe(5, {}, components=["text_encoder"]), lean, tmp_path / "out")
