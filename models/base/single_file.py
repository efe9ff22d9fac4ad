"""How other programs name a component's tensors where its weights are one file, as plain data."""

from __future__ import annotations

import importlib
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, cast

from ...common.errors import UserError
from .family import Family


@dataclass(frozen=True)
class FusedRows:
    """Linear layers that are one layer in the file: their outputs, one after another.

    Attributes:
        parts: What the names of their tensors end with, after renaming, in the order of the rows.
        fused: What the name of the one tensor ends with.
    """

    parts: tuple[str, ...]
    fused: str


@dataclass(frozen=True)
class SingleFileNames:
    """The names of a component's tensors in one file.

    Attributes:
        renames: Regular expressions and what replaces each match, one after another.
        fused: Linear layers that are one layer in the file.
    """

    renames: tuple[tuple[str, str], ...] = ()
    fused: tuple[FusedRows, ...] = ()

    def rename(self, name: str) -> str:
        """The name of a tensor before layers are fused."""
        for pattern, replacement in self.renames:
            name = re.sub(pattern, replacement, name)
        return name

    def group(self, names: Iterable[str]) -> dict[str, tuple[str, ...]]:
        """Groups the names of a component's tensors by the tensor in the file that they are rows of.

        Returns:
            The present names by the name in the file, in the order of the present names.

        Raises:
            UserError: A part of a fused layer is missing.
        """
        present = {self.rename(name): name for name in names}
        grouped: dict[str, tuple[str, ...]] = {}
        for name, original in present.items():
            rule = next((rule for rule in self.fused if name.endswith(rule.parts)), None)
            if rule is None:
                grouped[name] = (original,)
                continue
            stem = name.removesuffix(next(part for part in rule.parts if name.endswith(part)))
            missing = [stem + part for part in rule.parts if stem + part not in present]
            if missing:
                raise UserError(f"The tensor {missing[0]!r} is missing beside {name!r}. Quantize the pipeline again.")
            grouped[stem + rule.fused] = tuple(present[stem + part] for part in rule.parts)
        return grouped


@dataclass(frozen=True)
class GgufComponent:
    """A component as a GGUF file.

    Attributes:
        component: The component's folder.
        architecture: What `general.architecture` says.
        names: The names of its tensors.
        keys: Keys of metadata below the architecture, and the keys of the component's config that hold their values;
            a dot leads into an object.
    """

    component: str
    architecture: str
    names: SingleFileNames
    keys: tuple[tuple[str, str], ...] = ()

    def read_metadata(self, config: Mapping[str, Any]) -> dict[str, int | float]:
        """The values of the metadata that the component's config has, by full key."""
        metadata: dict[str, int | float] = {}
        for key, path in self.keys:
            value: Any = config
            for part in path.split("."):
                value = value.get(part) if isinstance(value, Mapping) else None
            if isinstance(value, int | float):
                metadata[f"{self.architecture}.{key}"] = value
        return metadata


def load_single_file_names(family: Family, component: str) -> SingleFileNames:
    """Loads the names of a component's tensors in the original release.

    Raises:
        UserError: edgepress does not know them.
    """
    layouts = {layout.component: layout.names for layout in load_gguf_components(family)}
    return layouts[component]


def load_gguf_components(family: Family) -> tuple[GgufComponent, ...]:
    """Loads what GGUF files of a family look like.

    Raises:
        UserError: edgepress does not know that.
    """
    if not family.gguf:
        raise UserError(
            f"edgepress does not know the names of tensors in single files of {family.pipeline_class}. "
            "See docs/add-a-model.md to add them."
        )
    module, name = family.gguf.split(":")
    return cast(tuple[GgufComponent, ...], getattr(importlib.import_module(module), name))
