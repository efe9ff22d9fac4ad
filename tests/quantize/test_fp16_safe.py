"""A pipeline whose activations float16 cannot hold, quantized with and without powers of two folded into it."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch
from click.testing import CliRunner
from helpers.loud_pipeline import copy_enlarged, copy_rescaled
from helpers.tiny import IMAGE_SIZE, edit_weights
from safetensors.torch import load_file
from torch import Tensor

import edgepress.loading  # noqa: F401  registers the loader
from edgepress.cli.main import main
from edgepress.pipelines.sampling import SamplingParams, generate_images, load_pipeline
from edgepress.prompts.reader import load_prompts
from edgepress.quantize.pipeline import quantize_pipeline
from edgepress.quantize.result import QuantizeResult
from edgepress.recipes.schema import Recipe

Run = Callable[[Path, "Call", torch.dtype], Tensor]


@pytest.fixture(scope="module")
def original(tiny: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return copy_enlarged(tiny, tmp_path_factory.mktemp("original") / "pipeline")


@pytest.fixture(scope="module")
def loud(original: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return copy_rescaled(original, tmp_path_factory.mktemp("loud") / "pipeline")


def quantize_loud(loud: Path, output: Path, method: str, safe: bool) -> QuantizeResult:
    quantize = {"method": method, "fp16_safe": safe}
    recipe = {"device": "test", "quantize": quantize, "calibration": {"count": 2, "steps": 2}}
    result = quantize_pipeline(Recipe.model_validate(recipe), loud, output)
    assert result.manifest.fp16_overflows == []
    return result


@pytest.fixture(scope="module")
def unsafe(loud: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return quantize_loud(loud, tmp_path_factory.mktemp("unsafe"), "rtn", safe=False).model


@pytest.fixture(scope="module")
def safe_rounded(loud: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return quantize_loud(loud, tmp_path_factory.mktemp("safe"), "rtn", safe=True).model


@dataclass
class Call:
    """The inputs of the text encoder, and of the denoiser in its first step, for calibration prompts."""

    texts: dict[str, Tensor] = field(default_factory=dict)
    step: tuple[Any, ...] = ()


@pytest.fixture(scope="module")
def call(original: Path) -> Call:
    return record_call(original)


def record_call(original: Path) -> Call:
    call = Call()

    def record_texts(_: Any, __: Any, kwargs: Any) -> None:
        call.texts = {name: kwargs[name] for name in ("input_ids", "attention_mask")}

    def record_step(_: Any, args: Any) -> None:
        call.step = args

    pipeline = load_pipeline(original, torch.float32)
    pipeline.text_encoder.register_forward_pre_hook(record_texts, with_kwargs=True)
    pipeline.transformer.register_forward_pre_hook(record_step)
    prompts = load_prompts(original / "prompts" / "calibration.jsonl")[:2]
    generate_images(pipeline, prompts, SamplingParams(IMAGE_SIZE, IMAGE_SIZE, 1, 0.0), output_type="latent")
    return call


def denoise(folder: Path, call: Call, dtype: torch.dtype) -> Tensor:
    from diffusers import ZImageTransformer2DModel

    model = ZImageTransformer2DModel.from_pretrained(folder / "transformer", torch_dtype=dtype).eval()
    latents, timestep, texts = call.step
    with torch.no_grad():
        out = model([x.to(dtype) for x in latents], timestep, [text.to(dtype) for text in texts], return_dict=False)[0]
    return torch.stack(out).float()


def encode(folder: Path, call: Call, dtype: torch.dtype) -> Tensor:
    """The hidden states that the pipeline uses."""
    from transformers import Qwen3Model

    model = Qwen3Model.from_pretrained(folder / "text_encoder", dtype=dtype).eval()
    with torch.no_grad():
        states: Tensor = model(**call.texts, output_hidden_states=True).hidden_states[-2]
    return states[call.texts["attention_mask"]].float()


def compute_error(value: Tensor, expected: Tensor) -> float:
    """The relative error; infinite where anything is not finite."""
    return float((value - expected).norm() / expected.norm()) if value.isfinite().all() else float("inf")


both = pytest.mark.parametrize("run", [denoise, encode])


@both
@pytest.mark.parametrize(("dtype", "limit"), [(torch.float32, 1e-3), (torch.bfloat16, 3e-2)], ids=str)
def test_rescaling_changes_outputs_only_in_float16(
    original: Path, loud: Path, call: Call, run: Run, dtype: torch.dtype, limit: float
) -> None:
    assert compute_error(run(loud, call, dtype), run(original, call, dtype)) < limit
    assert not run(loud, call, torch.float16).isfinite().all()
    assert run(original, call, torch.float16).isfinite().all()


@both
def test_without_it_float16_overflows(unsafe: Path, call: Call, run: Run) -> None:
    assert not run(unsafe, call, torch.float16).isfinite().all()
    assert run(unsafe, call, torch.float32).isfinite().all()


class SafeArtifact(NamedTuple):
    """A pipeline, its call, and the rescaled one quantized with powers of two."""

    original: Path
    call: Call
    model: Path


@pytest.fixture(scope="module", params=["rtn", "awq"])
def safe(
    original: Path,
    loud: Path,
    call: Call,
    safe_rounded: Path,
    tmp_path_factory: pytest.TempPathFactory,
    request: pytest.FixtureRequest,
) -> SafeArtifact:
    if request.param == "rtn":
        return SafeArtifact(original, call, safe_rounded)
    model = quantize_loud(loud, tmp_path_factory.mktemp("safe"), request.param, safe=True).model
    return SafeArtifact(original, call, model)


@pytest.fixture(scope="module")
def safe_best(lean: Path, tmp_path_factory: pytest.TempPathFactory) -> SafeArtifact:
    """Of a single block, since `best` solves each several times; what is rescaled in it is the same."""
    folder = tmp_path_factory.mktemp("best")
    original = copy_enlarged(lean, folder / "original")
    loud = copy_rescaled(original, folder / "loud")
    return SafeArtifact(original, record_call(original), quantize_loud(loud, folder / "safe", "best", safe=True).model)


@both
def test_with_it_float16_computes_what_float32_does(safe: SafeArtifact, run: Run) -> None:
    """The same artifact in both, and as near to the original pipeline as 4 bits allow."""
    assert_equal_in_float16(safe, run)


@both
def test_with_it_float16_computes_what_float32_does_after_best(safe_best: SafeArtifact, run: Run) -> None:
    assert_equal_in_float16(safe_best, run)


def assert_equal_in_float16(safe: SafeArtifact, run: Run) -> None:
    original, call, model = safe
    exact = run(model, call, torch.float32)
    assert compute_error(run(model, call, torch.float16), exact) < 1e-2
    assert compute_error(exact, run(original, call, torch.float32)) < 0.3


@both
def test_it_changes_no_code(unsafe: Path, safe_rounded: Path, call: Call, run: Run) -> None:
    """Only scales: in float32 both artifacts compute the same, except for what a norm adds to the variance."""
    assert compute_error(run(safe_rounded, call, torch.float32), run(unsafe, call, torch.float32)) < 1e-3
    for component in ("transformer", "text_encoder"):
        plain, divided = (
            load_file(next((folder / component).glob("*.safetensors"))) for folder in (unsafe, safe_rounded)
        )
        assert plain.keys() == divided.keys()
        differing = {name.rsplit(".", 1)[1] for name in plain if not torch.equal(plain[name], divided[name])}
        assert differing == {"scales"}


def test_remaining_overflows_are_reported(tiny: Path, tmp_path: Path) -> None:
    """Nothing can be divided between blocks: the hidden states themselves are too large."""
    source, recipe = tmp_path / "pipeline", tmp_path / "recipe.yaml"
    shutil.copytree(tiny, source)
    with edit_weights(source / "text_encoder") as tensors:
        tensors["embed_tokens.weight"] *= 2.0**24
    for safe, expected in (("true", 2), ("false", 0)):
        recipe.write_text(
            f"device: test\nquantize: {{method: rtn, components: [text_encoder], fp16_safe: {safe}}}\n"
            "calibration: {count: 1, steps: 1}\n"
        )
        arguments = ["quantize", "--recipe", recipe, "--model", source, "--output", tmp_path / safe]
        result = CliRunner().invoke(main, [str(argument) for argument in arguments])
        assert result.exit_code == 0, result.output
        reported = [
            f"float16 cannot hold text_encoder.layers.{layer} in calibration" in result.stdout for layer in (0, 1)
        ]
        assert sum(reported) == expected
