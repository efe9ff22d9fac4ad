"""Recipes: one YAML file says one device's artifact."""

from __future__ import annotations

import difflib
from pathlib import Path
from typing import Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

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
    count: int = Field(32, ge=1)
    size: Literal["native"] | tuple[int, int] = "native"
    steps: int = Field(8, ge=1)
    guidance: float = Field(0.0, ge=0)


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
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise UserError(f"Recipe {path} is not readable YAML: {' '.join(str(error).split())}.") from error
    if not isinstance(content, dict):
        raise UserError(f"Recipe {path} is not a mapping of keys to values; start it with 'device: NAME'.")
    try:
        return Recipe.model_validate(content)
    except ValidationError as error:
        raise UserError(f"Recipe {path}: {_explain(error, content)}") from error


def _explain(error: ValidationError, content: dict[str, Any]) -> str:
    """The first thing that is wrong, in a sentence."""
    first = error.errors()[0]
    key = ".".join(str(part) for part in first["loc"] if part not in ("literal['native']", "tuple[int, int]"))
    if first["type"] == "extra_forbidden":
        known = _keys_beside(first["loc"])
        near = difflib.get_close_matches(str(first["loc"][-1]), known, 1)
        hint = f"did you mean {near[0]!r}?" if near else f"known here: {', '.join(known)}."
        return f"the key {key!r} is unknown; {hint}"
    if first["type"] == "missing":
        return f"the key {key!r} is missing; add it."
    if not key:
        return f"{first['msg'].removeprefix('Value error, ')}."
    return f"{key} = {first['input']!r}: {first['msg'][0].lower()}{first['msg'][1:]}."


def _keys_beside(location: tuple[int | str, ...]) -> list[str]:
    section: type[BaseModel] = Recipe
    for part in location[:-1]:
        annotation = section.model_fields[str(part)].annotation
        assert isinstance(annotation, type) and issubclass(annotation, BaseModel)
        section = annotation
    return list(section.model_fields)
