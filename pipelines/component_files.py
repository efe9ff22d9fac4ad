"""Components in a single file, GGUF or safetensors, that replace a component of a pipeline.

The names and shapes of a file's tensors are compared with the component's before any weight is read: diffusers leaves
weights that it does not find uninitialized, and fails in the first step.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from ..common.errors import UserError, summarize_error
from ..common.requirements import reject_failed_import
from ..models.base.single_file import SingleFileLayout, SingleFileNames
from ..models.single_file_layouts import find_layout
from ..storage.files import read_json_object
from ..storage.gguf_header import GgufTensor, read_gguf_header
from ..storage.layout import MODEL_INDEX
from ..storage.recognition import reject_path
from ..storage.safetensors_header import read_tensor_headers
from ..storage.weight_files import find_weight_folders
from ..storage.weight_formats import describe_unsupported
from .comfy_layouts import dequantize_comfy, find_comfy_layouts, list_comfy_tensors
from .quantization_packages import require_packages

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn

GGUF_SUFFIX, SAFETENSORS_SUFFIX = ".gguf", ".safetensors"
SINGLE_FILE_SUFFIXES = (GGUF_SUFFIX, SAFETENSORS_SUFFIX)
# What programs put before the names of tensors of a denoiser.
PREFIXES = ("model.diffusion_model.", "diffusion_model.", "model.")
Shapes = Mapping[str, tuple[int, ...]]
logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class ComponentFile:
    """A file that replaces a component of a pipeline.

    Attributes:
        component: The component's folder.
        file: The file, .gguf or .safetensors.
    """

    component: str
    file: Path

    @property
    def is_gguf(self) -> bool:
        """Whether it is a GGUF file."""
        return self.file.suffix.lower() == GGUF_SUFFIX


def check_component_file(pipeline: Path, replacement: ComponentFile) -> None:
    """Checks that a file holds the weights of a pipeline's component, from its header alone.

    Args:
        pipeline: The pipeline's folder.
        replacement: The file, and the component that it replaces.

    Raises:
        UserError: There is no such file or component, the file is corrupt or of another architecture, a tensor is
            missing or has another shape, or the file's types cannot be read here.
    """
    component, file = replacement.component, replacement.file
    if not file.is_file():
        raise reject_path(file, "Give the .gguf or .safetensors file of a component")
    names = [folder.name for folder in find_weight_folders(pipeline)]
    if component not in names:
        raise UserError(f"{pipeline} has no component {component!r}. Choose from: {', '.join(names)}.")
    layout = _find_layout(pipeline, component)
    if replacement.is_gguf:
        require_packages(str(file), "gguf")
        header = read_gguf_header(file)
        if layout and header.architecture not in ("", layout.architecture):
            raise UserError(
                f"{file} is a GGUF file of the architecture {header.architecture!r}, but the {component} of {pipeline} "
                f"is {layout.architecture!r}. Give a file of that architecture."
            )
        _check_gguf_tensors(file, header.tensors)
        shapes = {tensor.name: tensor.shape for tensor in header.tensors}
    else:
        headers = read_tensor_headers(file)
        if find_comfy_layouts(headers):
            headers = list(list_comfy_tensors(file, headers).values())
        explanation = describe_unsupported({header.name: header.dtype for header in headers})
        if explanation:
            raise UserError(
                f"Cannot read {file}: {explanation.split('. ')[0]}. Give a file in floating point or GGUF, or a "
                "server that runs this one."
            )
        shapes = {header.name: header.shape for header in headers}
    expected = _read_expected(pipeline, component)
    _check_shapes(replacement, _strip_prefix(shapes), expected, layout.names if layout else None)


def load_component_file(pipeline: Path, replacement: ComponentFile, dtype: torch.dtype) -> nn.Module:
    """Loads a component from a file, on the CPU.

    Args:
        pipeline: The pipeline's folder, whose config describes the component.
        replacement: The file, and the component that it replaces.
        dtype: What the component computes in.

    Raises:
        UserError: The library cannot load it, or leaves a weight without a value.
    """
    library, class_name = read_json_object(pipeline / MODEL_INDEX)[replacement.component]
    load = _load_with_diffusers if library == "diffusers" else _load_with_transformers
    try:
        module = load(pipeline, replacement, class_name, dtype)
    except (OSError, ValueError, RuntimeError, KeyError, TypeError, AttributeError, NotImplementedError) as error:
        reject_failed_import(error)
        raise UserError(
            f"{library} cannot load {replacement.file} as the {replacement.component} of {pipeline} "
            f"({summarize_error(error)}). Give another file."
        ) from error
    empty = next((name for name, parameter in module.named_parameters() if parameter.is_meta), None)
    if empty is not None:
        raise UserError(
            f"{library} finds no value for the weight {empty!r} of the {replacement.component} in {replacement.file}. "
            "Give a complete file."
        )
    return module.eval().requires_grad_(False)


# ---------------------------------------------------------------- loading


def _load_with_diffusers(pipeline: Path, replacement: ComponentFile, class_name: str, dtype: torch.dtype) -> nn.Module:
    from .empty_modules import resolve_class

    options: dict[str, Any] = {}
    source: str | dict[str, Tensor] = str(replacement.file)
    if not replacement.is_gguf and find_comfy_layouts(read_tensor_headers(replacement.file)):
        source = _strip_prefix(dequantize_comfy(replacement.file))
    if replacement.is_gguf:
        from diffusers import GGUFQuantizationConfig

        options["quantization_config"] = GGUFQuantizationConfig(compute_dtype=dtype)
    layout = _find_layout(pipeline, replacement.component)
    if layout and layout.names.prefix:
        from diffusers.loaders.single_file_utils import load_single_file_checkpoint

        tensors = load_single_file_checkpoint(source) if isinstance(source, str) else source
        source = _add_prefix(tensors, _read_expected(pipeline, replacement.component), layout.names)
    module = resolve_class("diffusers", class_name).from_single_file(
        source,
        config=str(pipeline),
        subfolder=replacement.component,
        torch_dtype=dtype,
        local_files_only=True,
        **options,
    )
    if replacement.is_gguf:
        _dequantize_others(module, replacement.file, dtype)
    return cast("nn.Module", module)


def _dequantize_others(module: nn.Module, file: Path, dtype: torch.dtype) -> None:
    """Dequantizes what diffusers leaves packed although it computes with it: all but the weights of linear layers.

    Files of other programs store norms, biases and pad tokens in 16 bits or in blocks. With diffusers alone, they fail
    in the first step.
    """
    import torch
    from diffusers.quantizers.gguf.utils import GGUFLinear, GGUFParameter, dequantize_gguf_tensor

    packed = []
    for owner_name, owner in module.named_modules():
        for name, parameter in list(owner.named_parameters(recurse=False)):
            if isinstance(parameter, GGUFParameter) and not (name == "weight" and isinstance(owner, GGUFLinear)):
                value = dequantize_gguf_tensor(parameter).to(dtype)
                setattr(owner, name, torch.nn.Parameter(value, requires_grad=False))
                packed.append(f"{owner_name}.{name}".lstrip("."))
    if packed:
        logger.warning(
            "%s stores tensors that diffusers does not dequantize, such as %s; edgepress does. diffusers alone fails "
            "with this file.",
            file,
            packed[0],
        )


def _load_with_transformers(
    pipeline: Path, replacement: ComponentFile, class_name: str, dtype: torch.dtype
) -> nn.Module:
    """transformers dequantizes a GGUF file when it loads it."""
    from .empty_modules import load_component_config, resolve_class

    cls = resolve_class("transformers", class_name)
    config = cls.config_class.from_dict(load_component_config(pipeline / replacement.component))
    if replacement.is_gguf:
        folder, name = replacement.file.parent, replacement.file.name
        return cast("nn.Module", cls.from_pretrained(folder, gguf_file=name, config=config, dtype=dtype))
    from safetensors.torch import load_file

    is_quantized = find_comfy_layouts(read_tensor_headers(replacement.file))
    tensors = _strip_prefix((dequantize_comfy if is_quantized else load_file)(replacement.file))
    return cast("nn.Module", cls.from_pretrained(None, config=config, state_dict=tensors, dtype=dtype))


# ---------------------------------------------------------------- checks


def _find_layout(pipeline: Path, component: str) -> SingleFileLayout | None:
    """What single files of a component look like, if edgepress knows that."""
    class_name = read_json_object(pipeline / MODEL_INDEX)[component][1]
    return find_layout(class_name, read_json_object(pipeline / component / "config.json"))


def _read_expected(pipeline: Path, component: str) -> Shapes:
    """The shapes of a component's tensors by the names that its library gives them."""
    from .component_weights import tied_names
    from .empty_modules import build_empty_module, load_component_config

    library, class_name = read_json_object(pipeline / MODEL_INDEX)[component]
    module = build_empty_module(library, class_name, load_component_config(pipeline / component))
    tied = tied_names(module)
    return {name: tuple(tensor.shape) for name, tensor in module.state_dict().items() if name not in tied}


def _check_gguf_tensors(file: Path, tensors: tuple[GgufTensor, ...]) -> None:
    """Raises UserError where a tensor has a type that diffusers does not dequantize, or lies beyond the file's end."""
    from diffusers.quantizers.gguf.utils import SUPPORTED_GGUF_QUANT_TYPES, UNQUANTIZED_TYPES
    from gguf import GGML_QUANT_SIZES, GGMLQuantizationType

    supported = {*SUPPORTED_GGUF_QUANT_TYPES, *UNQUANTIZED_TYPES}
    known = {kind.value: kind for kind in GGMLQuantizationType}
    size = file.stat().st_size
    for tensor in tensors:
        kind = known.get(tensor.type)
        if kind not in supported:
            name = kind.name if kind else str(tensor.type)
            raise UserError(
                f"The tensor {tensor.name!r} in {file} has the type {name}, which diffusers does not dequantize. Give "
                "a file of another type, such as Q4_K or Q8_0."
            )
        block, block_bytes = GGML_QUANT_SIZES[kind]
        if tensor.start + prod(tensor.shape) // block * block_bytes > size:
            raise UserError(f"{file} is truncated: the tensor {tensor.name!r} lies beyond its end. Download it again.")


def _strip_prefix(tensors: Mapping[str, Any]) -> dict[str, Any]:
    """Tensors without what programs put before their names."""
    prefix = next((prefix for prefix in PREFIXES if any(name.startswith(prefix) for name in tensors)), "")
    return {name.removeprefix(prefix): tensor for name, tensor in tensors.items()}


def _add_prefix(tensors: dict[str, Tensor], expected: Shapes, names: SingleFileNames) -> dict[str, Tensor]:
    """Adds the prefix by which diffusers recognizes original names of some classes, where a program left it out."""
    originals = names.group(expected).keys() - expected.keys()
    return {names.prefix + name: tensor for name, tensor in tensors.items()} if originals & tensors.keys() else tensors


def _check_shapes(replacement: ComponentFile, shapes: Shapes, expected: Shapes, names: SingleFileNames | None) -> None:
    """Compares a file's tensors with those of a component, under the naming that fits best.

    Raises:
        UserError: A tensor is missing, or has another number of elements.
    """
    namings = [expected, *(_rename_expected(expected, names) if names else ())]
    best = min(namings, key=lambda naming: len(naming.keys() - shapes.keys()))
    missing = [name for name in best if name not in shapes]
    if len(missing) == len(best):
        raise UserError(
            f"{replacement.file} holds no tensor of the {replacement.component}: its names are others, such as "
            f"{next(iter(shapes), 'none')!r} instead of {missing[0]!r}. Give a file of this model."
        )
    if missing:
        raise UserError(
            f"The tensor {missing[0]!r} of the {replacement.component} is missing from {replacement.file}"
            f"{f', and {len(missing) - 1} more' if len(missing) > 1 else ''}. Give a complete file of this model."
        )
    for name, shape in best.items():
        if prod(shapes[name]) != prod(shape):
            raise UserError(
                f"The tensor {name!r} in {replacement.file} has shape {shapes[name]}, but the {replacement.component} "
                f"has {shape} there. Give a file of this model."
            )


def _rename_expected(expected: Shapes, names: SingleFileNames) -> list[Shapes]:
    """The shapes under the names of the original release: with fused layers, and without."""
    grouped = names.group(expected).items()
    fused = {name: _stack([expected[part] for part in tensor.parts]) for name, tensor in grouped}
    return [fused, {names.rename(name): shape for name, shape in expected.items()}]


def _stack(shapes: Sequence[tuple[int, ...]]) -> tuple[int, ...]:
    """The shape of tensors one above the other."""
    return (sum(shape[0] for shape in shapes), *shapes[0][1:]) if len(shapes) > 1 else shapes[0]
