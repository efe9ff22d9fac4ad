"""Quantizes one tiny pipeline with each method, opens the result with diffusers, and evaluates it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import chdir
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from ...api.functions import evaluate
from ...evaluate.results.schema import Results
from ...numerics.affine import dequantize
from ...numerics.awq_packing import AwqTensors, unpack_awq
from ...pipelines.families import find_family
from ...pipelines.sampling import SamplingParams, generate_images, load_pipeline
from ...prompts.prompt import Prompt
from ...quantize.pipeline import quantize_pipeline
from ...quantize.result import QuantizeResult
from ...recipes.schema import EvaluationSettings, GenerationSettings, QuantizationSettings, Recipe
from ..synthetic.tiny_pipelines import SIDE, write_tiny_pipeline

COLUMNS = ("tiny pipeline", "loads", "quantizes (rtn)", "quantizes (best)", "reopens equal", "evaluates")
METHODS = ("rtn", "best")
STEPS = 2
TOLERANCE = 1e-3  # of the largest latent: products with packed and with dequantized weights are summed in other orders
MAX_REASON = 140
PROMPT = Prompt(id="a cat", prompt="a cat", language="en")


@dataclass
class Trial:
    """What became of one class.

    Attributes:
        name: The pipeline class.
        reasons: For each column that was reached, why it failed; empty if it worked.
        layers: Number of quantized layers.
        ratio: Mean relative output error of the layers with `best`, over that with `rtn`.
    """

    name: str
    reasons: dict[str, str] = field(default_factory=dict)
    layers: int = 0
    ratio: float | None = None

    def attempt(self, column: str, work: Callable[[], Any]) -> Any:
        """Does a column's work, unless an earlier one failed."""
        if any(self.reasons.values()):
            return None
        try:
            result = work()
        except Exception as error:  # whatever a class of diffusers raises is the entry of the table
            text = " ".join(str(error).split()) or type(error).__name__
            self.reasons[column] = text if len(text) <= MAX_REASON else f"{text[: MAX_REASON - 1]}…"
            return None
        self.reasons[column] = ""
        return result


def run_trial(name: str, folder: Path) -> Trial:
    """Runs all columns of a class.

    Args:
        name: A pipeline class of diffusers.
        folder: An empty folder for everything that is written.
    """
    trial, source = Trial(name), folder / "source"
    trial.attempt("tiny pipeline", lambda: write_tiny_pipeline(name, source))
    trial.attempt("loads", lambda: _load_and_generate(source))
    results = {
        method: trial.attempt(f"quantizes ({method})", partial(_quantize, source, folder, method)) for method in METHODS
    }
    if all(results.values()):
        best, rtn = ([layer.error for layer in results[method].layers()] for method in ("best", "rtn"))
        trial.layers, trial.ratio = len(best), sum(best) / sum(rtn) if sum(rtn) else None
    trial.attempt("reopens equal", lambda: _compare_reopened(source, folder / "best" / "model"))
    trial.attempt("evaluates", lambda: _evaluate(source, folder))
    return trial


def _sampling() -> SamplingParams:
    return SamplingParams(height=SIDE, width=SIDE, steps=STEPS, guidance=0.0)


def _load_and_generate(source: Path) -> None:
    find_family(source)
    generate_images(load_pipeline(source, torch.float32), [PROMPT], _sampling())


def _quantize(source: Path, folder: Path, method: str) -> QuantizeResult:
    recipe = Recipe.model_validate(
        {
            "device": "test",
            "quantize": QuantizationSettings.model_validate({"method": method}),
            "calibration": GenerationSettings(count=1, steps=STEPS, size=(SIDE, SIDE)),
        }
    )
    result = quantize_pipeline(recipe, source, folder / method)
    if not any(not layer.stays_float for layer in result.layers()):
        raise ValueError("no layer was quantized")
    return result


def _compare_reopened(source: Path, model: Path) -> None:
    """Compares latents of the opened model with those of the original with the stored weights in place of its own.

    Those are dequantized; biases of quantized layers take over the mean of their errors.
    """
    expected = load_pipeline(source, torch.float32)
    for component, path, weight, bias in _iterate_quantized(model):
        linear = getattr(expected, component).get_submodule(path)
        linear.weight = nn.Parameter(weight)
        if bias is not None:
            linear.bias = nn.Parameter(bias)
    reopened = load_pipeline(model, torch.float32)
    latents, originals = (_generate_latents(pipeline) for pipeline in (reopened, expected))
    error, limit = float((latents - originals).abs().max()), TOLERANCE * float(originals.abs().max())
    if not error <= limit:
        raise ValueError(f"latents differ by {error:.2g}, more than {limit:.2g}")


def _generate_latents(pipeline: Any) -> Tensor:
    latents: Any = generate_images(pipeline, [PROMPT], _sampling(), output_type="latent")[0]
    return torch.as_tensor(latents)


def _iterate_quantized(model: Path) -> Iterator[tuple[str, str, Tensor, Tensor | None]]:
    """Yields component, path, dequantized weight and bias, if it has one, of every quantized layer."""
    for file in sorted(model.glob("*/*.safetensors")):
        tensors = load_file(file)
        for name in [name for name in tensors if name.endswith(".qweight")]:
            path = name.removesuffix(".qweight")
            packed = AwqTensors(*(tensors[f"{path}.{kind}"] for kind in AwqTensors._fields))
            yield file.parent.name, path, dequantize(unpack_awq(packed)), tensors.get(f"{path}.bias")


def _evaluate(source: Path, folder: Path) -> Results:
    recipe = Recipe(device="test", evaluation=EvaluationSettings(count=1, steps=STEPS, size=(SIDE, SIDE)))
    source, folder = source.resolve(), folder.resolve()
    with chdir(folder):  # whose caches end with it
        return evaluate(
            recipe,
            model=source,
            candidates=[folder / "best" / "model"],
            metrics=("psnr",),
            output=folder / "evaluation",
        )
