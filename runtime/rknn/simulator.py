"""Builds parts and runs them in the simulator of rknn-toolkit2, which its vendor says computes as the NPU does."""

from __future__ import annotations

from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...common.errors import UserError
from ...storage.relative_path import is_file_name
from .exported import BuildConfig, ExportedRknn
from .part_chain import Arrays
from .toolkit import Toolkit, ToolkitReply

SAMPLES_LINK = "samples"  # in the toolkit's working directory
SAMPLE_ORDER_FILE = "inputs.txt"  # in a folder of samples: the names of the inputs, in order


def build_model(
    toolkit: Toolkit,
    name: str,
    onnx_file: Path,
    build_config: BuildConfig,
    samples_folder: Path,
    rknn_file: Path | None = None,
) -> ToolkitReply:
    """Builds a part, which then can be simulated.

    Args:
        toolkit: The toolkit that builds.
        name: Name of the model in the toolkit.
        onnx_file: Float ONNX of the part.
        build_config: How it is built.
        samples_folder: Folder of its calibration samples; read if the build quantizes.
        rknn_file: Path the model is written to; None: it is not written.

    Raises:
        UserError: The toolkit fails, or there are no samples.
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
    """Returns the first output of a model that was built.

    Args:
        toolkit: The toolkit that built it.
        name: Name of the model in the toolkit.
        inputs: Arrays by input name, in the order of the model's inputs; they are cast to float32.
    """
    inputs_file, outputs_file = toolkit.folder / "inputs.npz", toolkit.folder / "outputs.npz"
    arrays: dict[str, Any] = {port: np.asarray(array, np.float32) for port, array in inputs.items()}
    np.savez(inputs_file, **arrays)
    toolkit.call("run", model=name, inputs=str(inputs_file), outputs=str(outputs_file))
    with np.load(outputs_file) as outputs:
        output: NDArray[np.float32] = outputs["arr_0"]
    return output


class SimulatorBackend:
    """Runs the NPU parts of an artifact by name. A part is built when it is first run, and stays built.

    Args:
        exported: The artifact.
        toolkit: The toolkit that builds and simulates.

    Attributes:
        engine: Name of the simulator, and the version of the toolkit that exported the artifact.
        load_seconds: Time spent on building parts so far.
    """

    def __init__(self, exported: ExportedRknn, toolkit: Toolkit) -> None:
        self._exported, self._toolkit = exported, toolkit
        self.engine = f"the simulator of rknn-toolkit2 (exported with {exported.toolkit_version})"
        self._built: set[str] = set()
        self.load_seconds = 0.0

    def __call__(self, name: str, inputs: Arrays) -> NDArray[np.float32]:
        """Returns the output of a part; its inputs are cast to float32."""
        if name not in self._built:
            started = perf_counter()
            part, exported = self._exported.parts[name], self._exported
            config = BuildConfig(part.config, part.quantized, part.float_layers)
            build_model(self._toolkit, name, exported.onnx_file(part), config, exported.samples_folder(name))
            self._built.add(name)
            self.load_seconds += perf_counter() - started
        return simulate(self._toolkit, name, inputs)


def _write_dataset(toolkit: Toolkit, samples_folder: Path) -> Path:
    """Writes the list of a part's samples as the toolkit reads it: a sample per line, paths in the order of the inputs.

    The toolkit splits lines at spaces. So paths are those of a link in its working directory.

    Raises:
        UserError: There are no samples.
    """
    order_file = samples_folder / SAMPLE_ORDER_FILE
    if not order_file.exists():
        raise UserError(f"The calibration samples are missing: {order_file} does not exist. Export the artifact again.")
    ports = order_file.read_text("utf-8", "replace").split()
    if not ports or not all(is_file_name(port) for port in ports):
        raise UserError(f"{order_file} does not name the inputs of a part. Export the artifact again.")
    numbers = sorted({path.name.partition("-")[0] for path in samples_folder.glob(f"*-{ports[0]}.npy")})
    link = toolkit.folder / SAMPLES_LINK
    link.unlink(missing_ok=True)
    link.symlink_to(samples_folder.absolute(), target_is_directory=True)
    lines = [" ".join(f"{SAMPLES_LINK}/{number}-{port}.npy" for port in ports) for number in numbers]
    dataset = toolkit.folder / "dataset.txt"
    dataset.write_text("\n".join(lines) + "\n", "utf-8")
    return dataset


def save_calibration_samples(samples: list[dict[str, NDArray[Any]]], folder: Path) -> None:
    """Writes calibration samples to a new folder: an array per sample and input, and the order of the inputs."""
    folder.mkdir(parents=True)
    for number, sample in enumerate(samples):
        for port, array in sample.items():
            np.save(folder / f"{number:04d}-{port}.npy", array)
    (folder / SAMPLE_ORDER_FILE).write_text("\n".join(samples[0]) + "\n", "utf-8")
