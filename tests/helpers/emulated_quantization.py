"""Quantizes a pipeline on the processor and on the emulated device, and prints what came of both as JSON.

Argument: a folder to write to. It is a program since the device is registered for a whole process.
"""

from __future__ import annotations

import hashlib
import json
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
from torch.nn.attention import SDPBackend, sdpa_kernel

from edgepress.common.errors import UserError
from edgepress.common.progress import no_progress
from edgepress.quantize import matmul_dtype, run
from edgepress.quantize.calibration import collector
from edgepress.quantize.pipeline import quantize_pipeline
from edgepress.quantize.result import QuantizeResult
from edgepress.quantize.tuning import end_to_end, stage, trainer
from edgepress.recipes.schema import GenerationSettings, QuantizationSettings, Recipe
from helpers.emulated_device import EmulatedModule, register
from helpers.tiny import write_tiny_pipeline, write_tiny_prompts

W8A8 = {"bits": 8, "group_size": "channel", "symmetric": True, "narrow_range": True, "activations": "static"}
SCHEMES = {"narrow": {"group_size": 32, "symmetric": True, "narrow_range": True}, "w8a8": W8A8}
SETTINGS: Mapping[str, dict[str, Any]] = {
    "steps": {"method": "awq", "scheme": {"group_size": 64}, "extra_schemes": SCHEMES},
    "best": {"method": "best", "scheme": {"group_size": 64}, "fp16_safe": True, "components": ["transformer"]},
    "tuned": {"method": "rtn", "scheme": {"group_size": 64}, "extra_schemes": {"w8a8": W8A8}, "tune": 0.0003},
    "blocks": {"method": "rtn", "scheme": {"group_size": 64}, "tune": 0.00005},
    "budget": {"method": "rtn", "budget": "6.5bpw"},
}


class StoppedError(Exception):
    """Ends a run in the middle."""


def quantize(name: str, source: Path, output: Path, device: str, progress: Any = no_progress) -> QuantizeResult:
    stage.MAX_PARAMETERS = 0 if name == "blocks" else 5 * 10**7
    recipe = Recipe(
        device="test",
        quantize=QuantizationSettings.model_validate(SETTINGS[name]),
        calibration=GenerationSettings(count=2, steps=2),
    )
    return quantize_pipeline(recipe, source, output, device=device, progress=progress)


def hash_model(result: QuantizeResult) -> str:
    digest = hashlib.sha256()
    for file in sorted(path for path in result.model.rglob("*") if path.is_file()):
        digest.update(f"{file.relative_to(result.model)}\n".encode() + file.read_bytes())
    return digest.hexdigest()


def describe(result: QuantizeResult) -> dict[str, Any]:
    return {"sha256": hash_model(result), "manifest": result.manifest.model_dump(mode="json")}


def resume(source: Path, output: Path) -> QuantizeResult:
    """Quantizes in several runs, each of which is stopped after more than the one before."""
    collector.SAVE_INTERVAL_S = trainer.SAVE_INTERVAL_S = 0.0
    for stop in (("calibrating on images", 2), ("quantizing", 1), ("tuning transformer", 1)):

        def progress(name: str, done: int, _: int, stop: tuple[str, int] = stop) -> None:
            if (name, done) == stop:
                raise StoppedError

        try:
            quantize("tuned", source, output, "auto", progress)
        except StoppedError:
            continue
        raise AssertionError(f"there was no {stop}")
    return quantize("tuned", source, output, "auto")


def explain(call: Callable[[], object]) -> str:
    try:
        call()
    except UserError as error:
        return str(error)
    return ""


def fill_memory(name: str, _: int, __: int) -> None:
    if name == "quantizing":
        raise torch.OutOfMemoryError


def main(folder: Path) -> None:
    source = folder / "pipeline"
    write_tiny_pipeline(source, refiners=0, heads=1)
    write_tiny_prompts(source)
    device = register()
    matmul_dtype.read_cpu_features = lambda: SimpleNamespace(has_bf16_products=False)  # type: ignore[attr-defined]
    end_to_end.RATE = 5e-4  # low enough for random weights
    report: dict[str, Any] = {}
    with sdpa_kernel(SDPBackend.MATH):  # the processor has a kernel of its own, which rounds otherwise
        report["cpu"] = {name: describe(quantize(name, source, folder / f"{name}-cpu", "cpu")) for name in SETTINGS}
        run.resolve_device = lambda name: torch.device("cpu") if name == "cpu" else device
        for name in SETTINGS:
            report.setdefault("emulated", {})[name] = describe(quantize(name, source, folder / name, "auto"))
        report["resumed"] = hash_model(resume(source, folder / "resumed"))
        report["other device"] = explain(lambda: quantize("best", source, folder / "best", "cpu"))
        report["full"] = explain(lambda: quantize("budget", source, folder / "full", "auto", fill_memory))
        EmulatedModule.free = 2**20
        report["small"] = explain(lambda: quantize("budget", source, folder / "small", "auto"))
    try:
        torch.ones(2, device=device) + torch.ones(2)
    except RuntimeError as error:
        report["mixed"] = str(error)
    sys.stdout.write(json.dumps(report))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
