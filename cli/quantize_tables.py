"""The tables that `edgepress quantize` prints: sizes, savings, errors and times."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence

from rich.table import Table

from ..numerics.awq_packing import bits_per_weight
from ..quantize.allocation.options import OPTIONS
from ..quantize.result import QuantizeResult
from ..quantize.solver.layer_stats import LayerStats
from ..recipes.schema import QuantizationSettings, Scheme
from ..storage.manifest import AllocationRecord, TuningRecord

STEP_NAMES = {"rtn": "rounding to nearest"}


def build_tables(result: QuantizeResult) -> Iterator[Table]:
    """The tables of a result, in the order in which they are read."""
    settings = QuantizationSettings.model_validate(result.manifest.recipe["quantize"])
    yield _size_table(result)
    yield _savings_table(result)
    yield _layer_table(result, settings)
    for name, scheme in settings.extra_schemes.items():
        if scheme.quantizes_activations:
            yield _activation_table(result, name, scheme)
    if result.manifest.allocation is not None:
        yield _allocation_table(result.manifest.allocation)
    for component, records in result.manifest.tuning.items():
        yield _tuning_table(component, records)
    if result.seconds:
        yield _time_table(result)


def _size_table(result: QuantizeResult) -> Table:
    table = Table("component", "before", "after", "share", title="Size in MB")
    rows = {name: (size["before"], size["after"]) for name, size in result.manifest.sizes.items()}
    rows["all"] = (sum(before for before, _ in rows.values()), sum(after for _, after in rows.values()))
    for name, (before, after) in rows.items():
        table.add_row(name, f"{before / 1e6:.2f}", f"{after / 1e6:.2f}", f"{after / before:.0%}" if before else "")
    return table


def _savings_table(result: QuantizeResult) -> Table:
    savings = result.manifest.size_savings
    table = Table("saved by", *savings, title="Saved in MB")
    for measure in next(iter(savings.values())):
        saved = [component[measure] for component in savings.values()]
        if any(saved):
            table.add_row(measure, *(f"{size / 1e6:.2f}" for size in saved))
    return table


def _time_table(result: QuantizeResult) -> Table:
    table = Table("stage", "seconds", title="Time of this run")
    for stage, seconds in result.seconds.items():
        table.add_row(stage, f"{seconds:.1f}")
    return table


def _layer_table(result: QuantizeResult, settings: QuantizationSettings) -> Table:
    layers = result.layers()
    table = Table("4-bit layers", "value", title=f"Steps: {', '.join(settings.resolved_steps) or STEP_NAMES['rtn']}")
    table.add_row("layers quantized", str(len(layers)))
    table.add_row("matrices left in 16 bits", str(result.manifest.num_unquantized))
    if settings.budget is None:
        table.add_row("bits per weight", f"{bits_per_weight(int(settings.scheme.group_size)):.3f}")
    steps = ("rtn", *settings.resolved_steps) if layers else ()
    for number, step in enumerate(steps, 1):
        mean = sum(_error_after(layer, steps[:number]) for layer in layers) / len(layers)
        table.add_row(f"mean output error, {STEP_NAMES.get(step, f'after {step}')}", f"{mean:.3%}")
    return table


def _activation_table(result: QuantizeResult, name: str, scheme: Scheme) -> Table:
    """A scheme with quantized activations: what they cost, and which layers stay in floats because of them."""
    layers = result.layers(name)
    table = Table("8-bit layers", "value", title=f"{name}: activations in 8 bits, {scheme.activations}")
    table.add_row("layers in 8 bits", str(sum(not layer.stays_float for layer in layers)))
    for step, label in {"rtn": STEP_NAMES["rtn"], "smooth": "smoothed", "solved": "in the end"}.items():
        mean = sum(layer.steps[step] for layer in layers) / max(1, len(layers))
        table.add_row(f"mean output error, {label}", f"{mean:.3%}")
    for layer in layers:
        if layer.stays_float:
            table.add_row(f"stays in floats: {layer.layer}", f"{layer.error:.3%}")
    return table


def _allocation_table(record: AllocationRecord) -> Table:
    """How a budget was distributed, and what it brought beside one format for all layers."""
    weights = sum(layer.weights for layer in record.layers)
    title = f"Mixed precision: {8 * record.size / weights:.3f} bits a weight (model/allocation.md: each layer)"
    table = Table("format", "layers", "share of weights", "drift if all layers had it", title=title)
    for option in OPTIONS:
        layers = [layer for layer in record.layers if layer.format == option]
        share = sum(layer.weights for layer in layers) / weights
        drift = record.drift.get(option)
        table.add_row(option, str(len(layers)), f"{share:.0%}", "" if drift is None else f"{drift:.2f} dB")
    if (drift := record.drift.get(record.choice)) is not None:
        table.add_row("as stored", str(len(record.layers)), "100%", f"{drift:.2f} dB")
    return table


def _tuning_table(component: str, records: Mapping[str, TuningRecord]) -> Table:
    """What tuning brought on prompts of the calibration that it did not train on."""
    table = Table("scheme", "steps", "samples", "error before", "after", "gain", title=f"Tuning of {component}")
    for scheme, record in records.items():
        errors = record.validation_before, record.validation_after
        gain = 10 * math.log10(errors[0] / errors[1]) if all(errors) else 0.0
        table.add_row(
            scheme, f"{record.best_step}", f"{record.samples}", *(f"{error:.3g}" for error in errors), f"{gain:.2f} dB"
        )
    return table


def _error_after(layer: LayerStats, steps: Sequence[str]) -> float:
    """The error after some steps; a layer that skips the last one has the error of the step before."""
    return next(layer.steps[step] for step in reversed(steps) if step in layer.steps)
