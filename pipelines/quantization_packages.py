"""The packages that open components which other programs quantized, checked before any work.

diffusers and transformers read `quantization_config.quant_method` and hand the weights to a package of its own. Without
the package some methods fail late, and auto-round on a CPU opens a model without its weights.
"""

from __future__ import annotations

import importlib
from collections.abc import Iterator, Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple

from ..common.errors import UserError
from ..storage.files import read_json_object
from ..storage.layout import MODEL_INDEX
from ..storage.weight_files import find_weight_folders, get_library
from ..storage.weight_formats import is_awq

SETTINGS_KEY = "quantization_config"
BITSANDBYTES, GGUF = "bitsandbytes", "gguf"
BITSANDBYTES_KEYS = {"load_in_4bit": "_4bit", "load_in_8bit": "_8bit"}  # what the libraries add to the method's name


class Package(NamedTuple):
    """A package that reads quantized weights.

    Attributes:
        module: What is imported.
        distribution: What is installed with pip.
    """

    module: str
    distribution: str


PACKAGES: dict[str, tuple[Package, ...]] = {  # by quant_method
    "auto-round": (Package("auto_round", "auto-round"), Package("auto_round_kernel", "auto-round-lib")),
    BITSANDBYTES: (Package("bitsandbytes", "bitsandbytes"),),
    "compressed-tensors": (Package("compressed_tensors", "compressed-tensors"),),
    "gguf": (Package("gguf", "gguf"),),
    "gptq": (Package("gptqmodel", "gptqmodel"),),
    "hqq": (Package("hqq", "hqq"),),
    "modelopt": (Package("modelopt", "nvidia-modelopt"),),
    "nunchaku_lite": (Package("kernels", "kernels"),),
    "quanto": (Package("optimum.quanto", "optimum-quanto"),),
    "quark": (Package("quark", "amd-quark"),),
    "sdnq": (Package("sdnq", "sdnq"),),
    "torchao": (Package("torchao", "torchao"),),
}
REGISTERING = ("sdnq",)  # methods that transformers knows once their package has been imported


def read_quant_methods(pipeline: Path) -> dict[str, str]:
    """The quantization method of each component of a pipeline folder that has a `quantization_config`."""
    return {folder.name: method for folder, _, method in _iter_quantized(pipeline)}


def check_quantization_packages(pipeline: Path) -> None:
    """Checks that this machine can open the components of a pipeline folder that are quantized.

    Raises:
        UserError: A package is missing, the library of a component does not know its method, the method is of single
            files only, or it needs a GPU.
    """
    for folder, config, method in _iter_quantized(pipeline):
        if method == GGUF:
            raise UserError(
                f"The {folder.name} of {pipeline} is said to be quantized with GGUF, which folders do not hold. Give "
                f"its file: 'edgepress evaluate --candidate q4={folder.name}:FILE.gguf'."
            )
        require_packages(f"The {folder.name} of {pipeline}", method)
        library = get_library(config)
        if not is_awq(config) and not _is_known(library, config[SETTINGS_KEY], method):
            raise UserError(
                f"The {folder.name} of {pipeline} is quantized with {method!r}, which the installed {library} cannot "
                "open. Update it, or give another candidate."
            )
        if library == "diffusers" and method == BITSANDBYTES and not _has_accelerator():
            raise UserError(
                f"The {folder.name} of {pipeline} is quantized with bitsandbytes, which diffusers opens only on a "
                "machine with a GPU. Evaluate it there, or give another candidate."
            )


def require_packages(what: str, method: str) -> None:
    """Checks that the packages of a method are installed.

    Args:
        what: What is quantized, as the subject of a sentence.
        method: The method, as `quantization_config` names it.

    Raises:
        UserError: One is not installed.
    """
    missing = [package.distribution for package in PACKAGES.get(method, ()) if not _is_installed(package.module)]
    if missing:
        raise UserError(
            f"{what} is quantized with {method}, which needs the package{'s' if len(missing) > 1 else ''} "
            f"{' and '.join(missing)}. Run: pip install {' '.join(missing)}"
        )


def import_registering_packages(pipeline: Path) -> None:
    """Imports the packages that make their method known to transformers, of the methods that a pipeline uses."""
    for method in set(read_quant_methods(pipeline).values()) & set(REGISTERING):
        for package in PACKAGES[method]:
            importlib.import_module(package.module)


def _iter_quantized(pipeline: Path) -> Iterator[tuple[Path, Mapping[str, Any], str]]:
    """Yields the folder, the config and the method of each quantized component."""
    for folder in find_weight_folders(pipeline) if (pipeline / MODEL_INDEX).is_file() else ():
        file = folder / "config.json"
        config = read_json_object(file) if file.is_file() else {}
        settings = config.get(SETTINGS_KEY)
        if settings is None:
            continue
        if not isinstance(settings, Mapping):
            raise UserError(f"{file} has a {SETTINGS_KEY} that is no object. Save the component again.")
        method = settings.get("quant_method") or _find_bitsandbytes(settings)
        if not isinstance(method, str):
            raise UserError(f"{file} has a {SETTINGS_KEY} without a quant_method. Save the component again.")
        yield folder, config, method


def _find_bitsandbytes(settings: Mapping[str, Any]) -> str | None:
    """Early releases of bitsandbytes's configs name no method."""
    return BITSANDBYTES if any(settings.get(key) for key in BITSANDBYTES_KEYS) else None


def _is_installed(module: str) -> bool:
    try:
        return find_spec(module) is not None
    except ModuleNotFoundError:  # the package that it would be in
        return False


def _is_known(library: str, settings: Mapping[str, Any], method: str) -> bool:
    """Whether a library has a quantizer for a method; for AWQ, edgepress has its own."""
    from diffusers.quantizers import auto as diffusers_auto
    from transformers.quantizers import auto as transformers_auto

    from .hf_quantizers import register_quantizers

    register_quantizers()
    if library != "diffusers" and method in REGISTERING:
        return True
    suffix = next((suffix for key, suffix in BITSANDBYTES_KEYS.items() if settings.get(key)), "")
    known = (diffusers_auto if library == "diffusers" else transformers_auto).AUTO_QUANTIZER_MAPPING
    return f"{method}{suffix}" in known


def _has_accelerator() -> bool:
    import torch

    return any(backend.is_available() for backend in (torch.cuda, torch.xpu, torch.mps))
