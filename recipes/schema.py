"""The schema of recipes: one recipe describes what is made for one device, and how.

docs/recipes.md and `edgepress recipes show` are generated from the descriptions of the fields.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal, get_args

from pydantic import Field, ValidationError, field_validator, model_validator

from ..common.errors import UserError
from ..common.validation import explain_value
from ..numerics.quant_spec import QuantSpec, require_group_size
from .budget import parse_budget
from .execution import RuntimeSettings
from .frozen_model import FrozenModel, explain_settings, say_requirement
from .hardware import Hardware
from .presets import MAX_STEPS, Count, ImageSize, Presets, Side
from .rknn import RknnSettings

PRIMARY = "model"  # the scheme that the quantized model is stored in; `extra_schemes` are stored beside it
Step = Literal["scale", "clip", "range_search", "gptq", "scale_refit", "reround", "choose"]
METHOD_STEPS: dict[str, tuple[Step, ...]] = {
    "rtn": (),
    "awq": ("scale", "clip"),
    "gptq": ("gptq",),
    "best": ("choose",),
}
LARGE_MODEL_PARAMETERS = 5 * 10**8  # 1 GB in 16 bits, from where `dtype: auto` is bfloat16
NumTokens = Annotated[int, Field(ge=1, le=32_768)]
Opset = Annotated[int, Field(ge=1, le=1000)]
TuneMinutes = Annotated[float, Field(gt=0, le=10_080)]  # up to a week


class Scheme(FrozenModel):
    """How weights, and possibly activations, are quantized: w ≈ (q - zero_point) * scale."""

    RENAMED_KEYS: ClassVar[Mapping[str, str]] = {
        "zero_point": "symmetric",
        "narrow": "narrow_range",
        "keep_above": "max_output_error",
    }
    RENAMED_VALUES: ClassVar[Mapping[str, Mapping[str, str]]] = {"activations": {"float": "none"}}

    bits: Literal[4, 8] = Field(default=4, description="Bits per weight.")
    group_size: Literal[32, 64, 128, "channel"] = Field(
        default=128,
        description="Number of input channels that share a scale, or `channel` for one scale per output channel. "
        "Layers whose input width it does not divide take the largest of 64 and 32 below it that does.",
    )
    symmetric: bool = Field(
        default=False, description="Quantize symmetrically, without zero points, as TensorRT and NPUs require."
    )
    narrow_range: bool = Field(
        default=False,
        description="Leave out the lowest code, so that codes run from -7 to 7 with 4 bits and from -127 to 127 with "
        "8 bits. The scale is then max|w| / 7 or max|w| / 127. Requires `symmetric: true`.",
    )
    activations: Literal["none", "dynamic", "static"] = Field(
        default="none",
        description="Quantization of activations: `none` leaves them in floating point, `dynamic` quantizes them to "
        "8 bits with one scale per token, and `static` with one calibrated scale for all tokens. `dynamic` and "
        "`static` require `bits: 8`, `group_size: channel`, `symmetric: true` and `narrow_range: true`.",
    )
    max_output_error: float = Field(
        default=5e-4,
        gt=0,
        description="With quantized activations: the largest error that a linear layer may have, as a share of the "
        "power of its output. A layer with a larger error stays in floating point.",
    )

    @classmethod
    def upgrade_entry(cls, key: Any, value: Any) -> tuple[Any, Any]:
        """As in other sections; `symmetric` is the opposite of the earlier `zero_point`."""
        is_inverted = key == "zero_point" and isinstance(value, bool)
        return super().upgrade_entry(key, not value if is_inverted else value)

    @model_validator(mode="after")
    def _check_narrow_range(self) -> Scheme:
        if self.narrow_range and not self.symmetric:
            raise ValueError("narrow_range requires symmetric: true")
        return self

    @model_validator(mode="after")
    def _check_activations(self) -> Scheme:
        if self.quantizes_activations and (self.bits, self.group_size, self.narrow_range) != (8, "channel", True):
            raise ValueError(
                f"activations: {self.activations} requires bits: 8, group_size: channel, symmetric: true and "
                "narrow_range: true"
            )
        return self

    @property
    def quantizes_activations(self) -> bool:
        """Whether activations are quantized too."""
        return self.activations != "none"

    @property
    def is_symmetric_int4(self) -> bool:
        """Whether weights have 4 bits and no zero points, in groups."""
        return self.bits == 4 and self.symmetric and self.group_size != "channel"

    def resolve_group_size(self, in_features: int) -> int:
        """The number of inputs that share a scale in a linear layer with `in_features` inputs."""
        return in_features if self.group_size == "channel" else require_group_size(self.group_size, in_features)

    def to_spec(self, in_features: int) -> QuantSpec:
        """The integer format of the weight of a linear layer with `in_features` inputs."""
        return QuantSpec(self.bits, self.resolve_group_size(in_features), self.symmetric, self.narrow_range)


class QuantizationSettings(FrozenModel):
    """Which components are quantized, to which scheme and by which method."""

    RENAMED_KEYS: ClassVar[Mapping[str, str]] = {"also": "extra_schemes"}
    RENAMED_VALUES: ClassVar[Mapping[str, Mapping[str, str]]] = {
        "steps": {"range": "range_search", "refit": "scale_refit"}
    }

    method: Literal["rtn", "awq", "gptq", "best"] = Field(
        default="best",
        description="`rtn` rounds to nearest. `awq` searches for scales and clipping as AWQ does. `gptq` rounds with "
        "error feedback as GPTQ does. `best` chooses each layer's steps by its error on prompts that it is not solved "
        "on.",
    )
    steps: tuple[Step, ...] | None = Field(
        default=None,
        description="The steps to run, instead of those of `method`: any of `scale`, `clip`, `range_search`, `gptq`, "
        "`scale_refit` and `reround`, in this order; or `choose` alone, which is what `best` does.",
    )
    components: tuple[str, ...] | None = Field(
        default=None,
        description="Folders of the components to quantize, instead of the denoisers and text encoders. Linear "
        "layers of a VAE are not quantized; naming it removes its encoder, which generation does not use.",
    )
    scheme: Scheme = Field(
        default=Scheme(), description="The primary scheme: 4 bits in groups, which is stored in AutoAWQ's layout."
    )
    extra_schemes: dict[Annotated[str, Field(pattern=r"^[a-z0-9_-]+$")], Scheme] = Field(
        default={},
        description="Further schemes by name. They are solved from the same calibration and stored beside the model, "
        "for exports that need them.",
    )
    embeddings: Literal["keep", "int8"] = Field(
        default="keep", description="`int8` stores token embeddings with 8 bits, `keep` leaves them as they are."
    )
    conv: Literal["keep", "int8"] = Field(
        default="keep",
        description="`int8` stores the convolutions in repeated blocks with 8 bits and a scale per output channel: "
        "those of a U-Net, and of a VAE that `components` names. `keep` leaves them as they are.",
    )
    fp16_safe: bool = Field(
        default=False,
        description="Fold powers of two into the weights so that activations do not overflow float16.",
    )
    budget: str | None = Field(
        default=None,
        description="Mixed precision: `4.5bpw` for bits per quantized weight, or `3.6GB` for the size of all "
        "components. Each linear gets 4 bits in groups of 128, 64 or 32, 8 bits, or its original precision, by what "
        "its error does to the images. Without it, all have the primary scheme.",
    )
    tune: Annotated[
        Literal["off", "auto"] | TuneMinutes, say_requirement("write off, auto, or minutes such as 10, up to 10080")
    ] = Field(
        default="off",
        description="Train what stays in floating point (scales, norms, embedders) and, in small denoisers, 4-bit "
        "codes to the reference's outputs after quantization, without a byte more: `off`, `auto` for as long as "
        "validation improves, or about how many minutes. Minutes are translated into a number of steps that "
        "does not depend on the machine.",
    )

    @classmethod
    def upgrade_entry(cls, key: Any, value: Any) -> tuple[Any, Any]:
        """As in other sections; YAML reads `tune: off` as false."""
        return super().upgrade_entry(key, "off" if key == "tune" and value is False else value)

    @field_validator("budget")
    @classmethod
    def _check_budget(cls, value: str | None) -> str | None:
        if value is not None:
            parse_budget(value)
        return value

    @property
    def holds_out_prompts(self) -> bool:
        """Whether some calibration prompts are held out, to compare results on."""
        return self.chooses_steps or self.budget is not None

    @property
    def resolved_steps(self) -> tuple[Step, ...]:
        """The steps to run after plain rounding: those of `steps`, or else those of `method`."""
        return METHOD_STEPS[self.method] if self.steps is None else self.steps

    @property
    def chooses_steps(self) -> bool:
        """Whether validation chooses the steps of each layer."""
        return "choose" in self.resolved_steps

    @property
    def quantizes_activations(self) -> bool:
        """Whether one of the extra schemes quantizes activations."""
        return any(scheme.quantizes_activations for scheme in self.extra_schemes.values())

    @model_validator(mode="after")
    def _check_steps(self) -> QuantizationSettings:
        order = list(get_args(Step))
        if self.steps is not None and list(self.steps) != sorted(set(self.steps), key=order.index):
            raise ValueError(f"quantize.steps accepts {', '.join(order)}, each at most once and in this order")
        if self.steps is not None and "choose" in self.steps and len(self.steps) > 1:
            raise ValueError("quantize.steps: choose stands alone, since it chooses among the other steps")
        return self

    @model_validator(mode="after")
    def _check_budget_steps(self) -> QuantizationSettings:
        unsuitable = {"scale", "choose"}.intersection(self.resolved_steps)
        if self.budget is not None and unsuitable:
            raise ValueError(
                f"quantize.budget cannot be combined with the step {unsuitable.pop()}, which changes other layers as "
                "well; set method: gptq or method: rtn"
            )
        return self

    @model_validator(mode="after")
    def _check_schemes(self) -> QuantizationSettings:
        if PRIMARY in self.extra_schemes:
            raise ValueError(f"quantize.extra_schemes cannot contain {PRIMARY!r}, the name of the primary scheme")
        if self.scheme.bits != 4 or self.scheme.group_size == "channel":
            raise ValueError(
                "quantize.scheme must have 4 bits and groups of 32, 64 or 128; put other schemes into "
                "quantize.extra_schemes"
            )
        return self


class ExportSettings(FrozenModel):
    """Settings of `edgepress export onnx`."""

    RENAMED_KEYS: ClassVar[Mapping[str, str]] = {
        "flavour": "format",
        "floats": "float_dtype",
        "tokens": "max_prompt_tokens",
        "graphs": "extra_graphs",
    }

    precision: Literal["fp32", "fp16", "int4", "w8a8"] = Field(
        default="int4",
        description="`fp32` or `fp16` for floating point, `int4` for the quantized model's own weights, or `w8a8` for "
        "an extra scheme with quantized activations.",
    )
    format: Literal["ort", "qdq"] = Field(
        default="ort",
        description="How `int4` and `w8a8` are expressed: `ort` uses ONNX Runtime's quantized operators, `qdq` uses "
        "ONNX's QuantizeLinear and DequantizeLinear, as TensorRT requires.",
    )
    opset: Opset = Field(default=23, description="The ONNX opset version.")
    accuracy_level: Literal[0, 4] = Field(
        default=0,
        description="How ONNX Runtime multiplies `int4` weights: 0 in floating point, 4 in 8-bit integers.",
    )
    activations: Literal["dynamic", "static"] = Field(
        default="dynamic",
        description="How `w8a8` quantizes activations: with one scale per token, or with a calibrated scale, as `qdq` "
        "requires.",
    )
    float_dtype: Literal["fp32", "fp16"] = Field(
        default="fp32", description="The floating-point type of what `int4` does not quantize."
    )
    sizes: tuple[tuple[Side, Side], ...] = Field(
        default=(),
        description="Image sizes as [height, width] in pixels to verify, and with `shapes: fixed` to export. Empty "
        "for the model's native size.",
    )
    shapes: Literal["dynamic", "fixed"] = Field(
        default="dynamic",
        description="`fixed` exports each graph once for each of `sizes` and for prompts of up to `max_prompt_tokens` "
        "tokens, all with the same weights. `dynamic` exports one graph for all shapes.",
    )
    max_prompt_tokens: NumTokens = Field(
        default=128, description="The length of the longest prompt in tokens, for `shapes: fixed`."
    )
    extra_graphs: tuple[str, ...] = Field(
        default=(), description="Further graphs to export, such as `vae_encoder`, which generation does not need."
    )


GateLimit = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Percentage = Annotated[str, Field(pattern=r"^\d{1,6}(\.\d{1,9})?\s*%$")]
GateValue = Annotated[GateLimit | Percentage, say_requirement("write a number such as 2, or a percentage such as 2%")]


class GenerationSettings(FrozenModel):
    """Prompts and the settings to generate images with."""

    RENAMED_VALUES: ClassVar[Mapping[str, Mapping[str, str]]] = {"prompts": {"own": "auto"}}

    prompts: str = Field(
        default="auto",
        description="A prompt set: the name of a shipped set or the path of a file. `auto` takes the set in the "
        "pipeline's folder `prompts`, or else the shipped one.",
    )
    count: Count = Field(default=32, description="Number of prompts to use, from the start of the set.")
    size: ImageSize = Field(
        default="native", description="Size of the images as [height, width] in pixels, or `native`."
    )
    steps: int = Field(default=8, ge=1, le=MAX_STEPS, description="Number of denoising steps.")
    guidance: float = Field(
        default=0.0, ge=0, le=1000, description="Guidance scale; 0 disables classifier-free guidance."
    )
    negative_prompt: str = Field(default="", description="What guidance leads away from, unless a prompt says it.")


class EvaluationSettings(GenerationSettings):
    """What `edgepress evaluate` generates and measures, and the limits that a candidate must keep."""

    RENAMED_VALUES: ClassVar[Mapping[str, Mapping[str, str]]] = {"prompts": {"own": "auto"}, "clip": {"own": "auto"}}

    count: Count = Field(default=64, description="Number of prompts to use, from the start of the set.")
    gates: dict[str, GateValue] = Field(
        default={},
        description="Limits by name, such as `psnr_min: 30` or `text_accuracy_drop: 2`: in the unit of the score, or "
        "with `%` relative to the reference's mean. docs/evaluate.md lists them.",
    )
    strict: bool = Field(default=False, description="Count an inconclusive gate as failed.")
    noise_floor: bool = Field(
        default=False, description="Generate the reference's images twice and compare them with each other."
    )
    clip: str = Field(
        default="auto",
        description="The CLIP model, in the form that `evaluate --clip` accepts. `auto` takes the one that comes with "
        "the pipeline, if any.",
    )


class LargeModelSettings(FrozenModel):
    """What a recipe says otherwise for large pipelines. Only keys that are given replace those of the recipe."""

    SAME_KEYS: ClassVar[bool] = True

    dtype: Literal["auto", "float32", "bfloat16"] = Field(default="auto", description="As in the recipe.")
    quantize: QuantizationSettings = Field(default=QuantizationSettings(), description="As in the recipe.")
    export: ExportSettings = Field(default=ExportSettings(), description="As in the recipe.")
    rknn: RknnSettings = Field(default=RknnSettings(), description="As in the recipe.")
    calibration: GenerationSettings = Field(default=GenerationSettings(), description="As in the recipe.")
    evaluation: EvaluationSettings = Field(default=EvaluationSettings(), description="As in the recipe.")
    presets: Presets = Field(default=Presets(), description="As in the recipe.")


class Recipe(FrozenModel):
    """Everything that is made for one device."""

    device: str = Field(
        pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$",
        description="Name of the device. The artifact is written to artifacts/DEVICE.",
    )
    description: str = Field(default="", description="What the recipe is for, in a line.")
    model: str = Field(
        default="demo", description="The pipeline: a diffusers folder, a Hugging Face Hub id, or `demo`."
    )
    loras: tuple[str, ...] = Field(
        default=(),
        description="LoRAs to merge into the weights before calibration, each as `PATH` or `PATH:WEIGHT`: a "
        "safetensors file, a folder with one, or `demo`.",
    )
    dtype: Literal["auto", "float32", "bfloat16"] = Field(
        default="auto",
        description="What the reference computes in. `auto` is float32 for pipelines under 1 GB and bfloat16 for "
        "larger ones.",
    )
    hardware: Hardware | None = Field(
        default=None, description="What the device has, for `edgepress plan`. Nothing that is made depends on it."
    )
    quantize: QuantizationSettings = Field(
        default=QuantizationSettings(), description="Which components are quantized, and how."
    )
    export: ExportSettings = Field(default=ExportSettings(), description="Settings of the ONNX export.")
    rknn: RknnSettings | None = Field(default=None, description="Settings of the RKNN export, for Rockchip's NPUs.")
    calibration: GenerationSettings = Field(
        default=GenerationSettings(), description="Prompts and settings to calibrate with."
    )
    evaluation: EvaluationSettings = Field(
        default=EvaluationSettings(), description="What is evaluated, and which limits a candidate must keep."
    )
    presets: Presets = Field(
        default=Presets(), description="Settings to generate images with on the device, by the name that users give."
    )
    runtime: RuntimeSettings = Field(
        default=RuntimeSettings(), description="How `generate`, `serve` and `bench` run graphs on the device's CPU."
    )
    large_model: LargeModelSettings | None = Field(
        default=None,
        description="What differs for pipelines of 500 million parameters and more: any of `dtype` and of the sections "
        "`quantize`, `export`, `rknn`, `calibration`, `evaluation` and `presets`, with only the keys that differ.",
    )

    if not TYPE_CHECKING:  # which knows the keys

        def __init__(self, **values: Any) -> None:
            try:
                super().__init__(**values)
            except ValidationError as error:
                raise UserError(f"Recipe: {explain_settings(Recipe, error)}") from error

        __init__.__pydantic_base_init__ = True  # so that `model_validate` goes on raising ValidationError

    def for_model(self, parameters: int) -> Recipe:
        """The recipe for a pipeline of a size: with what `large_model` says, if the pipeline is large.

        Args:
            parameters: Number of parameters of all components.
        """
        is_large = self.large_model is not None and parameters >= LARGE_MODEL_PARAMETERS
        recipe = _override(self, self.large_model) if is_large else self
        return recipe.model_copy(update={"large_model": None})

    @model_validator(mode="after")
    def _check_large_model(self) -> Recipe:
        """What its keys are valid with is known only together with the keys that do not differ."""
        if self.large_model is not None:
            try:
                Recipe.model_validate(self.for_model(LARGE_MODEL_PARAMETERS).model_dump())
            except ValidationError as error:
                raise ValueError(f"with the keys of large_model, {explain_value(error.errors()[0])}") from error
        return self

    @model_validator(mode="after")
    def _check_components(self) -> Recipe:
        components = self.quantize.components
        if components == ():
            raise ValueError("quantize.components is empty; name at least one, such as [transformer]")
        if components and len(set(components)) < len(components):
            raise ValueError("quantize.components names a component twice; name each once")
        return self


def _override(section: Any, changes: Any) -> Any:
    """Replaces the keys of a section that are set in another one; sections within are treated alike."""
    update = {key: getattr(changes, key) for key in changes.model_fields_set}
    nested = {key: getattr(section, key) for key in update if isinstance(getattr(section, key), FrozenModel)}
    return section.model_copy(update=update | {key: _override(old, update[key]) for key, old in nested.items()})
