"""Tries everything that edgepress does on one tiny pipeline: quantizes, opens, evaluates, exports and generates."""

from __future__ import annotations

import math
import subprocess
import sys
from collections.abc import Callable
from contextlib import chdir
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

import torch
from scipy.stats import t as student_t
from torch import Tensor

from ...api.functions import evaluate
from ...evaluate.results.schema import Results
from ...evaluate.stats.bootstrap import MeanCI
from ...export.onnx.exporter import ExportResult, export_onnx
from ...pipelines.families import find_family, is_described
from ...pipelines.sampling import SamplingParams, generate_images, load_pipeline
from ...prompts.prompt import Prompt
from ...quantize.pipeline import quantize_pipeline
from ...quantize.result import QuantizeResult
from ...recipes.schema import EvaluationSettings, GenerationSettings, QuantizationSettings, Recipe
from ..synthetic.tiny_pipelines import TEXTS, write_tiny_pipeline
from ..synthetic.tiny_sizes import SIDE
from .quantized_weights import take_over_weights
from .velocity_errors import measure_velocity_errors, record_velocities

BASE_METHOD, METHOD = "rtn", "best"
TINY, LOADS = "tiny pipeline", "loads"
QUANTIZES_BASE, QUANTIZES = f"quantizes ({BASE_METHOD})", f"quantizes ({METHOD})"
REOPENS, EVALUATES, COMPARES = "reopens equal", "evaluates", "compares errors"
EXPORTS, GENERATES = "exports ONNX", "generates without torch"
QUANTIZING = (TINY, LOADS, QUANTIZES_BASE, QUANTIZES, REOPENS, EVALUATES)
COLUMNS = (*QUANTIZING, COMPARES, EXPORTS, GENERATES)
STEPS = 2
GUIDANCE = 1.0  # off; some classes take no smaller one
TOLERANCE = 1e-3  # of the largest latent: products with packed and with dequantized weights are summed in other orders
MAX_REASON = 200
PROMPT = Prompt(id="a cat", prompt="a cat", language="en")
NUM_SOLVED = len(TEXTS) - 1  # images that layers are solved on; the last prompt is held out
# Prompts that calibration does not see. Their ids are seeds of noise.
EVALUATED = ("a red car", "snow", "a house by the sea", "an old map", "rain", "three apples", "my hand", "a dark road")
PROMPTS = [Prompt(id=text, prompt=text, language="en") for text in EVALUATED]
SIZES = ((SIDE, SIDE), (SIDE, 2 * SIDE))
WORKER = "edgepress.benchmarks.quantization.torchless_worker"
WORKER_TIMEOUT_S = 600


@dataclass
class Trial:
    """What became of one class.

    Attributes:
        name: The pipeline class.
        reasons: For each column that was reached, why it failed; empty if it worked.
        layers: Number of quantized layers.
        errors: Logarithm of the velocities' error with `best` over that with rounding to nearest: its mean over
            images, with an interval.
    """

    name: str
    reasons: dict[str, str] = field(default_factory=dict)
    layers: int = 0
    errors: MeanCI | None = None

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

    def works(self, *columns: str) -> bool:
        """Whether all of some columns worked."""
        return all(self.reasons.get(column) == "" for column in columns)


def run_trial(name: str, folder: Path) -> Trial:
    """Runs all columns of a class.

    Args:
        name: A pipeline class of diffusers.
        folder: An empty folder for everything that is written.
    """
    trial, source, model = Trial(name), folder / "source", folder / METHOD / "model"
    trial.attempt(TINY, lambda: write_tiny_pipeline(name, source))
    trial.attempt(LOADS, lambda: _load_and_generate(source))
    trial.attempt(QUANTIZES_BASE, partial(_quantize, source, folder, BASE_METHOD))
    result = trial.attempt(QUANTIZES, partial(_quantize, source, folder, METHOD))
    trial.layers = len(result.layers()) if result else 0
    trial.attempt(REOPENS, lambda: _compare_reopened(source, model))
    trial.attempt(EVALUATES, lambda: _evaluate(source, model, folder))
    trial.errors = trial.attempt(COMPARES, lambda: _compare_errors(source, folder / BASE_METHOD / "model", model))
    trial.attempt(EXPORTS, lambda: _export(model, folder / "exported"))
    trial.attempt(GENERATES, lambda: _generate_without_torch(folder / "exported"))
    return trial


def _sampling() -> SamplingParams:
    return SamplingParams(height=SIDE, width=SIDE, steps=STEPS, guidance=GUIDANCE)


def _load_and_generate(source: Path) -> None:
    find_family(source)
    generate_images(load_pipeline(source, torch.float32), [PROMPT], _sampling())


def _quantize(source: Path, folder: Path, method: str) -> QuantizeResult:
    recipe = Recipe.model_validate(
        {
            "device": "test",
            "quantize": QuantizationSettings.model_validate({"method": method}),
            "calibration": GenerationSettings(count=NUM_SOLVED, steps=STEPS, guidance=GUIDANCE, size=(SIDE, SIDE)),
        }
    )
    result = quantize_pipeline(recipe, source, folder / method)
    quantized = {layer.layer.partition(".")[0] for layer in result.layers() if not layer.stays_float}
    missing = [name for name in find_family(source).denoisers if name not in quantized and (source / name).is_dir()]
    if missing:
        raise ValueError(f"no layer of {', '.join(missing)} was quantized")
    return result


def _compare_reopened(source: Path, model: Path) -> None:
    """Compares latents of the opened model with those of the original with the stored weights in place of its own.

    Raises:
        ValueError: They differ.
    """
    pipeline = load_pipeline(source, torch.float32)
    take_over_weights(pipeline, model)
    expected = _generate_latents(pipeline)
    latents = _generate_latents(load_pipeline(model, torch.float32))
    error, limit = float((latents - expected).abs().max()), TOLERANCE * float(expected.abs().max())
    if not error <= limit:
        raise ValueError(f"latents differ by {error:.2g}, more than {limit:.2g}")


def _generate_latents(pipeline: Any) -> Tensor:
    latents: Any = generate_images(pipeline, [PROMPT], _sampling(), output_type="latent")
    return torch.as_tensor(latents[0]).double()


def _evaluate(source: Path, model: Path, folder: Path) -> Results:
    settings = EvaluationSettings(count=1, steps=STEPS, guidance=GUIDANCE, size=(SIDE, SIDE))
    recipe = Recipe(device="test", evaluation=settings)
    source, model, folder = source.resolve(), model.resolve(), folder.resolve()
    with chdir(folder):  # whose caches end with it
        return evaluate(recipe, model=source, candidates=[model], metrics=("psnr",), output=folder / "evaluation")


def _compare_errors(source: Path, base: Path, model: Path) -> MeanCI | None:
    """Compares the velocities' squared errors of two quantized models, each from the latents of the original.

    Returns:
        The mean logarithm of the ratio, with its interval by Student's t; None where nothing differs.

    Raises:
        ValueError: Velocities are not finite.
    """
    family = find_family(source)
    sizes = SIZES if is_described(family.pipeline_class) else SIZES[:1]
    settings = [replace(_sampling(), height=height, width=width) for height, width in sizes]
    calls, denoisers = [(prompt, sampling) for sampling in settings for prompt in PROMPTS], family.denoisers
    outputs = record_velocities(load_pipeline(source, torch.float32), denoisers, calls)
    base_errors, errors = (
        measure_velocity_errors(load_pipeline(folder, torch.float32), denoisers, calls, outputs)
        for folder in (base, model)
    )
    if not all(map(math.isfinite, base_errors + errors)):
        raise ValueError("velocities are not finite")
    if not all(base_errors) or not all(errors):
        return None
    ratios = [math.log(error / base) for error, base in zip(errors, base_errors, strict=True)]
    mean, half = fmean(ratios), student_t.ppf(0.975, len(ratios) - 1) * stdev(ratios) / math.sqrt(len(ratios))
    return MeanCI(mean=mean, low=mean - half, high=mean + half, count=len(ratios))


def _export(model: Path, output: Path) -> ExportResult:
    return export_onnx(model, output, precision="int4", sizes=[(SIDE, SIDE)])


def _generate_without_torch(artifact: Path) -> None:
    """Generates an image in a process where torch, diffusers and transformers cannot be imported.

    Raises:
        ValueError: It failed; with its reason.
    """
    command = [sys.executable, "-m", WORKER, str(artifact), PROMPT.prompt, str(SIDE), str(STEPS)]
    result = subprocess.run(command, capture_output=True, text=True, timeout=WORKER_TIMEOUT_S, check=False)
    if result.returncode:
        raise ValueError(result.stderr.strip().rpartition("\n")[2].removeprefix("edgepress.common.errors.UserError: "))
