"""Confirms end to end what validation chose layer by layer: the variant of a model with the least drift is written.

The drift is the error of the denoisers' outputs, relative to the reference's, on calibration prompts that nothing was
solved on. Text encoders are quantized too, and every step begins from the reference's latents.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor

from ..recipes.schema import PRIMARY
from ..storage.checkpoint import write_tensors
from ..storage.files import read_json_object, write_json
from ..storage.manifest import ChoiceRecord
from .drift import DriftMeasurement, replace_weights
from .plan import QuantBlock, QuantizationPlan
from .solver.block import list_schemes
from .solver.candidates import VARIANTS
from .workspace import Workspace, list_tensor_names, read_metadata, read_tensor

STAGE = "confirming"
MIN_GAIN = 0.1  # dB of drift, for which a variant is taken instead of a simpler one


def variant_key(variant: str, scheme: str) -> str:
    """The name under which a block's results with a variant are stored, where a scheme's would be."""
    return f"{variant}/{scheme}"


def read_choice(workspace: Workspace) -> ChoiceRecord | None:
    """Reads which variant was chosen; None if none was to be chosen."""
    return ChoiceRecord(**read_json_object(workspace.choice_file)) if workspace.choice_file.exists() else None


def choose_variant(drift: Mapping[str, float]) -> str:
    """Returns the variant to write: a simpler one, unless another has clearly less drift.

    Args:
        drift: The drift of each variant in dB.
    """
    best = VARIANTS[-1]
    for variant in reversed(VARIANTS):
        if drift[variant] < drift[best] - MIN_GAIN:
            best = variant
    return best


@dataclass(frozen=True)
class Confirmation:
    """Chooses among the variants of a model whose blocks are all solved.

    Attributes:
        plan: The plan.
        workspace: Where variants are, and where the choice is stored.
        measurement: What measures a variant.
    """

    plan: QuantizationPlan
    workspace: Workspace
    measurement: DriftMeasurement

    def run(self, check: Callable[[], None]) -> None:
        """Chooses a variant unless that was done before, and makes its blocks those of the model.

        Args:
            check: Called before anything is stored that depends on the source's files.
        """
        if not self.workspace.choice_file.exists():
            content = self._choose().model_dump()
            check()
            write_json(content, self.workspace.choice_file)
        choice = ChoiceRecord(**read_json_object(self.workspace.choice_file))
        for block in self.plan.blocks:
            if not self.workspace.block_file(block.name).exists():
                self._adopt(block, choice.variant)
            self.workspace.variants_file(block.name).unlink(missing_ok=True)

    def _choose(self) -> ChoiceRecord:
        quantizes_denoiser = any(
            part.name in self.plan.family.denoisers and part.blocks for part in self.plan.components
        )
        if self.measurement.held_out and quantizes_denoiser:
            drift = {variant: self._read_drift(variant, number) for number, variant in enumerate(VARIANTS)}
            return ChoiceRecord(variant=choose_variant(drift), drift=drift)
        is_validated = any(
            layer["validation_error"] is not None
            for block in self.plan.blocks
            for layer in read_metadata(self.workspace.variants_file(block.name))["layers"][
                variant_key(VARIANTS[0], PRIMARY)
            ]
        )
        return ChoiceRecord(variant=VARIANTS[0] if is_validated else VARIANTS[-1], drift={})

    def _read_drift(self, variant: str, number: int) -> float:
        """Returns the drift of a variant in dB, which is measured once."""
        file = self.workspace.drift_file(variant)
        if not file.exists():
            plan = replace_weights(self.plan, self.workspace, lambda _, __: variant_key(variant, PRIMARY))
            write_json({"drift": self.measurement.measure(plan, number, len(VARIANTS))}, file)
        return float(read_json_object(file)["drift"])

    def _adopt(self, block: QuantBlock, variant: str) -> None:
        """Stores a block's results with a variant as those of the block."""
        file = self.workspace.variants_file(block.name)
        metadata = read_metadata(file)
        names = list_tensor_names(file)
        tensors: dict[str, Tensor] = {}
        layers = {}
        for scheme in list_schemes(self.plan.settings):
            key = variant_key(variant, scheme)
            key = key if key in metadata["layers"] else scheme
            layers[scheme] = metadata["layers"][key]
            tensors |= dict(_read_scheme(file, names, key, scheme))
        content = {"layers": layers, "overflows": metadata["overflows"]}
        write_tensors(tensors, self.workspace.block_file(block.name), json.dumps(content))


def _read_scheme(file: Path, names: Sequence[str], key: str, scheme: str) -> Iterator[tuple[str, Tensor]]:
    for name in names:
        if name.startswith(f"{key}:"):
            yield f"{scheme}{name.removeprefix(key)}", read_tensor(file, name)
