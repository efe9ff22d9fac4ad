"""The memory plan of a pipeline: possible deployments on a board, and whether they fit."""

from __future__ import annotations

from dataclasses import dataclass

from ....common.errors import UserError
from .plan_report import render_plan

TARGET_PRECISIONS = {"rk3588": ("fp16", "w8a8"), "rk3576": ("fp16", "w4a16")}  # that each NPU computes in
SYSTEM_BYTES = 2**30  # left to the board's operating system: an assumption
NPU_PREFIX = "NPU, "  # of a deployment's name, before its precision


@dataclass(frozen=True)
class PartEstimate:
    """The estimated cost of a part.

    Attributes:
        name: Name of the part.
        graph: Name of its graph.
        on_cpu: Whether ONNX Runtime runs it on the CPU.
        parameters: Number of parameters.
        weight_bytes: Bytes of its weights on the device.
        internal_bytes: Bytes of its activations on the device.
        build_bytes: Peak memory of building it, in bytes; 0 on the CPU.
        build_seconds: Time to build it, in seconds; 0 on the CPU.
    """

    name: str
    graph: str
    on_cpu: bool
    parameters: int
    weight_bytes: int
    internal_bytes: int
    build_bytes: int
    build_seconds: float

    @property
    def device_bytes(self) -> int:
        """Bytes of weights and activations."""
        return self.weight_bytes + self.internal_bytes


@dataclass(frozen=True)
class Deployment:
    """One way to run the pipeline on the board.

    Attributes:
        name: Processor and precision, such as "NPU, fp16".
        parts: All parts; empty if the pipeline cannot be split into parts.
        host_bytes: Memory of the process besides the parts, in bytes.
        weight_bytes: Largest sum of the weights that are loaded at one time, in bytes.
        internal_bytes: Largest sum of the activations that are alive at one time, in bytes.
        domains: Names of the NPU's parts, by the memory domain that holds them.
        rejection: Why the board cannot run this deployment; empty if it can.
    """

    name: str
    parts: tuple[PartEstimate, ...] = ()
    host_bytes: int = 0
    weight_bytes: int = 0
    internal_bytes: int = 0
    domains: tuple[tuple[str, ...], ...] = ()
    rejection: str = ""

    @property
    def peak_bytes(self) -> int:
        """Peak memory of the board, the operating system included."""
        return SYSTEM_BYTES + self.host_bytes + self.weight_bytes + self.internal_bytes

    @property
    def build_seconds(self) -> float:
        """Time to build all parts, in seconds."""
        return sum(part.build_seconds for part in self.parts)

    @property
    def verdict(self) -> str:
        """Whether the deployment fits, as a phrase."""
        if self.rejection:
            return f"rejected: {self.rejection}"
        if len(self.domains) > 1:
            return (
                f"research: needs {len(self.domains)} memory domains, one process each, which edgepress does not "
                "support"
            )
        return "fits"


@dataclass(frozen=True)
class MemoryPlan:
    """Possible deployments of a pipeline on a board, those on the NPU first. `str()` gives a report in Markdown.

    Attributes:
        target: Processor of the board.
        precision: Precision that the recipe exports.
        board_bytes: Memory of the board.
        image_size: Height and width of the images, in pixels.
        max_prompt_tokens: Largest number of tokens of a prompt.
        deployments: The deployments.
    """

    target: str
    precision: str
    board_bytes: int
    image_size: tuple[int, int]
    max_prompt_tokens: int
    deployments: tuple[Deployment, ...]

    def __str__(self) -> str:
        return render_plan(self)

    def require_recipe_fits(self) -> None:
        """Checks the deployment that the recipe exports.

        Raises:
            UserError: The board cannot hold it.
        """
        precision = TARGET_PRECISIONS[self.target][-1] if self.precision == "auto" else self.precision
        name = NPU_PREFIX + precision
        deployment = next((deployment for deployment in self.deployments if deployment.name == name), None)
        if deployment is not None and deployment.rejection:
            raise UserError(
                f"The pipeline does not fit on the {self.target} ({name}: {deployment.rejection}). Run 'edgepress "
                "export rknn --plan' to see which deployments do."
            )

    def require_any_fits(self) -> None:
        """Checks all deployments.

        Raises:
            UserError: The board can hold none of them.
        """
        if all(deployment.rejection for deployment in self.deployments):
            planned = [deployment for deployment in self.deployments if deployment.parts]
            smallest = min(planned, key=lambda deployment: deployment.peak_bytes)
            raise UserError(
                f"The pipeline does not fit on the {self.target} with {self.board_bytes / 2**30:.3g} GiB: it needs at "
                f"least {smallest.peak_bytes / 2**30:.1f} GiB ({smallest.name}). Use a board with more memory "
                "(rknn.memory)."
            )
