"""Recipes: one YAML file says one device's artifact."""

from __future__ import annotations

import difflib
from pathlib import Path
from typing import Annotated, Any, Literal, cast, get_args, get_origin

import yaml
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

from .errors import UserError

FOLDER = Path(__file__).parent / "recipes"


class Section(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Scheme(Section):
    """The grid: w = (q - z) * s over groups of input channels, or over all of them (`channel`).

    `narrow` grids have no zero point and no lowest code: s is the largest |w| of a group over 7 (127 with 8 bits).
    """

    bits: Literal[4, 8] = 4
    group_size: Literal[32, 64, 128, "channel"] = 128
    zero_point: bool = True
    narrow: bool = False

    @model_validator(mode="after")
    def _narrow_is_symmetric(self) -> Scheme:
        if self.narrow and self.zero_point:
            raise ValueError("narrow grids have no zero point; add zero_point: false")
        return self

    def group_of(self, width: int) -> int:
        """The size of a group in a linear of that many inputs."""
        return width if self.group_size == "channel" else self.group_size


MAIN = "model"  # the solution that the model is made of, beside those of `also`
Step = Literal["scale", "clip", "range", "gptq", "refit"]
METHODS: dict[str, tuple[Step, ...]] = {"rtn": (), "awq": ("scale", "clip"), "best": ("gptq",)}


class Quantization(Section):
    """What is pressed, on which grid, by which method.

    steps: the rungs of the ladder by name, in its order, instead of a method. also: further grids to solve for from the
    same statistics, by name. embeddings: token embeddings in 8 bits, or as they are. fp16_safe: powers of two are
    folded so that float16 does not overflow.
    """

    method: Literal["rtn", "awq", "best"] = "best"
    steps: tuple[Step, ...] | None = None
    components: tuple[str, ...] = ("transformer", "text_encoder")
    scheme: Scheme = Scheme()
    also: dict[Annotated[str, Field(pattern=r"^[a-z0-9_-]+$")], Scheme] = {}
    embeddings: Literal["keep", "int8"] = "keep"
    fp16_safe: bool = False

    @property
    def rungs(self) -> tuple[Step, ...]:
        """The steps above rounding alone."""
        return METHODS[self.method] if self.steps is None else self.steps

    @model_validator(mode="after")
    def _in_the_order_of_the_ladder(self) -> Quantization:
        order = list(get_args(Step))
        if self.steps is not None and list(self.steps) != sorted(set(self.steps), key=order.index):
            raise ValueError(f"quantize.steps must be some of {', '.join(order)}, each once and in this order")
        return self

    @model_validator(mode="after")
    def _awq_holds_the_main_grid(self) -> Quantization:
        if MAIN in self.also:
            raise ValueError(f"quantize.also must not hold the name {MAIN}, which is that of the main grid")
        if self.scheme.bits != 4 or self.scheme.group_size == "channel":
            raise ValueError(
                "quantize.scheme must have 4 bits and groups of 32, 64 or 128; others go into quantize.also"
            )
        return self


class Export(Section):
    """Graphs for a device.

    precision: fp32, fp16, or the pressed model's own int4. flavour: of int4; `ort` multiplies by the codes with ONNX
    Runtime's operator, `qdq` dequantizes symmetric blocks with ONNX's own, as TensorRT wants. accuracy_level: of `ort`;
    0 multiplies in floats, 4 in 8-bit integers.
    """

    precision: Literal["fp32", "fp16", "int4"] = "int4"
    flavour: Literal["ort", "qdq"] = "ort"
    opset: int = 23
    accuracy_level: Literal[0, 4] = 0


class Pictures(Section):
    """Prompts to run, and how. `own` prompts come with the pipeline folder, or else from recipes/prompts/."""

    prompts: str = "own"
    count: int = Field(default=32, ge=1)
    size: Literal["native"] | tuple[PositiveInt, PositiveInt] = "native"
    steps: int = Field(default=8, ge=1)
    guidance: float = Field(default=0.0, ge=0)

    @field_validator("size", mode="wrap")
    @classmethod
    def _native_or_pair(cls, value: Any, check: ValidatorFunctionWrapHandler) -> Any:
        try:
            return check(value)
        except ValidationError as error:
            raise ValueError("write native, or [H, W] in pixels") from error


class Recipe(Section):
    """One device's artifact.

    `dtype` is what the reference computes in; `auto` takes float32 for weights under 1 GB and bfloat16 above.
    """

    device: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")
    description: str = ""
    model: str = "demo"
    dtype: Literal["auto", "float32", "bfloat16"] = "auto"
    quantize: Quantization = Quantization()
    export: Export = Export()
    calibration: Pictures = Pictures()
    evaluation: Pictures = Pictures(count=64)

    @model_validator(mode="after")
    def _components_named(self) -> Recipe:
        if not self.quantize.components:
            raise ValueError("quantize.components is empty; name at least one, such as [transformer]")
        if len(set(self.quantize.components)) < len(self.quantize.components):
            raise ValueError("quantize.components names a component twice; name each once")
        return self


def names() -> list[str]:
    """The devices that recipes are shipped for."""
    return sorted(path.stem for path in FOLDER.glob("*.yaml"))


def load(name: str) -> Recipe:
    """The recipe of a device that is shipped, or of a YAML file.

    Raises:
        UserError: unknown device, unreadable file, unknown key (the nearest known one is suggested), wrong value.
    """
    path = Path(name) if name.endswith((".yaml", ".yml")) else FOLDER / f"{name}.yaml"
    if not path.exists():
        known = f"Devices: {', '.join(names())}."
        if path.parent == FOLDER:
            raise UserError(f"There is no recipe for the device {name!r}. {known}")
        raise UserError(f"There is no recipe file {path}. {known}")
    try:
        content = yaml.safe_load(path.read_text("utf-8"))
    except (OSError, ValueError, yaml.YAMLError) as error:
        raise UserError(f"Recipe {path} is not readable YAML: {' '.join(str(error).split())}.") from error
    if not isinstance(content, dict):
        raise UserError(f"Recipe {path} is not a mapping of keys to values; start it with 'device: NAME'.")
    try:
        return Recipe.model_validate(content)
    except ValidationError as error:
        raise UserError(f"Recipe {path}: {_explain(error)}") from error


def _explain(error: ValidationError) -> str:
    """The first thing that is wrong, in a sentence."""
    errors = error.errors()
    # A typo comes first: the key that was meant may be missing because of it.
    first = next((one for one in errors if one["type"] == "extra_forbidden"), errors[0])
    key = ".".join(str(part) for part in first["loc"])
    if first["type"] == "extra_forbidden":
        known = _keys_beside(first["loc"])
        near = difflib.get_close_matches(str(first["loc"][-1]), known, 1)
        hint = f"did you mean {near[0]!r}?" if near else f"known here: {', '.join(known)}."
        return f"the key {key!r} is unknown; {hint}"
    if first["type"] == "missing":
        return f"the key {key!r} is missing; add it."
    message = first["msg"].removeprefix("Value error, ")
    return f"{key} = {first['input']!r}: {message[0].lower()}{message[1:]}." if key else f"{message}."


def _keys_beside(location: tuple[int | str, ...]) -> list[str]:
    section: type[BaseModel] = Recipe
    parts = iter(location[:-1])
    for part in parts:
        annotation = section.model_fields[str(part)].annotation
        if get_origin(annotation) is dict:
            next(parts, None)
            annotation = get_args(annotation)[1]
        section = cast(type[BaseModel], annotation)
    return list(section.model_fields)
