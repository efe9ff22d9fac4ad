"""The worker: runs in the environment of rknn-toolkit2, and imports nothing of edgepress.

It reads jobs from its standard input, a JSON object per line, and writes the reply to each, a JSON object per line, to
the file descriptor in its only argument: the result, or `error`. Its standard output and error are the toolkit's log.
Built models stay in memory by name, because the toolkit simulates only what it built itself.
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

EMPTY_FLOAT_LAYERS = "custom_quantize_layers: {}"  # in the settings of the toolkit's hybrid quantization
PR_SET_PDEATHSIG = 1  # of prctl(2): the signal that this process gets when its parent dies


class ModelStore:
    """The built models, by name. Every public method is a job; what it returns is the reply."""

    def __init__(self) -> None:
        self._models: dict[str, Any] = {}
        self._simulated: set[str] = set()

    def version(self) -> dict[str, Any]:
        """Returns the version of the toolkit."""
        from importlib.metadata import version

        import rknn.api  # noqa: F401  fails if the toolkit cannot be imported

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
            model: Name to store the model under.
            onnx: Path of the ONNX file.
            config: The toolkit's settings.
            dataset: Path of the list of calibration samples; None: the model is not quantized.
            float_layers: Outputs of the layers that are not quantized.
            rknn: Path the model is written to; None: it is not written.
        """
        self.release(model)
        rknn_model = _create_configured(config)
        _check_code("load_onnx", rknn_model.load_onnx(onnx))
        if float_layers:
            rknn_model = _build_hybrid(rknn_model, config, dataset, float_layers)
        else:
            _check_code("build", rknn_model.build(do_quantization=dataset is not None, dataset=dataset))
        if rknn:
            _check_code("export_rknn", rknn_model.export_rknn(rknn))
        self._models[model] = rknn_model
        return {}

    def run(self, model: str, inputs: str, outputs: str) -> dict[str, Any]:
        """Simulates a built model.

        Args:
            model: Name of the model.
            inputs: Path of an .npz file with the inputs in the model's order.
            outputs: Path of the .npz file that the outputs are written to.
        """
        rknn_model = self._models[model]
        if model not in self._simulated:
            _check_code("init_runtime", rknn_model.init_runtime())
            self._simulated.add(model)
        with np.load(inputs) as file:
            arrays = [file[name] for name in file.files]
        results = rknn_model.inference(inputs=arrays, data_format=["nchw"] * len(arrays))
        if not results:
            raise RuntimeError("the simulator returned no output")
        np.savez(outputs, *(np.asarray(result, np.float32) for result in results))
        return {}

    def analyze(self, model: str, inputs: list[str], folder: str) -> dict[str, Any]:
        """Writes the toolkit's analysis of the accuracy of every layer.

        Args:
            model: Name of the model.
            inputs: Paths of .npy files with the inputs in the model's order.
            folder: Folder to write to.
        """
        _check_code("accuracy_analysis", self._models[model].accuracy_analysis(inputs=inputs, output_dir=folder))
        return {}

    def release(self, model: str) -> dict[str, Any]:
        """Frees a model, if there is one of that name."""
        self._simulated.discard(model)
        rknn_model = self._models.pop(model, None)
        if rknn_model is not None:
            rknn_model.release()
        return {}


def _create_configured(config: dict[str, Any]) -> Any:
    from rknn.api import RKNN

    model = RKNN(verbose=True)
    _check_code("config", model.config(**config))
    return model


def _build_hybrid(first: Any, config: dict[str, Any], dataset: str | None, float_layers: list[str]) -> Any:
    """Builds with the toolkit's hybrid quantization: one object writes its settings, another builds by them."""
    _check_code("hybrid_quantization_step1", first.hybrid_quantization_step1(dataset=dataset))
    first.release()
    (settings,) = Path().glob("*.quantization.cfg")
    stem = settings.name.removesuffix(".quantization.cfg")
    text = settings.read_text("utf-8")
    if EMPTY_FLOAT_LAYERS not in text:
        raise RuntimeError(f"{settings.name} has no line '{EMPTY_FLOAT_LAYERS}'")
    # Edited as text, because the toolkit rejects ranges that a YAML library has written.
    lines = "".join(f"\n    {dumps(layer)}: float16" for layer in float_layers)
    settings.write_text(text.replace(EMPTY_FLOAT_LAYERS, EMPTY_FLOAT_LAYERS.removesuffix(" {}") + lines, 1), "utf-8")
    rknn_model = _create_configured(config)
    code = rknn_model.hybrid_quantization_step2(f"{stem}.model", f"{stem}.data", settings.name)
    for file in Path().glob(f"{stem}.*"):
        file.unlink()
    _check_code("hybrid_quantization_step2", code)
    return rknn_model


def _get_last_line(text: str) -> str:
    """Returns the last line of a traceback, which the toolkit puts into the text of its errors."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return lines[-1] if lines else ""


def _check_code(call: str, code: Any) -> None:
    if code not in (0, None):
        raise RuntimeError(f"{call} returned {code}")


def serve(replies: Any) -> None:
    """Runs the jobs on the standard input until it ends."""
    models = ModelStore()
    for line in sys.stdin:
        job = loads(line)
        method: Callable[..., dict[str, Any]] = getattr(models, job.pop("call"))
        try:
            reply = method(**job)
        except Exception as error:  # whatever the toolkit raises is a reply
            reply = {"error": _get_last_line(str(error)) or type(error).__name__}
        sys.stdout.flush()
        ctypes.CDLL(None).fflush(None)  # the toolkit's native code logs through C's buffers
        replies.write(dumps(reply) + "\n")
        replies.flush()


if __name__ == "__main__":
    with suppress(AttributeError, OSError):
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    with os.fdopen(int(sys.argv[1]), "w") as stream:
        serve(stream)
