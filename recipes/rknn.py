"""The section `rknn` of a recipe: how a pipeline is built for Rockchip's NPUs."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, ClassVar, Literal

from pydantic import Field

from .frozen_model import FrozenModel
from .hardware import Gibibytes
from .presets import Count, ImageSize


class RknnSettings(FrozenModel):
    """Settings of `edgepress export rknn`."""

    RENAMED_KEYS: ClassVar[Mapping[str, str]] = {"tokens": "max_prompt_tokens"}

    target: Literal["rk3588", "rk3576"] = Field(default="rk3588", description="The Rockchip processor.")
    memory: Gibibytes = Field(default=8, description="Memory of the board in GiB.")
    precision: Literal["fp16", "w8a8", "w4a16", "auto"] = Field(
        default="fp16",
        description="`fp16`, or `w8a8` or `w4a16` for components that have an extra scheme for it (others stay in "
        "fp16). `auto` tries the quantized precision that the target supports and falls back to fp16 for parts that "
        "lose too much accuracy.",
    )
    size: ImageSize = Field(
        default="native",
        description="Size of the images as [height, width] in pixels, or `native`. The NPU has fixed shapes.",
    )
    max_prompt_tokens: int = Field(
        default=96, ge=32, le=32_768, multiple_of=32, description="The length of the longest prompt in tokens."
    )
    cpu: tuple[str, ...] = Field(
        default=(), description="Graphs that ONNX Runtime runs on the CPU, with the model's own 4-bit weights."
    )
    blocks: Count = Field(
        default=3,
        description="The largest number of blocks in one part. The time to build a part grows faster than their "
        "number.",
    )
    build_memory: Gibibytes = Field(default=8, description="Memory in GiB that building a part may use.")
    samples: Count = Field(
        default=4, description="Number of prompts that images are generated for to calibrate `w8a8`."
    )
    tile: Annotated[int, Field(ge=64, le=65_536, multiple_of=16)] | None = Field(
        default=None,
        description="Side in pixels of the tiles that the VAE decodes, for boards with too little memory to decode "
        "the image as a whole.",
    )
