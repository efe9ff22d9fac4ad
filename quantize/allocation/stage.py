"""The stage that gives each linear its format: sensitivities, distribution of the bytes, confirmation.

The drift of a linear's format is taken as the output error that its solution has in calibration, times one gain for the
linear, which the backward passes of all formats estimate together: a single format's estimate scatters more.

The distribution is then compared, end to end and on prompts that nothing was solved on, with every format in groups
for all linears that the budget pays for as well; the least drift is written.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping, Sequence, Set
from dataclasses import dataclass, field
from functools import partial

import torch
from torch import Tensor

from ...common.errors import UserError
from ...common.progress import Progress
from ...pipelines.sampling import SamplingParams
from ...prompts.prompt import Prompt
from ...recipes.budget import Budget
from ...recipes.schema import PRIMARY
from ...storage.checkpoint import write_tensors
from ...storage.files import read_json_object, write_json
from ...storage.manifest import AllocationRecord, LayerAllocation
from ..calibration.streaming import stream_or_load
from ..drift import DriftMeasurement, read_dequantized, replace_weights, to_decibels
from ..plan import ComponentPlan, QuantBlock, QuantizationPlan
from ..workspace import Workspace, list_tensor_names, read_metadata, read_tensor
from .knapsack import FormatCost, allocate
from .options import FLOAT, GROUPED, OPTIONS, count_bytes, list_options
from .record import read_allocation
from .sensitivity import Sensitivities, SensitivityMeasurement

MAX_IMAGES = 24  # that gradients are computed for
LARGE_MODEL_IMAGES = 2
CACHED_WEIGHTS = 4 * 10**7  # of a model whose errors are loaded once
MEASURING, COMPARING = "measuring sensitivity", "comparing allocations"
MIXED = "mixed"


def format_key(option: str) -> str:
    """The name under which a block's results in a format are stored, where a scheme's would be."""
    return f"{option}/{PRIMARY}"


def compute_limit(plan: QuantizationPlan, budget: Budget, other_bytes: int) -> int:
    """Returns the bytes that the quantized linears may take.

    Args:
        plan: The plan.
        budget: The recipe's budget.
        other_bytes: What everything else takes.

    Raises:
        UserError: The smallest formats take more than that.
    """
    linears = list_linears(plan)
    weights = sum(math.prod(shape) for shape in linears.values())
    smallest = sum(count_bytes(shape, list_options(plan.settings.scheme)["g128"], 2) for shape in linears.values())
    if budget.size is not None:
        if budget.size < other_bytes + smallest:
            raise UserError(
                f"{budget.size / 1e9:.4g} GB is too small: with the smallest formats, all components "
                f"take {(other_bytes + smallest) / 1e9:.4g} GB. Give at least that."
            )
        return budget.size - other_bytes
    assert budget.bits_per_weight is not None
    limit = int(budget.bits_per_weight * weights / 8)
    if limit < smallest:
        raise UserError(
            f"{budget.bits_per_weight:g} bits per weight are too few: the smallest formats take "
            f"{8 * smallest / weights:.4g}. Give at least that."
        )
    return limit


def list_linears(plan: QuantizationPlan) -> dict[str, tuple[int, ...]]:
    """Returns the shapes of all linears that are quantized, by name (`component.module`)."""
    return {
        f"{component.name}.{linear}": component.checkpoint.shape(f"{linear}.weight")
        for component in plan.components
        for block in component.blocks
        for linear in block.linears
    }


@dataclass(frozen=True)
class Allocation:
    """Distributes the bytes of a model whose blocks are all solved in every format.

    Attributes:
        plan: The plan.
        workspace: Where results are, and where the distribution is stored.
        prompts: Of the calibration.
        sampling: How images of the calibration are generated.
        dtype: What the reference computes in.
        limit: The bytes that the quantized linears may take.
        measurement: What measures a distribution end to end.
        progress: Called with images.
    """

    plan: QuantizationPlan
    workspace: Workspace
    prompts: Sequence[Prompt]
    sampling: SamplingParams
    dtype: torch.dtype
    limit: int
    measurement: DriftMeasurement
    progress: Progress

    def run(self, check: Callable[[], None]) -> None:
        """Distributes the bytes unless that was done before, and makes the chosen formats those of the model.

        Args:
            check: Called before anything is stored that depends on the source's files.
        """
        if not self.workspace.allocation_file.exists():
            content = self._allocate().model_dump(mode="json")
            check()
            write_json(content, self.workspace.allocation_file)
        record = read_allocation(self.workspace)
        assert record is not None
        choice = {layer.layer: layer.format for layer in record.layers}
        for block in self.plan.blocks:
            if not self.workspace.block_file(block.name).exists():
                self._adopt(block, choice)
            self.workspace.variants_file(block.name).unlink(missing_ok=True)

    # ------------------------------------------------------------ distribution

    def _allocate(self) -> AllocationRecord:
        sensitivities = self._measure_sensitivities()
        errors, available = self._read_errors()
        linears = list_linears(self.plan)
        self._require_gradients({name for image in sensitivities for name in image.drifts}, available)
        power = sum(image.power for image in sensitivities)
        gains = {name: _estimate_gain(name, errors[name], sensitivities, power) for name in linears}
        schemes = list_options(self.plan.settings.scheme)
        costs = {
            name: {
                option: FormatCost(count_bytes(shape, schemes[option], self._float_bytes(name)), gains[name] * error)
                for option, error in errors[name].items()
                if option in available[name]
            }
            for name, shape in linears.items()
        }
        _require_room(costs, self.limit)
        choices = {MIXED: allocate(costs, self.limit)}
        for option in GROUPED:
            uniform = {name: option if option in available[name] else FLOAT for name in linears}
            if sum(costs[name][chosen].size for name, chosen in uniform.items()) <= self.limit:
                choices[option] = uniform
        drifts = self._compare(choices)
        best = min(drifts, key=lambda name: drifts[name]) if drifts else MIXED
        layers = [
            LayerAllocation(
                layer=name,
                format=choices[best][name],
                weights=math.prod(shape),
                size=costs[name][choices[best][name]].size,
                drifts={option: cost.drift for option, cost in costs[name].items()},
            )
            for name, shape in linears.items()
        ]
        return AllocationRecord(
            choice=best,
            limit=self.limit,
            size=sum(layer.size for layer in layers),
            images=len(sensitivities),
            expected_drift=to_decibels(sum(layer.drifts[layer.format] for layer in layers)),
            drift=drifts,
            layers=layers,
        )

    def _require_gradients(self, measured: Set[str], available: Mapping[str, Set[str]]) -> None:
        """Checks that the pipeline passes gradients back as far as to the first linears of a component.

        Then those without any do not change the images, such as a text encoder's layers after the one whose states are
        read, and the prompt's half of a denoiser's last block.

        Args:
            measured: The linears that a gradient reached.
            available: The formats in which each linear can be stored.

        Raises:
            UserError: It does not.
        """
        for component in self.plan.components:
            blocks = [[f"{component.name}.{linear}" for linear in block.linears] for block in component.blocks]
            used = (names for names in blocks if any(available[name] != {FLOAT} for name in names))
            first = next(used, [])
            if first and measured.isdisjoint(first):
                raise UserError(
                    f"quantize.budget: {first[0]} has no gradient: the pipeline does not use its output, or computes "
                    f"something after it that has none. Leave {component.name} out of quantize.components, or quantize "
                    "without a budget."
                )

    def _measure_sensitivities(self) -> list[Sensitivities]:
        return stream_or_load(self.plan, self._measure_images)

    def _measure_images(self, streams: bool) -> list[Sensitivities]:
        """Measures the images that were not measured before."""
        num_weights = sum(math.prod(shape) for shape in list_linears(self.plan).values())
        is_small = num_weights <= CACHED_WEIGHTS
        prompts = self.prompts[: MAX_IMAGES if is_small else LARGE_MODEL_IMAGES]
        files = [self.workspace.sensitivity_file(number) for number in range(len(prompts))]
        missing = [number for number, file in enumerate(files) if not file.exists()]
        reader = _ErrorReader(self.plan, self.workspace, is_small)
        measurement = SensitivityMeasurement(self.plan, self.sampling, self.dtype, reader.load, self.measurement.device)
        results = measurement.iterate([prompts[number] for number in missing], streams) if missing else iter(())
        for number, result in zip(missing, results, strict=True):
            write_json({"drifts": result.drifts, "power": result.power}, files[number])
            self.progress(MEASURING, number + 1, len(prompts))
        return [Sensitivities(**read_json_object(file)) for file in files]

    def _read_errors(self) -> tuple[dict[str, dict[str, float]], dict[str, set[str]]]:
        """Returns the output errors of each linear by format, and the formats in which it can be stored."""
        errors: dict[str, dict[str, float]] = {}
        available: dict[str, set[str]] = {}
        for block in self.plan.blocks:
            layers = read_metadata(self.workspace.variants_file(block.name))["layers"]
            for option in OPTIONS:
                for layer in layers[format_key(option)]:
                    errors.setdefault(layer["layer"], {})[option] = layer["error"]
                    if option == FLOAT or not layer["stays_float"]:
                        available.setdefault(layer["layer"], set()).add(option)
        return errors, available

    def _float_bytes(self, name: str) -> int:
        component, _, linear = name.partition(".")
        checkpoint = self.plan.get_component(component).checkpoint
        stored = checkpoint.nbytes(f"{linear}.weight") // math.prod(checkpoint.shape(f"{linear}.weight"))
        return min(stored, self.dtype.itemsize)

    def _compare(self, choices: Mapping[str, Mapping[str, str]]) -> dict[str, float]:
        """Returns the drift of each distribution in dB, on prompts that nothing was solved on; none without such."""
        quantizes_denoiser = any(part.name in self.plan.family.denoisers for part in self.plan.components)
        if not self.measurement.held_out or not quantizes_denoiser:
            return {}
        drifts: dict[str, float] = {}
        for number, (name, choice) in enumerate(choices.items()):
            file = self.workspace.drift_file(name)
            if not file.exists():
                plan = replace_weights(self.plan, self.workspace, partial(_select_result, choice))
                write_json({"drift": self.measurement.measure(plan, number, len(choices))}, file)
            drifts[name] = float(read_json_object(file)["drift"])
        return drifts

    # ------------------------------------------------------------ result

    def _adopt(self, block: QuantBlock, choice: Mapping[str, str]) -> None:
        """Stores a block's results, each linear's in its format, as those of the block."""
        file = self.workspace.variants_file(block.name)
        metadata, extra = read_metadata(file), tuple(self.plan.settings.extra_schemes)
        tensors = {}
        for key in list_tensor_names(file):
            variant, _, name = key.partition(":")
            if variant in extra:
                tensors[key] = read_tensor(file, key)
            elif variant == _select_result(choice, block.component, name.rpartition(".")[0]):
                tensors[f"{PRIMARY}:{name}"] = read_tensor(file, key)
        layers = {name: metadata["layers"][name] for name in extra}
        layers[PRIMARY] = [
            layer | {"chosen": option}
            for option in OPTIONS
            for layer in metadata["layers"][format_key(option)]
            if choice[layer["layer"]] == option
        ]
        content = {"layers": layers, "overflows": metadata["overflows"]}
        write_tensors(tensors, self.workspace.block_file(block.name), json.dumps(content))


def _select_result(choice: Mapping[str, str], component: str, module: str) -> str:
    """Returns where the result of a module is: that of a linear in its format, all others are the same in all."""
    return format_key(choice.get(f"{component}.{module}", OPTIONS[0]))


def _estimate_gain(
    name: str, errors: Mapping[str, float], sensitivities: Sequence[Sensitivities], power: float
) -> float:
    """Returns the relative squared error of the denoisers' outputs for a relative squared error of a linear's output.

    It is 0 for a linear that no gradient reached.
    """
    measured = [image.drifts[name] for image in sensitivities if name in image.drifts]
    options = [option for option in GROUPED if measured and option in measured[0] and errors[option]]
    total = sum(errors[option] for option in options)
    return sum(image[option] for image in measured for option in options) / (total * power) if total and power else 0.0


def _require_room(costs: Mapping[str, Mapping[str, FormatCost]], limit: int) -> None:
    """Checks that the formats fit in which linears can be stored, which some cannot be in 4 bits.

    Raises:
        UserError: They do not.
    """
    needed = sum(min(cost.size for cost in options.values()) for options in costs.values())
    if needed > limit:
        raise UserError(
            f"quantize.budget: the smallest formats in which all linears can be stored take {needed / 1e9:.4g} GB, but "
            f"the budget leaves them {limit / 1e9:.4g} GB. Give a larger one."
        )


@dataclass
class _ErrorReader:
    """Loads the errors of weights in the formats with groups.

    Attributes:
        plan: The plan.
        workspace: Where results are.
        caches: Whether errors stay in memory.
    """

    plan: QuantizationPlan
    workspace: Workspace
    caches: bool
    _cache: dict[str, dict[str, Tensor]] = field(default_factory=dict)

    def load(self, component: ComponentPlan, linear: str) -> Mapping[str, Tensor]:
        """Returns the errors of a weight, (out, in) float32, by format."""
        name = f"{component.name}.{linear}"
        if name in self._cache:
            return self._cache[name]
        block = next(block for block in component.blocks if linear in block.linears)
        file = self.workspace.variants_file(block.name)
        stored, weight = set(list_tensor_names(file)), component.checkpoint.load_tensor(f"{linear}.weight").float()
        keys = {option: f"{format_key(option)}:{linear}" for option in GROUPED}
        errors = {
            option: _subtract(read_dequantized(file, key), weight)
            for option, key in keys.items()
            if f"{key}.qweight" in stored
        }
        if self.caches:
            self._cache[name] = errors
        return errors


def _subtract(quantized: Tensor, weight: Tensor) -> Tensor:
    """Returns the error of a quantized weight, whose rows may be divided by a power of two, for float16's range."""
    norms = float(weight.norm()), float(quantized.norm())
    ratio = 2.0 ** round(math.log2(norms[0] / norms[1])) if all(norms) else 1.0
    return quantized.mul_(ratio).sub_(weight)
