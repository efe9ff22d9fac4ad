"""Recipes: one YAML file says one device's artifact."""

from __future__ import annotations

from typing import Annotated, Any, Literal, get_args

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    PositiveInt,
    ValidationError,
    ValidatorFunctionWrapHandler,
    field_validator,
    model_validator,
)


class FrozenModel(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Scheme(FrozenModel):
    """The grid: w = (q - z) * s over groups of input channels, or over all of them (`channel`).

    `narrow` grids have no zero point and no lowest code: s is the largest |w| of a group over 7 (127 with 8 bits).

    activations: `float` leaves them as they are; 8-bit weights may be multiplied with activations in 8 bits too, on a
    scale of each token (`dynamic`) or on one from calibration for all tokens (`static`). keep_above: the share of a
    linear's output power that both roundings may cost; a linear that loses more stays in floats.
    """

    bits: Literal[4, 8] = 4
    group_size: Literal[32, 64, 128, "channel"] = 128
    zero_point: bool = True
    narrow_range: bool = False
    activations: Literal["float", "dynamic", "static"] = "float"
    max_output_error: float = Field(default=5e-4, gt=0)

    @model_validator(mode="after")
    def _check_narrow_range(self) -> Scheme:
        if self.narrow_range and self.zero_point:
            raise ValueError("narrow grids have no zero point; add zero_point: false")
        return self

    @model_validator(mode="after")
    def _check_activations(self) -> Scheme:
        if self.quantizes_activations and (self.bits, self.group_size, self.narrow_range) != (8, "channel", True):
            raise ValueError(
                "activations in 8 bits go with weights of bits: 8, group_size: channel, zero_point: false, narrow: true"
            )
        return self

    @property
    def quantizes_activations(self) -> bool:
        return self.activations != "float"

    def resolve_group_size(self, width: int) -> int:
        """The size of a group in a linear of that many inputs."""
        return width if self.group_size == "channel" else self.group_size


PRIMARY = "model"  # the solution that the model is made of, beside those of `also`
Step = Literal["scale", "clip", "range", "gptq", "refit"]
METHOD_STEPS: dict[str, tuple[Step, ...]] = {"rtn": (), "awq": ("scale", "clip"), "best": ("gptq",)}


class QuantizationSettings(FrozenModel):
    """What is pressed, on which grid, by which method.

    steps: the rungs of the ladder by name, in its order, instead of a method. also: further grids to solve for from the
    same statistics, by name. embeddings: token embeddings in 8 bits, or as they are. fp16_safe: powers of two are
    folded so that float16 does not overflow.
    """

    method: Literal["rtn", "awq", "best"] = "best"
    steps: tuple[Step, ...] | None = None
    components: tuple[str, ...] = ("transformer", "text_encoder")
    scheme: Scheme = Scheme()
    extra_schemes: dict[Annotated[str, Field(pattern=r"^[a-z0-9_-]+$")], Scheme] = {}
    embeddings: Literal["keep", "int8"] = "keep"
    fp16_safe: bool = False

    @property
    def resolved_steps(self) -> tuple[Step, ...]:
        """The steps above rounding alone."""
        return METHOD_STEPS[self.method] if self.steps is None else self.steps

    @property
    def quantizes_activations(self) -> bool:
        """Whether a further grid is solved for activations in 8 bits."""
        return any(scheme.quantizes_activations for scheme in self.extra_schemes.values())

    @model_validator(mode="after")
    def _check_steps(self) -> QuantizationSettings:
        order = list(get_args(Step))
        if self.steps is not None and list(self.steps) != sorted(set(self.steps), key=order.index):
            raise ValueError(f"quantize.steps must be some of {', '.join(order)}, each once and in this order")
        return self

    @model_validator(mode="after")
    def _check_schemes(self) -> QuantizationSettings:
        if PRIMARY in self.extra_schemes:
            raise ValueError(f"quantize.also must not hold the name {PRIMARY}, which is that of the main grid")
        if self.scheme.bits != 4 or self.scheme.group_size == "channel":
            raise ValueError(
                "quantize.scheme must have 4 bits and groups of 32, 64 or 128; others go into quantize.also"
            )
        return self


class ExportSettings(FrozenModel):
    """Graphs for a device.

    precision: fp32, fp16, the pressed model's own int4, or w8a8 from a solution of `quantize.also` that rounds
    activations. flavour: of int4 and w8a8; `ort` multiplies by the codes with ONNX Runtime's operators, `qdq`
    dequantizes with ONNX's own, as TensorRT wants. accuracy_level: of int4 as ONNX Runtime multiplies; 0 in floats, 4
    in 8-bit integers. activations: of w8a8; on a scale of each token, or on one from calibration, as `qdq` needs.

    floats: of int4, what is not in codes. sizes: heights and widths of the pictures that are checked; none: the model's
    native one. shapes: `fixed` makes a file of each graph for each of the sizes and for prompts of up to `tokens`
    tokens, all with the same weights. graphs: further ones, which painting does not need.
    """

    precision: Literal["fp32", "fp16", "int4", "w8a8"] = "int4"
    format: Literal["ort", "qdq"] = "ort"
    opset: int = 23
    accuracy_level: Literal[0, 4] = 0
    activations: Literal["dynamic", "static"] = "dynamic"
    float_dtype: Literal["fp32", "fp16"] = "fp32"
    sizes: tuple[tuple[PositiveInt, PositiveInt], ...] = ()
    shapes: Literal["dynamic", "fixed"] = "dynamic"
    max_prompt_tokens: PositiveInt = 128
    extra_graphs: tuple[str, ...] = ()


class RknnSettings(FrozenModel):
    """Parts for the NPU of a Rockchip board.

    precision: fp16; w8a8 and w4a16 take solutions of `quantize.also`, and what has none stays fp16; `auto` tries the
    one that the target has, and takes fp16 for parts that lose too much by it. size and tokens: of every picture and of
    the longest prompt, as shapes are fixed. cpu: graphs that ONNX Runtime runs on the CPU, in the model's own INT4.
    blocks: most that one part may have, as the time to build it grows faster than they do. build_memory: GiB that
    building a part may take. samples: prompts that are painted to calibrate w8a8. memory: GiB that the board has. tile:
    side in pixels of the tiles that pictures are decoded in, for those whose decoder takes too much memory as a whole.
    """

    target: Literal["rk3588", "rk3576"] = "rk3588"
    memory: float = Field(default=8, gt=0)
    precision: Literal["fp16", "w8a8", "w4a16", "auto"] = "fp16"
    size: Literal["native"] | tuple[PositiveInt, PositiveInt] = "native"
    max_prompt_tokens: int = Field(default=96, ge=32, multiple_of=32)
    cpu: tuple[str, ...] = ()
    blocks: int = Field(default=3, ge=1)
    build_memory: float = Field(default=8, gt=0)
    samples: int = Field(default=4, ge=1)
    tile: Annotated[int, Field(ge=64, multiple_of=16)] | None = None


GateLimit = Annotated[float, Field(ge=0, allow_inf_nan=False)]  # of a gate


class GenerationSettings(FrozenModel):
    """Prompts to run, and how. `own` prompts come with the pipeline folder, or else from recipes/prompts/."""

    prompts: str = "own"
    count: int = Field(default=32, ge=1)
    size: Literal["native"] | tuple[PositiveInt, PositiveInt] = "native"
    steps: int = Field(default=8, ge=1)
    guidance: float = Field(default=0.0, ge=0)

    @field_validator("size", mode="wrap")
    @classmethod
    def _check_size(cls, value: Any, check: ValidatorFunctionWrapHandler) -> Any:
        try:
            return check(value)
        except ValidationError as error:
            raise ValueError("write native, or [H, W] in pixels") from error


class EvaluationSettings(GenerationSettings):
    """What is painted to compare, and what a variant must not lose.

    gates: limits by name, such as `psnr_min: 30` or `text_accuracy_drop: 2`, in the score's unit, or with `%` relative
    to the reference's mean (docs/evaluate.md). strict: a gate that stays inconclusive fails. noise_floor: the reference
    is run again, and compared with itself. clip: as `--clip`; `own` is the one that comes with the pipeline, if any.
    """

    count: int = Field(default=64, ge=1)
    gates: dict[str, GateLimit | Annotated[str, Field(pattern=r"^\d+(\.\d+)?\s*%$")]] = {}
    strict: bool = False
    noise_floor: bool = False
    clip: str = "own"

    @field_validator("gates", mode="wrap")
    @classmethod
    def _check_gates(cls, value: Any, check: ValidatorFunctionWrapHandler) -> Any:
        try:
            return check(value)
        except ValidationError as error:
            raise ValueError("write names with numbers such as 2, or with per cent such as 2%") from error


class Recipe(FrozenModel):
    """One device's artifact.

    `dtype` is what the reference computes in; `auto` takes float32 for weights under 1 GB and bfloat16 above.
    """

    device: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")
    description: str = ""
    model: str = "demo"
    dtype: Literal["auto", "float32", "bfloat16"] = "auto"
    quantize: QuantizationSettings = QuantizationSettings()
    export: ExportSettings = ExportSettings()
    rknn: RknnSettings | None = None
    calibration: GenerationSettings = GenerationSettings()
    evaluation: EvaluationSettings = EvaluationSettings()

    @model_validator(mode="after")
    def _check_components(self) -> Recipe:
        if not self.quantize.components:
            raise ValueError("quantize.components is empty; name at least one, such as [transformer]")
        if len(set(self.quantize.components)) < len(self.quantize.components):
            raise ValueError("quantize.components names a component twice; name each once")
        return self
