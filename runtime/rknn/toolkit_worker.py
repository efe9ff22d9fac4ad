"""Runs inside the environment of rknn-toolkit2, and imports nothing of edgepress.

Reads jobs from its input, one JSON object a line, and answers each with one JSON object a line to the descriptor that
is its one argument: what the job gives, or `error`. Its output and errors are the toolkit's log. Built models stay,
by name, because the toolkit simulates only what it built itself.
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys
from collections.abc import Callable
from contextlib import suppress
from json import dumps, loads
from pathlib import Path
from typing import Any

import numpy as np

EMPTY_FLOAT_LAYERS = "custom_quantize_layers: {}"  # of the toolkit's hybrid quantization
PR_SET_PDEATHSIG = 1  # prctl's PR_SET_PDEATHSIG


class ModelStore:
    """The models that were built, by name."""

    def __init__(self) -> None:
        self._built: dict[str, Any] = {}
        self._simulated: set[str] = set()

    def hello(self) -> dict[str, Any]:
        """Which toolkit this is."""
        from importlib.metadata import version

        import rknn.api  # noqa: F401  that it can be imported is what is asked

        return {"toolkit": version("rknn-toolkit2")}

    def build(
        self,
        model: str,
        onnx: str,
        config: dict[str, Any],
        dataset: str | None = None,
        float_layers: list[str] | None = None,
        rknn: str | None = None,
    ) -> dict[str, Any]:
        """Builds an ONNX file.

        Args:
            config: the toolkit's own settings.
            dataset: of samples, where the model is quantized.
            float_layers: outputs of layers that are not quantized though the others are.
            rknn: where the model is written to, if it is.
        """
        self.drop(model)
        built = _create_configured(config)
        _check_code("load_onnx", built.load_onnx(onnx))
        if float_layers:
            built = _build_hybrid(built, config, dataset, float_layers)
        else:
            _check_code("build", built.build(do_quantization=dataset is not None, dataset=dataset))
        if rknn:
            _check_code("export_rknn", built.export_rknn(rknn))
        self._built[model] = built
        return {}

    def run(self, model: str, inputs: str, outputs: str) -> dict[str, Any]:
        """Simulates a built model on the arrays of an .npz, which stand in the order of its inputs."""
        built = self._built[model]
        if model not in self._simulated:
            _check_code("init_runtime", built.init_runtime())
            self._simulated.add(model)
        with np.load(inputs) as stored:
            given = [stored[name] for name in stored.files]
        found = built.inference(inputs=given, data_format=["nchw"] * len(given))
        if not found:
            raise RuntimeError("the simulator answers nothing")
        np.savez(outputs, *(np.asarray(one, np.float32) for one in found))
        return {}

    def analyse(self, model: str, inputs: list[str], folder: str) -> dict[str, Any]:
        """Lays the toolkit's analysis of every layer's accuracy into a folder; inputs are .npy files."""
        _check_code("accuracy_analysis", self._built[model].accuracy_analysis(inputs=inputs, output_dir=folder))
        return {}

    def drop(self, model: str) -> dict[str, Any]:
        """Frees a model."""
        self._simulated.discard(model)
        built = self._built.pop(model, None)
        if built is not None:
            built.release()
        return {}


def _create_configured(config: dict[str, Any]) -> Any:
    from rknn.api import RKNN

    model = RKNN(verbose=True)
    _check_code("config", model.config(**config))
    return model


def _build_hybrid(first: Any, config: dict[str, Any], dataset: str | None, float_layers: list[str]) -> Any:
    """The toolkit's hybrid quantization: one object writes down how it would quantize, another builds by that."""
    _check_code("hybrid_quantization_step1", first.hybrid_quantization_step1(dataset=dataset))
    first.release()
    (settings,) = Path().glob("*.quantization.cfg")
    stem = settings.name.removesuffix(".quantization.cfg")
    said = settings.read_text("utf-8")
    if EMPTY_FLOAT_LAYERS not in said:
        raise RuntimeError(f"{settings.name} has no line '{EMPTY_FLOAT_LAYERS}'")
    # As text, for the toolkit refuses ranges that any YAML library has written again.
    listed = "".join(f"\n    {dumps(layer)}: float16" for layer in float_layers)
    settings.write_text(said.replace(EMPTY_FLOAT_LAYERS, EMPTY_FLOAT_LAYERS.removesuffix(" {}") + listed, 1), "utf-8")
    built = _create_configured(config)
    code = built.hybrid_quantization_step2(f"{stem}.model", f"{stem}.data", settings.name)
    for file in Path().glob(f"{stem}.*"):
        file.unlink()
    _check_code("hybrid_quantization_step2", code)
    return built


def _get_last_line(text: str) -> str:
    """Of a traceback, which the toolkit puts into its errors, what it is about."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return lines[-1] if lines else ""


def _check_code(call: str, code: Any) -> None:
    if code not in (0, None):
        raise RuntimeError(f"{call} returned {code}")


def serve(answers: Any) -> None:
    """Does the jobs of the standard input until it ends."""
    models = ModelStore()
    for line in sys.stdin:
        job = loads(line)
        do: Callable[..., dict[str, Any]] = getattr(models, job.pop("call"))
        try:
            answer = do(**job)
        except Exception as error:  # whatever the toolkit raises is an answer
            answer = {"error": _get_last_line(str(error)) or type(error).__name__}
        sys.stdout.flush()
        ctypes.CDLL(None).fflush(None)  # what the toolkit's own code has said is in C's buffers still
        answers.write(dumps(answer) + "\n")
        answers.flush()


if __name__ == "__main__":
    with suppress(AttributeError, OSError):
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    with os.fdopen(int(sys.argv[1]), "w") as stream:
        serve(stream)
