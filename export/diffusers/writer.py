"""The components of a pipeline as stock diffusers and transformers open them with the package auto-round.

The packed tensors are those of the artifact, byte for byte; `quantization_config` says how auto-round reads them. Token
embeddings in 8 bits become floats, and what the pipeline never uses zeros, since stock libraries expect both.
"""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ...common.progress import Progress
from ...numerics.int8_rows import Int8Rows
from ...pipelines.empty_modules import build_empty_module
from ...storage.checkpoint import write_sharded
from ...storage.files import list_files, write_json
from ...storage.layout import SOLUTIONS
from ...storage.weight_export import ComponentRecord
from ...storage.weight_files import WEIGHT_FILE_STEMS
from ..graph.source_model import SourcePipeline
from ..weights.component import WeightReader, to_float
from ..weights.safetensors_record import record_safetensors
from .readme import README

PACKING_FORMAT = "auto_round:auto_awq"


class QuantizedComponent:
    """A component whose config.json has a `quantization_config` of edgepress.

    Args:
        pipeline: The pipeline.
        name: The component's folder.
        entry: Library and class, as model_index.json names them.

    Attributes:
        weights: Its weights.
    """

    def __init__(self, pipeline: SourcePipeline, name: str, entry: list[str]) -> None:
        self._name, (self._library, self._class_name) = name, entry
        checkpoint = pipeline.open_checkpoint(name)
        config = checkpoint.load_config()
        self._quantization: Mapping[str, Any] = config["quantization_config"]
        self.weights = WeightReader(checkpoint, config)

    def write(self, folder: Path, progress: Progress) -> ComponentRecord:
        """Writes weights and config.json into the component's new folder."""
        folder.mkdir(exist_ok=True)
        config = dict(self.weights.config)
        if self.weights.has_int4:
            config["quantization_config"] = self._build_quantization_config()
        write_json(config, folder / "config.json")
        stem = WEIGHT_FILE_STEMS["transformers" if self._library == "transformers" else "diffusers"]
        files = write_sharded(self._iterate_tensors(progress), folder, stem)
        return record_safetensors(files, self.weights)

    def _build_quantization_config(self) -> dict[str, Any]:
        """What auto-round reads: names are regular expressions there that match anywhere, so they are anchored."""
        group_size: int = self._quantization["group_size"]
        unusual = {name: size for name, size in self.weights.group_sizes.items() if size != group_size}
        config = {
            "quant_method": "auto-round",
            "packing_format": PACKING_FORMAT,
            "bits": 4,
            "group_size": group_size,
            "sym": not self._quantization["zero_point"],
            "data_type": "int",
            "modules_to_not_convert": [f"^{re.escape(name)}$" for name in self._quantization["modules_to_not_convert"]],
        }
        extra = {name: {"bits": 4, "group_size": size} for name, size in unusual.items()}
        return config | ({"extra_config": extra} if extra else {})

    def _iterate_tensors(self, progress: Progress) -> Iterator[tuple[str, Tensor]]:
        names = self.weights.names()
        dtype = self.weights.float_dtype
        for number, name in enumerate(names, 1):
            packed = self.weights.load_packed(name)
            if packed is not None:
                for kind, tensor in packed._asdict().items():
                    yield name.removesuffix("weight") + kind, tensor
            else:
                weight = self.weights.load(name)
                yield name, to_float(weight).to(dtype) if isinstance(weight, Int8Rows) else to_float(weight)
            progress(f"writing {self._name}", number, len(names))
        yield from self._make_unused_tensors(dtype)

    def _make_unused_tensors(self, dtype: torch.dtype) -> Iterator[tuple[str, Tensor]]:
        """Zeros for the modules that quantization removed."""
        names = self._quantization.get("unused_modules") or self._quantization.get("dropped") or ()  # the older name
        unused = tuple(f"{name}." for name in names)
        if not unused:
            return
        module = build_empty_module(self._library, self._class_name, self.weights.config)
        for name, tensor in module.state_dict().items():
            if name.startswith(unused):
                yield name, torch.zeros(tensor.shape, dtype=dtype)


def copy_files(source: Path, target: Path, components: Mapping[str, QuantizedComponent]) -> None:
    """Copies what the export does not write: other components, tokenizers, the scheduler, the index."""
    for name in list_files(source):
        path = Path(name)
        if path.parts[0] == SOLUTIONS or path.name.startswith(README):
            continue
        if path.parts[0] in components and (path.name == "config.json" or ".safetensors" in path.name):
            continue
        (target / path).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(source / path, target / path)
