"""What the configs of schedulers say about their schedules, checked without numpy."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, Literal, TypeVar

from pydantic import BaseModel, Field, ValidationError

from ..common.errors import UserError
from ..common.suggest import find_misspelling
from ..common.validation import explain_value, format_value

Schema = TypeVar("Schema", bound=BaseModel)
MAX_IMAGE_TOKENS = 10**8
FLOW_MATCHING, EULER = "FlowMatchEulerDiscreteScheduler", "EulerDiscreteScheduler"
ADVICE = "Download the model again, or export it again."
# Options of the schedulers' configs that no supported pipeline was published with.
UNSUPPORTED_OPTIONS = {
    FLOW_MATCHING: (
        "use_karras_sigmas", "use_exponential_sigmas", "use_beta_sigmas", "invert_sigmas", "stochastic_sampling",
    ),
    EULER: (
        "use_karras_sigmas", "use_exponential_sigmas", "use_beta_sigmas", "rescale_betas_zero_snr", "trained_betas",
    ),
}  # fmt: skip


class SchedulerConfig(BaseModel):
    """The options of a flow-matching scheduler's config that its schedule depends on; others are ignored."""

    shift: float = Field(default=1.0, gt=0, le=1e4, description="The shift, unless it depends on the image.")
    use_dynamic_shifting: bool = Field(default=False, description="Whether it does.")
    base_shift: float = Field(default=0.5, ge=-10, le=10, description="mu of an image of `base_image_seq_len` tokens.")
    max_shift: float = Field(default=1.15, ge=-10, le=10, description="mu of an image of `max_image_seq_len` tokens.")
    base_image_seq_len: int = Field(default=256, ge=0, le=MAX_IMAGE_TOKENS, description="A number of image tokens.")
    max_image_seq_len: int = Field(
        default=4096, ge=0, le=MAX_IMAGE_TOKENS, description="Another number of image tokens."
    )
    time_shift_type: Literal["exponential", "linear"] = Field(
        default="exponential", description="The shift: e^mu or mu."
    )
    shift_terminal: float | None = Field(default=None, ge=0, lt=1, description="The last sigma to stretch to, if any.")
    num_train_timesteps: int = Field(default=1000, gt=0, le=10**6, description="Timesteps at sigma 1.")


class EulerConfig(BaseModel):
    """The options of an Euler scheduler's config that its schedule depends on; others are ignored."""

    num_train_timesteps: int = Field(default=1000, gt=0, le=10**6, description="Timesteps that the model knows.")
    beta_start: float = Field(default=0.0001, gt=0, lt=1, description="beta of the first timestep.")
    beta_end: float = Field(default=0.02, gt=0, lt=1, description="beta of the last timestep.")
    beta_schedule: Literal["linear", "scaled_linear"] = Field(default="linear", description="What is linear.")
    prediction_type: Literal["epsilon", "v_prediction", "sample"] = Field(
        default="epsilon", description="What the denoiser predicts."
    )
    interpolation_type: Literal["linear"] = Field(default="linear", description="How sigmas are interpolated.")
    timestep_spacing: Literal["linspace", "leading", "trailing"] = Field(
        default="linspace", description="How timesteps are spread."
    )
    timestep_type: Literal["discrete"] = Field(default="discrete", description="What the denoiser takes as time.")
    steps_offset: int = Field(default=0, ge=0, le=10**6, description="What is added to timesteps spread as `leading`.")
    final_sigmas_type: Literal["zero", "sigma_min"] = Field(default="zero", description="The sigma after all steps.")


SCHEMAS: Mapping[str, type[BaseModel]] = {FLOW_MATCHING: SchedulerConfig, EULER: EulerConfig}


def check_schedule(config: Mapping[str, Any]) -> None:
    """Checks the values that a schedule depends on, of a scheduler that is known; options may be unsupported ones.

    Args:
        config: Config of the scheduler.

    Raises:
        UserError: A value is invalid.
    """
    name = config.get("_class_name")
    if name == FLOW_MATCHING:
        unsupported = UNSUPPORTED_OPTIONS[FLOW_MATCHING]
        settings = read_scheduler_config({key: value for key, value in config.items() if key not in unsupported})
        if settings.use_dynamic_shifting:
            compute_shift(settings, 1)


def check_supported_schedule(config: Mapping[str, Any], class_name: str) -> None:
    """Checks that the runtime has the schedule that a config describes: also that it asks for no unsupported option.

    Args:
        config: Config of the scheduler.
        class_name: The scheduler that the runtime has for the pipeline.

    Raises:
        UserError: It names another scheduler, an unsupported option or an invalid value.
    """
    if class_name == EULER:
        read_euler_config(config)
        return
    settings = read_scheduler_config(config)
    if settings.use_dynamic_shifting:
        compute_shift(settings, 1)


def require_two_ends(config: Mapping[str, Any], steps: int) -> None:
    """Checks that a schedule that is stretched to end at `shift_terminal` has a beginning and an end.

    Args:
        config: Config of the scheduler.
        steps: Number of denoising steps.

    Raises:
        UserError: It has one step.
    """
    if steps == 1 and config.get("shift_terminal"):
        raise UserError(
            f"Invalid number of steps {steps}: a schedule that ends at shift_terminal has at least 2. Choose more."
        )


def find_misspelt_options(config: Mapping[str, Any]) -> dict[str, str]:
    """Finds the options of a scheduler that are probably misspelt, and what was probably meant.

    Args:
        config: Config of a scheduler. Of those that the runtime does not have, nothing is known.
    """
    name = str(config.get("_class_name"))
    if name not in SCHEMAS:
        return {}
    known = {*SCHEMAS[name].model_fields, *UNSUPPORTED_OPTIONS[name]}
    meant = {key: find_misspelling(key, known - config.keys()) for key in config.keys() - known}
    return {key: option for key, option in sorted(meant.items()) if option and not key.startswith("_")}


def compute_shift(config: SchedulerConfig, image_tokens: int, mu: float | None = None) -> float:
    """Returns the shift of an image: e^mu or mu, where mu is linear in the number of image tokens.

    Args:
        config: Config of the scheduler.
        image_tokens: Number of image tokens.
        mu: The pipeline's own mu, in place of the one that the config says.
    """
    base_shift, base_tokens = config.base_shift, config.base_image_seq_len
    try:
        if mu is None:
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
    """Reads the config of a flow-matching scheduler.

    Raises:
        UserError: It names another scheduler, an unsupported option or an invalid value.
    """
    return _read_config(config, FLOW_MATCHING, SchedulerConfig)


def read_euler_config(config: Mapping[str, Any]) -> EulerConfig:
    """Reads the config of an Euler scheduler.

    Raises:
        UserError: It names another scheduler, an unsupported option or an invalid value.
    """
    return _read_config(config, EULER, EulerConfig)


def _read_config(config: Mapping[str, Any], class_name: str, schema: type[Schema]) -> Schema:
    name = config.get("_class_name", class_name)
    if name != class_name:
        raise UserError(f"Unsupported scheduler {format_value(name)}. Generate images with diffusers instead.")
    options = [f"{key} = {format_value(config[key])}" for key in UNSUPPORTED_OPTIONS[class_name] if config.get(key)]
    if options:
        raise UserError(
            f"Unsupported scheduler option {', '.join(options)}. Remove it, or generate images with diffusers instead."
        )
    try:
        return schema.model_validate(config, strict=True)
    except ValidationError as error:
        raise UserError(f"Invalid scheduler config: {explain_value(error.errors()[0])}. {ADVICE}") from error
