"""Parts in the toolkit's simulator, which computes what the NPU would, as far as the vendor says so."""

from __future__ import annotations

from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...common.errors import UserError
from .exported import BuildConfig, ExportedPart, ExportedRknn
from .part_chain import Arrays
from .toolkit import Toolkit, ToolkitReply


def build_model(
    toolkit: Toolkit,
    name: str,
    onnx_file: Path,
    build_config: BuildConfig,
    samples_folder: Path,
    rknn_file: Path | None = None,
) -> ToolkitReply:
    """Builds a part under a name; `samples` is the folder of its calibration samples, where it is quantized.

    Raises:
        UserError: the toolkit refuses, or there are no samples.
    """
    dataset = _write_dataset(toolkit, samples_folder) if build_config.is_quantized else None
    return toolkit.call(
        "build",
        model=name,
        onnx=str(onnx_file.absolute()),
        config=dict(build_config.toolkit_config),
        dataset=dataset and str(dataset),
        float_layers=list(build_config.float_layers),
        rknn=rknn_file and str(rknn_file.absolute()),
    )


def simulate(toolkit: Toolkit, name: str, inputs: Arrays) -> NDArray[np.float32]:
    """The first output of a part that was built under a name; inputs in the part's order."""
    given, answer = toolkit.folder / "inputs.npz", toolkit.folder / "outputs.npz"
    arrays: dict[str, Any] = {port: np.asarray(array, np.float32) for port, array in inputs.items()}
    np.savez(given, **arrays)
    toolkit.call("run", model=name, inputs=str(given), outputs=str(answer))
    with np.load(answer) as stored:
        output: NDArray[np.float32] = stored["arr_0"]
    return output


class SimulatorBackend:
    """Runs an artifact's NPU parts by name; each is built when it is first asked for, and stays.

    loading: seconds that this has taken so far. engine: with the version of the toolkit that exported.
    """

    def __init__(self, exported: ExportedRknn, toolkit: Toolkit) -> None:
        self._exported, self._toolkit = exported, toolkit
        self.engine = f"the simulator of rknn-toolkit2 (exported with {exported.toolkit_version})"
        self._built: set[str] = set()
        self.load_seconds = 0.0

    def __call__(self, name: str, inputs: Arrays) -> NDArray[np.float32]:
        part = self._exported.parts[name]
        if name not in self._built:
            began = perf_counter()
            self._build(part)
            self._built.add(name)
            self.load_seconds += perf_counter() - began
        return simulate(self._toolkit, name, inputs)

    def _build(self, part: ExportedPart) -> None:
        build_model(
            self._toolkit,
            part.name,
            self._exported.onnx_file(part),
            part.build_config,
            self._exported.samples_folder(part.name),
        )


def _write_dataset(toolkit: Toolkit, samples: Path) -> Path:
    """The list of a part's samples as the toolkit reads it: a line each, paths in the order of the inputs.

    Raises:
        UserError: there are none.
    """
    order = samples / "inputs.txt"
    if not order.exists():
        raise UserError(f"{order} is missing; the calibration samples are gone, export the artifact again.")
    ports = order.read_text("utf-8").split()
    numbers = sorted({path.name.partition("-")[0] for path in samples.glob(f"*-{ports[0]}.npy")})
    lines = [" ".join(str((samples / f"{number}-{port}.npy").absolute()) for port in ports) for number in numbers]
    dataset = toolkit.folder / "dataset.txt"
    dataset.write_text("\n".join(lines) + "\n", "utf-8")
    return dataset


def save_calibration_samples(samples: list[dict[str, NDArray[Any]]], folder: Path) -> None:
    """Writes calibration samples as `_dataset` reads them."""
    folder.mkdir(parents=True)
    for number, sample in enumerate(samples):
        for port, array in sample.items():
            np.save(folder / f"{number:04d}-{port}.npy", array)
    (folder / "inputs.txt").write_text("\n".join(samples[0]) + "\n", "utf-8")
