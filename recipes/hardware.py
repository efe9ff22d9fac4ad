"""What a device has: the facts that a plan is made from, and where they are from."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from .frozen_model import FrozenModel

Rate = Annotated[float, Field(gt=0, le=1e6)] | None
Gibibytes = Annotated[float, Field(gt=0, le=2**20)]


class PeakRates(FrozenModel):
    """The most operations that a processor does in a second, dense, in 10^12; null where that is not known."""

    fp32: Rate = Field(default=None, description="In float32.")
    fp16: Rate = Field(default=None, description="In float16 or bfloat16.")
    int8: Rate = Field(default=None, description="In 8-bit integers.")


class Hardware(FrozenModel):
    """What a device has."""

    names: tuple[str, ...] = Field(
        default=(),
        description="Parts of the names that such a device reports in its device tree, for `edgepress doctor`.",
    )
    memory: tuple[Gibibytes, ...] = Field(
        default=(),
        description="Memory of the device's versions in GiB, the smallest first. If empty: this machine's.",
    )
    reserved: Annotated[float, Field(ge=0, le=2**20)] = Field(
        default=1.0, description="GiB of it that firmware and operating system take, without a desktop."
    )
    process: Gibibytes = Field(
        default=0.085,
        description="GiB that a process takes besides weights and activations; measured on x86 without a GPU.",
    )
    bandwidth: Rate = Field(default=None, description="Memory bandwidth in GB/s.")
    peak: PeakRates = Field(
        default=PeakRates(),
        description="Of the processor that runs the ONNX graphs: the GPU of a Jetson, else the CPU.",
    )
    npu_peak: PeakRates | None = Field(default=None, description="Of the NPU, if there is one.")
    formats: tuple[Literal["fp32", "fp16", "int4", "w8a8"], ...] = Field(
        default=("fp32", "fp16", "int4", "w8a8"),
        description="Values of `export.precision` that the device computes correctly. Others are not exported for it.",
    )
    sources: tuple[str, ...] = Field(default=(), description="Where these facts are from.")
