"""edgepress quantizes text-to-image pipelines to run on edge devices.

    import edgepress

    edgepress.quantize("pi5", output="artifacts/pi5")
    edgepress.export_onnx("pi5", output="artifacts/pi5")
    image = edgepress.ImagePipeline("artifacts/pi5")("a plain white wall", seed=0)

Importing this package is light: each name below is imported when it is first used. `import edgepress.loading` registers
the AWQ loader, after which `from_pretrained` of diffusers and transformers reads quantized pipelines.

ONNX Runtime is imported without its telemetry, unless the environment says otherwise (`ORT_DISABLE_TELEMETRY=0`).
"""

from __future__ import annotations

import os
from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .api.candidates import compare
    from .api.cleaning import clean
    from .api.comparison import diff
    from .api.conversion import convert
    from .api.description import describe
    from .api.functions import evaluate, export_onnx, export_rknn, plan_rknn, quantize
    from .api.hub_publishing import publish
    from .api.inspection import info
    from .api.planning import plan
    from .api.verification import verify
    from .api.weight_exports import export_comfyui, export_compressed_tensors, export_diffusers, export_gguf
    from .common.errors import UserError
    from .recipes.loader import load_recipe
    from .recipes.schema import Recipe
    from .runtime.pipeline import ImagePipeline

__version__ = "0.1.0"

# Importing ONNX Runtime would write into the user's cache (findings/onnxruntime_import_writes_a_device_id.sh).
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")

__all__ = [
    "ImagePipeline",
    "Recipe",
    "UserError",
    "__version__",
    "clean",
    "compare",
    "convert",
    "describe",
    "diff",
    "evaluate",
    "export_comfyui",
    "export_compressed_tensors",
    "export_diffusers",
    "export_gguf",
    "export_onnx",
    "export_rknn",
    "info",
    "load_recipe",
    "plan",
    "plan_rknn",
    "publish",
    "quantize",
    "verify",
]

_MODULES = {
    "ImagePipeline": "runtime.pipeline",
    "Recipe": "recipes.schema",
    "UserError": "common.errors",
    "clean": "api.cleaning",
    "compare": "api.candidates",
    "convert": "api.conversion",
    "describe": "api.description",
    "diff": "api.comparison",
    "export_comfyui": "api.weight_exports",
    "export_compressed_tensors": "api.weight_exports",
    "export_diffusers": "api.weight_exports",
    "export_gguf": "api.weight_exports",
    "export_onnx": "api.functions",
    "export_rknn": "api.functions",
    "info": "api.inspection",
    "load_recipe": "recipes.loader",
    "plan": "api.planning",
    "plan_rknn": "api.functions",
    "publish": "api.hub_publishing",
    "verify": "api.verification",
}
_CALLABLE_PACKAGES = ("evaluate", "quantize")  # packages that are functions of the API as well


def __getattr__(name: str) -> Any:
    if name in _CALLABLE_PACKAGES:
        return import_module(f".{name}", __name__)
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    try:
        module = import_module(f".{_MODULES[name]}", __name__)
    except ModuleNotFoundError as error:
        from .common.requirements import missing_package

        raise missing_package(error, "runtime") from error
    globals()[name] = value = getattr(module, name)
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
