"""Recipes: one YAML file says one device's artifact."""

from __future__ import annotations

import difflib
from pathlib import Path
from typing import Any, Literal, cast

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
    """The 4-bit grid: w = (q - z) * s over groups of input channels."""

    bits: Literal[4] = 4
    group_size: Literal[32, 64, 128] = 128
    zero_point: bool = True


class Quantization(Section):
    """What is pressed, on which grid, by which method."""

    method: Literal["rtn", "awq"] = "awq"
    components: tuple[str, ...] = ("transformer", "text_encoder")
    scheme: Scheme = Scheme()


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

    device: str
    description: str = ""
    model: str = "demo"
    dtype: Literal["auto", "float32", "bfloat16"] = "auto"
    quantize: Quantization = Quantization()
    calibration: Pictures = Pictures()
    evaluation: Pictures = Pictures(count=64)

    @model_validator(mode="after")
    def _components_named(self) -> Recipe:
        if not self.quantize.components:
            raise ValueError("quantize.components is empty; name at least one, such as [transformer]")
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
    for part in location[:-1]:
        annotation = section.model_fields[str(part)].annotation
        section = cast(type[BaseModel], annotation)
    return list(section.model_fields)
