"""How other programs name a component's tensors where its weights are one file, as plain data."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from ...common.errors import UserError

Config = Mapping[str, Any]


@dataclass(frozen=True)
class FusedRows:
    """Linear layers that are one layer in the file: their outputs, one after another.

    Attributes:
        parts: What the names of their tensors end with, after renaming, in the order of the rows.
        fused: What the name of the one tensor ends with.
    """

    parts: tuple[str, ...]
    fused: str


def fuse_layers(parts: tuple[str, ...], fused: str) -> tuple[FusedRows, ...]:
    """The weights and the biases of layers that are one layer in the file.

    Args:
        parts: What the names of the layers end with, after renaming, in the order of the rows.
        fused: What the name of the one layer ends with.
    """
    return tuple(FusedRows(tuple(f"{part}.{kind}" for part in parts), f"{fused}.{kind}") for kind in ("weight", "bias"))


@dataclass(frozen=True)
class FileTensor:
    """A tensor of a file.

    Attributes:
        parts: The component's tensors that are its rows, one after another.
        has_swapped_halves: Whether the second half of the rows stands first in the file.
    """

    parts: tuple[str, ...]
    has_swapped_halves: bool = False


@dataclass(frozen=True)
class SingleFileNames:
    """The names of a component's tensors in one file.

    Attributes:
        renames: Regular expressions and what replaces each match, one after another.
        fused: Linear layers that are one layer in the file.
        swapped: A regular expression; a tensor in the file whose name it matches has the halves of its rows swapped.
        omitted: A regular expression; tensors of the component whose name it matches are not in the file.
        prefix: What stands before all names in the file, which programs may leave out.
    """

    renames: tuple[tuple[str, str], ...] = ()
    fused: tuple[FusedRows, ...] = ()
    swapped: str = ""
    omitted: str = ""
    prefix: str = ""

    def rename(self, name: str) -> str:
        """The name of a tensor before layers are fused, without the prefix."""
        for pattern, replacement in self.renames:
            name = re.sub(pattern, replacement, name)
        return name

    def group(self, names: Iterable[str]) -> dict[str, FileTensor]:
        """Groups the names of a component's tensors by the tensor in the file that they are rows of.

        Returns:
            The tensors of the file by name, without the prefix, in the order of the present names.

        Raises:
            UserError: A part of a fused layer is missing.
        """
        present = {self.rename(name): name for name in names if not (self.omitted and re.search(self.omitted, name))}
        grouped: dict[str, FileTensor] = {}
        for name, original in present.items():
            rule = next((rule for rule in self.fused if name.endswith(rule.parts)), None)
            if rule is None:
                has_swapped_halves = bool(self.swapped and re.search(self.swapped, name))
                grouped[name] = FileTensor((original,), has_swapped_halves)
                continue
            stem = name.removesuffix(next(part for part in rule.parts if name.endswith(part)))
            missing = [stem + part for part in rule.parts if stem + part not in present]
            if missing:
                raise UserError(f"The tensor {missing[0]!r} is missing beside {name!r}. Quantize the pipeline again.")
            grouped[stem + rule.fused] = FileTensor(tuple(present[stem + part] for part in rule.parts))
        return grouped


@dataclass(frozen=True)
class SingleFileLayout:
    """The weights of a component's class as one file.

    Attributes:
        architecture: What `general.architecture` says in a GGUF file.
        names: The names of its tensors.
        keys: Keys of metadata below the architecture, and the keys of the component's config that hold their values;
            a dot leads into an object.
    """

    architecture: str
    names: SingleFileNames
    keys: tuple[tuple[str, str], ...] = ()

    def read_metadata(self, config: Config) -> dict[str, int | float]:
        """The values of the metadata that the component's config has, by full key."""
        metadata: dict[str, int | float] = {}
        for key, path in self.keys:
            value: Any = config
            for part in path.split("."):
                value = value.get(part) if isinstance(value, Mapping) else None
            if isinstance(value, int | float):
                metadata[f"{self.architecture}.{key}"] = value
        return metadata


MakeLayout = Callable[[Config], SingleFileLayout | None]
"""Makes the layout of a component with a config; None if no program reads one."""
