"""Finds the text-to-image pipelines of the installed diffusers, by what their constructors and calls take."""

from __future__ import annotations

from typing import Any

from ...pipelines.families import makes_images_from_text


def list_text_to_image_classes() -> list[str]:
    """Lists the classes that make images from a prompt alone, and are neither deprecated nor for another runtime."""
    import diffusers

    names = [name for name in dir(diffusers) if name.endswith("Pipeline") and name != "DiffusionPipeline"]
    classes = [getattr(diffusers, name) for name in names]
    return sorted(cls.__name__ for cls in classes if isinstance(cls, type) and _needs_only_text(cls))


def _needs_only_text(cls: Any) -> bool:
    is_other = "deprecated" in cls.__module__.split(".") or "Onnx" in cls.__name__
    return not is_other and hasattr(cls, "from_pretrained") and makes_images_from_text(cls)
