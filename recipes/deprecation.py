"""Recipes of earlier releases: finds deprecated keys and values, and replaces them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from .frozen_model import FrozenModel, is_mapping, nested_section
from .schema import Recipe

Report = Callable[[str, str], None]

# Recipes of the release before, which are now others with a model. Their artifacts keep their folders.
RENAMED_RECIPES = {
    f"{device}-z-image-turbo": (device, "Tongyi-MAI/Z-Image-Turbo") for device in ("orin", "pi5", "rk3588")
}


def upgrade_settings(
    content: Mapping[Any, Any],
    section: type[FrozenModel] = Recipe,
    report: Report = lambda _old, _new: None,
    prefix: str = "",
) -> dict[Any, Any]:
    """Replaces deprecated keys and values in the settings of a recipe.

    Args:
        content: The settings as read from YAML or JSON; they need not be valid.
        section: The model of the settings: the whole recipe or one of its sections.
        report: Called with each deprecated setting and with what replaces it.
        prefix: What the reported keys begin with, such as `quantize.`.

    Returns:
        New settings with the keys and values of this release.
    """
    upgraded: dict[Any, Any] = {}
    for old_key, old_value in content.items():
        key, value = section.upgrade_entry(old_key, old_value)
        if value != old_value:
            report(f"{prefix}{old_key}: {_format_value(old_value)}", f"{prefix}{key}: {_format_value(value)}")
        elif key != old_key:
            report(f"{prefix}{old_key}", f"{prefix}{key}")
        upgraded[key] = _upgrade_nested(section, key, value, report, prefix)
    return upgraded


def _upgrade_nested(section: type[FrozenModel], key: Any, value: Any, report: Report, prefix: str) -> Any:
    """The value of a key, upgraded within if it is a section or a mapping of sections."""
    nested = nested_section(section, key)
    if nested is None or not isinstance(value, Mapping):
        return value
    if not is_mapping(section, key):
        return upgrade_settings(value, nested, report, f"{prefix}{key}.")
    return {
        name: upgrade_settings(entry, nested, report, f"{prefix}{key}.{name}.") if isinstance(entry, Mapping) else entry
        for name, entry in value.items()
    }


def _format_value(value: Any) -> str:
    """A scalar, or a list of scalars, as in YAML."""
    if isinstance(value, list | tuple):
        return f"[{', '.join(map(_format_value, value))}]"
    return str(value).lower() if isinstance(value, bool) else str(value)
