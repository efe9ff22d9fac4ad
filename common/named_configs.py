"""Configs that say what they are called where a key of theirs is missing."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from .suggest import find_misspelling


class MissingKeyError(KeyError):
    """A config lacks a key; the message says which config, and which of its keys is probably a misspelling."""

    def __str__(self) -> str:
        return str(self.args[0])


class NamedConfig(dict[str, Any]):
    """A config that is called by its name where a key is missing.

    Args:
        name: What it is called, such as `vae/config.json`.
        content: Its keys and values.
    """

    def __init__(self, name: str, content: Mapping[str, Any]) -> None:
        super().__init__(content)
        self.name = name

    def __missing__(self, key: str) -> Any:
        misspelt = find_misspelling(key, self.keys())
        hint = f", but has the key '{misspelt}'" if misspelt else ""
        raise MissingKeyError(f"{self.name} lacks the key '{key}'{hint}")


def name_configs(configs: Mapping[str, Any], prefix: str) -> dict[str, Any]:
    """Returns configs that are called by their keys behind a prefix; what is no mapping stays as it is."""
    return {
        key: NamedConfig(f"{prefix}{key}", value) if isinstance(value, Mapping) else value
        for key, value in configs.items()
    }
