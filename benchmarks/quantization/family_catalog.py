"""Finds the text-to-image pipelines of the installed diffusers, by what their constructors and calls take."""

from __future__ import annotations

import inspect
import re
from typing import Any

from ...pipelines.families import makes_images_from_text

# What a call takes that starts from an image, and components that steer by one.
IMAGE_PARAMETERS = frozenset({"strength", "mask_image", "control_image", "image_embeddings", "gligen_phrases"})
IMAGE_COMPONENTS = re.compile("controlnet|adapter|depth_estimator|low_res|image_embedder")
# Classes whose call has an optional image without which it fails.
IMAGE_CLASSES = re.compile("Edit|Refiner|Upscale|SuperResolution|InstructPix2Pix|Kontext|Fill|Layered|Decoder|Img2Img")


def list_text_to_image_classes() -> list[str]:
    """Lists the classes that make images from a prompt alone, and are neither deprecated nor for another runtime."""
    import diffusers

    names = [name for name in dir(diffusers) if name.endswith("Pipeline") and name != "DiffusionPipeline"]
    classes = [getattr(diffusers, name) for name in names]
    return sorted(cls.__name__ for cls in classes if isinstance(cls, type) and _needs_only_text(cls))


def _needs_only_text(cls: Any) -> bool:
    module = cls.__module__.split(".")
    if "deprecated" in module or "Onnx" in cls.__name__ or IMAGE_CLASSES.search(cls.__name__):
        return False
    call = inspect.signature(cls.__call__).parameters
    components = inspect.signature(cls.__init__).parameters
    return (
        hasattr(cls, "from_pretrained")
        and makes_images_from_text(cls)
        and not IMAGE_PARAMETERS & call.keys()
        and not any(map(IMAGE_COMPONENTS.search, components))
    )
