"""What a quantization returns."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from statistics import fmean

from ..recipes.schema import PRIMARY
from ..storage.layout import Artifact
from ..storage.manifest import Manifest
from .solver.layer_stats import LayerStats


@dataclass(frozen=True)
class QuantizeResult:
    """A quantized artifact. `print(result)` shows a summary.

    Attributes:
        output: The artifact folder; `output/model` is the quantized pipeline.
        manifest: What the artifact was made from, its sizes and the error of every linear.
        created: False where the artifact was already up to date and nothing was done.
        seconds: Time that each stage of this run took.
    """

    output: Path
    manifest: Manifest
    created: bool
    seconds: dict[str, float] = field(default_factory=dict)

    @property
    def model(self) -> Path:
        """The quantized pipeline, a diffusers folder."""
        return Artifact(self.output).model

    def layers(self, scheme: str = PRIMARY) -> list[LayerStats]:
        """Returns the statistics of every linear, for the model itself or for an extra scheme of the recipe."""
        return get_layer_stats(self.manifest, scheme)

    def __str__(self) -> str:
        sizes = self.manifest.sizes.values()
        before, after = (sum(size[when] for size in sizes) for when in ("before", "after"))
        rows = {"size": f"{before / 1e6:.1f} MB -> {after / 1e6:.1f} MB ({after / max(1, before):.0%})"}
        layers = self.layers()
        if layers:
            error, rtn_error = fmean(layer.error for layer in layers), fmean(layer.rtn_error for layer in layers)
            rows["linears"] = f"{len(layers)} quantized"
            rows["error"] = f"{error:.3%} of the output on average (round to nearest: {rtn_error:.3%})"
        rows["unquantized"] = f"{self.manifest.num_unquantized} matrices"
        for component, records in self.manifest.tuning.items():
            record = records[PRIMARY]
            rows["tuning"] = (
                f"{component}: mean squared error {record.validation_before:.3g} -> {record.validation_after:.3g}"
            )
        if self.manifest.fp16_overflows:
            rows["float16"] = f"cannot hold {', '.join(self.manifest.fp16_overflows)}"
        rows["time"] = f"{sum(self.seconds.values()):.1f} s" if self.created else "already up to date"
        return "\n".join([f"{self.model}", *(f"  {name:<12}{value}" for name, value in rows.items())])


def get_layer_stats(manifest: Manifest, scheme: str = PRIMARY) -> list[LayerStats]:
    """Returns the statistics of every linear, for the model itself or for an extra scheme."""
    layers = manifest.layers if scheme == PRIMARY else manifest.extra_scheme_layers[scheme]
    return [LayerStats(**layer) for layer in layers]
