"""Parts in the toolkit's simulator, which computes what the NPU would, as far as the vendor says so."""

from __future__ import annotations

from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...errors import UserError
from .chain import Arrays
from .manifest import Exported, PartFile, Recipe
from .toolkit import Done, Toolkit


def build(toolkit: Toolkit, name: str, onnx: Path, recipe: Recipe, samples: Path, rknn: Path | None = None) -> Done:
    """Builds a part under a name; `samples` is the folder of its calibration samples, where it is quantized.

    Raises:
        UserError: the toolkit refuses, or there are no samples.
    """
    dataset = _dataset(toolkit, samples) if recipe.quantized else None
    return toolkit.call(
        "build",
        model=name,
        onnx=str(onnx.absolute()),
        config=dict(recipe.config),
        dataset=dataset and str(dataset),
        float_layers=list(recipe.float_layers),
        rknn=rknn and str(rknn.absolute()),
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


class Simulated:
    """Runs an artifact's NPU parts by name; each is built when it is first asked for, and stays.

    loading: seconds that this has taken so far. engine: with the version of the toolkit that exported.
    """

    def __init__(self, exported: Exported, toolkit: Toolkit) -> None:
        self._exported, self._toolkit = exported, toolkit
        self.engine = f"the simulator of rknn-toolkit2 (exported with {exported.toolkit})"
        self._built: set[str] = set()
        self.loading = 0.0

    def __call__(self, name: str, inputs: Arrays) -> NDArray[np.float32]:
        part = self._exported.parts[name]
        if name not in self._built:
            began = perf_counter()
            self._build(part)
            self._built.add(name)
            self.loading += perf_counter() - began
        return simulate(self._toolkit, name, inputs)

    def _build(self, part: PartFile) -> None:
        build(self._toolkit, part.name, self._exported.onnx(part), part.recipe, self._exported.samples(part.name))


def _dataset(toolkit: Toolkit, samples: Path) -> Path:
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


def save_samples(samples: list[dict[str, NDArray[Any]]], folder: Path) -> None:
    """Writes calibration samples as `_dataset` reads them."""
    folder.mkdir(parents=True)
    for number, sample in enumerate(samples):
        for port, array in sample.items():
            np.save(folder / f"{number:04d}-{port}.npy", array)
    (folder / "inputs.txt").write_text("\n".join(samples[0]) + "\n", "utf-8")
