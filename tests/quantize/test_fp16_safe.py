"""A pipeline whose activations float16 cannot hold, pressed with and without powers of two folded into it."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import torch
from click.testing import CliRunner
from helpers.tiny import IMAGE_SIZE, edit_weights
from safetensors.torch import load_file
from torch import Tensor

import edgepress.loading  # noqa: F401  registers the loader
from edgepress.cli.main import main
from edgepress.pipelines.sampling import SamplingParams, generate_images, load_pipeline
from edgepress.prompts.prompt import load_prompts
from edgepress.quantize.pipeline import QuantizeResult, quantize_pipeline
from edgepress.recipes.schema import Recipe

# The norms after queries and keys, attention and feed-forward cancel these.
DIT = {"to_q": 18, "to_k": 18, "to_v": 9, "to_out.0": 12, "w3": 10, "w2": 12}
# What enters at values and up-projections leaves at the linear that comes next.
TEXT = {"q_proj": 18, "k_proj": 18, "v_proj": 18, "o_proj": -18, "up_proj": 18, "down_proj": -18}


Run = Callable[[Path, "Call", torch.dtype], Tensor]


def scale_weights(component: Path, exponents: dict[str, int]) -> None:
    """Multiplies the weights of all linears so named by powers of two."""
    with edit_weights(component) as tensors:
        for name, tensor in tensors.items():
            for linear, exponent in exponents.items():
                if name.endswith(f".{linear}.weight"):
                    tensor *= 2.0**exponent


@pytest.fixture(scope="module")
def sound(tiny: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny pipeline; its text encoder's small weights are brought to a size that stays in float16 when divided."""
    folder = tmp_path_factory.mktemp("sound") / "pipeline"
    shutil.copytree(tiny, folder)
    scale_weights(folder / "text_encoder", {"o_proj": 6, "down_proj": 6})
    return folder


@pytest.fixture(scope="module")
def loud(sound: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same, rescaled."""
    folder = tmp_path_factory.mktemp("loud") / "pipeline"
    shutil.copytree(sound, folder)
    scale_weights(folder / "transformer", DIT)
    scale_weights(folder / "text_encoder", TEXT)
    return folder


def press_loud(loud: Path, output: Path, method: str, safe: bool) -> QuantizeResult:
    quantize = {"method": method, "fp16_safe": safe}
    recipe = {"device": "test", "quantize": quantize, "calibration": {"count": 2, "steps": 2}}
    pressed = quantize_pipeline(Recipe.model_validate(recipe), loud, output)
    assert pressed.manifest.fp16_overflows == []
    return pressed


@pytest.fixture(scope="module")
def unsafe(loud: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return press_loud(loud, tmp_path_factory.mktemp("unsafe"), "rtn", safe=False).output / "model"


@pytest.fixture(scope="module")
def safe_rounded(loud: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return press_loud(loud, tmp_path_factory.mktemp("safe"), "rtn", safe=True).output / "model"


@pytest.fixture(scope="module", params=["rtn", "awq", "best"])
def safe(
    loud: Path, safe_rounded: Path, tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest
) -> Path:
    if request.param == "rtn":
        return safe_rounded
    return press_loud(loud, tmp_path_factory.mktemp("safe"), request.param, safe=True).output / "model"


@dataclass
class Call:
    """What the reference gives its text encoder, and in its first step the denoiser, for prompts of the calibration."""

    texts: dict[str, Tensor] = field(default_factory=dict)
    step: tuple[Any, ...] = ()


@pytest.fixture(scope="module")
def call(sound: Path) -> Call:
    found = Call()

    def keep_texts(_: Any, __: Any, kwargs: Any) -> None:
        found.texts = {name: kwargs[name] for name in ("input_ids", "attention_mask")}

    def keep_step(_: Any, args: Any) -> None:
        found.step = args

    pipeline = load_pipeline(sound, torch.float32)
    pipeline.text_encoder.register_forward_pre_hook(keep_texts, with_kwargs=True)
    pipeline.transformer.register_forward_pre_hook(keep_step)
    prompts = load_prompts(sound / "prompts" / "calibration.jsonl")[:2]
    generate_images(pipeline, prompts, SamplingParams(IMAGE_SIZE, IMAGE_SIZE, 1, 0.0), output_type="latent")
    return found


def denoised(folder: Path, call: Call, dtype: torch.dtype) -> Tensor:
    from diffusers import ZImageTransformer2DModel

    model = ZImageTransformer2DModel.from_pretrained(folder / "transformer", torch_dtype=dtype).eval()
    latents, timestep, texts = call.step
    with torch.no_grad():
        out = model([x.to(dtype) for x in latents], timestep, [text.to(dtype) for text in texts], return_dict=False)[0]
    return torch.stack(out).float()


def read(folder: Path, call: Call, dtype: torch.dtype) -> Tensor:
    """What the pipeline reads of the text encoder."""
    from transformers import Qwen3Model

    model = Qwen3Model.from_pretrained(folder / "text_encoder", dtype=dtype).eval()
    with torch.no_grad():
        states: Tensor = model(**call.texts, output_hidden_states=True).hidden_states[-2]
    return states[call.texts["attention_mask"]].float()


def difference(found: Tensor, expected: Tensor) -> float:
    """Relative to what is expected; infinite where anything is not finite."""
    return float((found - expected).norm() / expected.norm()) if found.isfinite().all() else float("inf")


both = pytest.mark.parametrize("run", [denoised, read])


@both
@pytest.mark.parametrize(("dtype", "limit"), [(torch.float32, 1e-3), (torch.bfloat16, 3e-2)], ids=str)
def test_rescaling_changes_no_output_but_in_float16(
    sound: Path, loud: Path, call: Call, run: Run, dtype: torch.dtype, limit: float
) -> None:
    assert difference(run(loud, call, dtype), run(sound, call, dtype)) < limit
    assert not run(loud, call, torch.float16).isfinite().all()
    assert run(sound, call, torch.float16).isfinite().all()


@both
def test_without_it_float16_overflows(unsafe: Path, call: Call, run: Run) -> None:
    assert not run(unsafe, call, torch.float16).isfinite().all()
    assert run(unsafe, call, torch.float32).isfinite().all()


@both
def test_with_it_float16_computes_what_float32_does(sound: Path, safe: Path, call: Call, run: Run) -> None:
    """The same artifact in both, and near the original pipeline as far as 4 bits go."""
    exact = run(safe, call, torch.float32)
    assert difference(run(safe, call, torch.float16), exact) < 1e-2
    assert difference(exact, run(sound, call, torch.float32)) < 0.3


@both
def test_it_changes_no_code(unsafe: Path, safe_rounded: Path, call: Call, run: Run) -> None:
    """Only scales: in float32 both artifacts compute the same, but for what a norm adds to the variance."""
    assert difference(run(safe_rounded, call, torch.float32), run(unsafe, call, torch.float32)) < 1e-3
    for component in ("transformer", "text_encoder"):
        plain, divided = (
            load_file(next((folder / component).glob("*.safetensors"))) for folder in (unsafe, safe_rounded)
        )
        assert plain.keys() == divided.keys()
        differing = {name.rsplit(".", 1)[1] for name in plain if not torch.equal(plain[name], divided[name])}
        assert differing == {"scales"}


def test_what_cannot_be_helped_is_told(tiny: Path, tmp_path: Path) -> None:
    """Between blocks nothing can be divided: the states themselves are too large."""
    source, recipe = tmp_path / "pipeline", tmp_path / "recipe.yaml"
    shutil.copytree(tiny, source)
    with edit_weights(source / "text_encoder") as tensors:
        tensors["embed_tokens.weight"] *= 2.0**24
    for safe, told in (("true", 2), ("false", 0)):
        recipe.write_text(
            f"device: test\nquantize: {{method: rtn, components: [text_encoder], fp16_safe: {safe}}}\n"
            "calibration: {count: 1, steps: 1}\n"
        )
        words = ["quantize", "--recipe", recipe, "--model", source, "--output", tmp_path / safe]
        result = CliRunner().invoke(main, [str(word) for word in words])
        assert result.exit_code == 0, result.output
        said = [f"float16 cannot hold text_encoder.layers.{layer} in calibration" in result.stdout for layer in (0, 1)]
        assert sum(said) == told
