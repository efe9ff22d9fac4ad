"""What a flow-matching scheduler's config says about its schedule, checked without numpy."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, Literal

from pydantic import BaseModel, Field, ValidationError

from ..common.errors import UserError
from ..common.validation import explain_value, format_value

SCHEDULER_CLASS = "FlowMatchEulerDiscreteScheduler"
ADVICE = "Download the model again, or export it again."
# Options of the scheduler's config that no supported pipeline was published with.
UNSUPPORTED_OPTIONS = (
    "use_karras_sigmas", "use_exponential_sigmas", "use_beta_sigmas", "invert_sigmas", "stochastic_sampling",
)  # fmt: skip


class SchedulerConfig(BaseModel):
    """The options of a scheduler's config that its schedule depends on; others are ignored."""

    shift: float = Field(default=1.0, gt=0, le=1e4, description="The shift, unless it depends on the image.")
    use_dynamic_shifting: bool = Field(default=False, description="Whether it does.")
    base_shift: float = Field(default=0.5, ge=-10, le=10, description="mu of an image of `base_image_seq_len` tokens.")
    max_shift: float = Field(default=1.15, ge=-10, le=10, description="mu of an image of `max_image_seq_len` tokens.")
    base_image_seq_len: int = Field(default=256, ge=0, description="A number of image tokens.")
    max_image_seq_len: int = Field(default=4096, ge=0, description="Another number of image tokens.")
    time_shift_type: Literal["exponential", "linear"] = Field(
        default="exponential", description="The shift: e^mu or mu."
    )
    shift_terminal: float | None = Field(default=None, ge=0, lt=1, description="The last sigma to stretch to, if any.")
    num_train_timesteps: int = Field(default=1000, gt=0, le=10**6, description="Timesteps at sigma 1.")


def check_schedule(config: Mapping[str, Any]) -> None:
    """Checks the values that a schedule depends on, of a scheduler that is known; options may be unsupported ones.

    Args:
        config: Config of the scheduler.

    Raises:
        UserError: A value is invalid.
    """
    if config.get("_class_name") == SCHEDULER_CLASS:
        settings = read_scheduler_config(
            {key: value for key, value in config.items() if key not in UNSUPPORTED_OPTIONS}
        )
        if settings.use_dynamic_shifting:
            compute_shift(settings, 1)


def compute_shift(config: SchedulerConfig, image_tokens: int) -> float:
    """Returns the shift of an image: e^mu or mu, where mu is linear in the number of image tokens."""
    base_shift, base_tokens = config.base_shift, config.base_image_seq_len
    try:
        tokens = config.max_image_seq_len - base_tokens
        mu = base_shift + (config.max_shift - base_shift) * (image_tokens - base_tokens) / tokens
        shift = math.exp(mu) if config.time_shift_type == "exponential" else mu
    except ArithmeticError as error:
        raise UserError(
            f"Invalid scheduler config: base_image_seq_len = {config.base_image_seq_len} and max_image_seq_len = "
            f"{config.max_image_seq_len} give no shift for an image of {image_tokens} tokens. {ADVICE}"
        ) from error
    return shift


def read_scheduler_config(config: Mapping[str, Any]) -> SchedulerConfig:
    """Reads a scheduler's config.

    Raises:
        UserError: It names another scheduler, an unsupported option or an invalid value.
    """
    name = config.get("_class_name", SCHEDULER_CLASS)
    options = [key for key in UNSUPPORTED_OPTIONS if config.get(key)]
    if name != SCHEDULER_CLASS or options:
        what = f"option {', '.join(options)}" if options else format_value(name)
        raise UserError(f"Unsupported scheduler {what}. Generate images with diffusers instead.")
    try:
        return SchedulerConfig.model_validate(config, strict=True)
    except ValidationError as error:
        raise UserError(f"Invalid scheduler config: {explain_value(error.errors()[0])}. {ADVICE}") from error
