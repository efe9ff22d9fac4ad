"""Presets: settings to generate images with, by names that users of a device know."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from .frozen_model import FrozenModel, say_requirement

MAX_STEPS = 10_000  # of denoising; a schedule is computed at once
Count = Annotated[int, Field(ge=1, le=1_000_000)]
Side = Annotated[int, Field(ge=1, le=65_536)]  # pixels
ImageSize = Annotated[
    Literal["native"] | tuple[Side, Side], say_requirement("write native, or [H, W] in pixels, each at most 65536")
]


class Preset(FrozenModel):
    """Settings to generate images with on the device."""

    steps: int = Field(default=8, ge=1, le=MAX_STEPS, description="Number of denoising steps.")
    size: ImageSize = Field(
        default="native", description="Size of the images as [height, width] in pixels, or `native`."
    )
    guidance: float = Field(
        default=0.0, ge=0, le=1000, description="Guidance scale; 0 disables classifier-free guidance."
    )


class FastPreset(Preset):
    """A preset that has fewer steps unless it says otherwise."""

    steps: int = Field(default=6, ge=1, le=MAX_STEPS, description="Number of denoising steps.")


class Presets(FrozenModel):
    """Settings to generate images with, by name."""

    fast: FastPreset = Field(default=FastPreset(), description="Fewer steps or smaller images, in less time.")
    quality: Preset = Field(default=Preset(), description="What the model was made for.")


DEFAULT_PRESETS = Presets()
