"""The plan of a pipeline on a device: what is in memory when, whether that fits, and the least time of an image."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from ...common.errors import UserError
from .plan_report import render_plan


class Verdict(StrEnum):
    """Whether a pipeline fits into the memory of a device.

    Attributes:
        FITS: All graphs stay loaded.
        IN_PHASES: One graph is loaded at a time, and loaded again for each image.
        DOES_NOT_FIT: The largest graph alone does not fit.
    """

    FITS = "fits"
    IN_PHASES = "fits in phases"
    DOES_NOT_FIT = "does not fit"


@dataclass(frozen=True)
class GraphEstimate:
    """The estimated cost of a graph.

    Attributes:
        name: Its name.
        component: The component whose weights it has.
        phase: When it runs: `encoding`, `denoising` or `decoding`.
        runs: How often it runs for an image that starts from noise.
        disk_bytes: Bytes of its weights in files. Graphs of one component share them.
        weight_bytes: Bytes of its weights in memory.
        activation_bytes: Bytes of its activations in memory.
        linear_flops: Operations of its linear layers in one run.
        other_flops: Operations of attention and convolutions in one run.
        floor_seconds: The least time of one run; None where the device's rates are not known.
    """

    name: str
    component: str
    phase: str
    runs: int
    disk_bytes: int
    weight_bytes: int
    activation_bytes: int
    linear_flops: int
    other_flops: int
    floor_seconds: float | None

    @property
    def bytes(self) -> int:
        """Bytes of weights and activations in memory."""
        return self.weight_bytes + self.activation_bytes


@dataclass(frozen=True)
class DevicePlan:
    """A pipeline on a device. All sizes and times are estimated. `str()` gives a report.

    Attributes:
        device: Name of the device.
        pipeline_class: Class of the pipeline.
        precision: Precision of the exported graphs.
        size: Height and width of the image in pixels.
        steps: Number of denoising steps.
        prompt_tokens: Tokens of the prompt.
        memory_bytes: Memory of the device.
        usable_bytes: What of it a program can use.
        process_bytes: What the process takes besides weights and activations.
        component_disk_bytes: Bytes of each component's weights in files.
        graphs: The graphs in the order in which they run.
        bandwidth: Memory bandwidth of the device in bytes a second; None if it is not known.
        remedies: What would make the pipeline fit, each as a sentence; empty if it does.
    """

    device: str
    pipeline_class: str
    precision: str
    size: tuple[int, int]
    steps: int
    prompt_tokens: int
    memory_bytes: int
    usable_bytes: int
    process_bytes: int
    component_disk_bytes: dict[str, int]
    graphs: tuple[GraphEstimate, ...]
    bandwidth: float | None = None
    remedies: tuple[str, ...] = ()

    @property
    def resident_bytes(self) -> int:
        """Peak memory with all graphs loaded; each keeps the memory of its activations."""
        return self.process_bytes + sum(graph.bytes for graph in self.graphs)

    @property
    def phased_bytes(self) -> int:
        """Peak memory with one graph loaded at a time."""
        return self.process_bytes + max(graph.bytes for graph in self.graphs)

    @property
    def verdict(self) -> Verdict:
        """Whether the pipeline fits."""
        if self.resident_bytes <= self.usable_bytes:
            return Verdict.FITS
        return Verdict.IN_PHASES if self.phased_bytes <= self.usable_bytes else Verdict.DOES_NOT_FIT

    @property
    def peak_bytes(self) -> int:
        """Peak memory in the way that the verdict names."""
        return self.resident_bytes if self.verdict is Verdict.FITS else self.phased_bytes

    @property
    def margin_bytes(self) -> int:
        """What is left of the usable memory at the peak; 0 if it does not fit."""
        return max(0, self.usable_bytes - self.peak_bytes)

    @property
    def missing_bytes(self) -> int:
        """What the usable memory is too small by; 0 if the pipeline fits."""
        return max(0, self.peak_bytes - self.usable_bytes)

    @property
    def floor_seconds(self) -> float | None:
        """The least time of an image by the roofline: no implementation can be faster. None if rates are not known."""
        seconds = [None if graph.floor_seconds is None else graph.runs * graph.floor_seconds for graph in self.graphs]
        return None if None in seconds else sum(value for value in seconds if value is not None)

    def __str__(self) -> str:
        return render_plan(self)

    def require_fits(self, advice: str = "") -> None:
        """Checks the verdict.

        Args:
            advice: A sentence about how to go on nevertheless; empty if there is no way.

        Raises:
            UserError: The pipeline does not fit.
        """
        if self.verdict is Verdict.DOES_NOT_FIT:
            sentences = [
                f"The pipeline does not fit on {self.device}: at its peak it takes about "
                f"{self.phased_bytes / 2**30:.3g} GiB (estimated), and {self.usable_bytes / 2**30:.3g} GiB can "
                "be used.",
                *self.remedies,
                advice,
            ]
            raise UserError(" ".join(filter(None, sentences)))
