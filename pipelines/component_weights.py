"""The weights of a pipeline's components: compared with their classes, by headers alone, and loaded where the libraries
would need help.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Collection, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, cast

import torch
from torch import nn

from ..common.articles import add_article
from ..common.errors import UserError, summarize_error
from ..common.name_list import list_names
from ..common.requirements import reject_failed_import
from ..models.base.family import Component, Family
from ..storage.checkpoint import Checkpoint
from ..storage.files import read_json_object
from ..storage.layout import MODEL_INDEX
from ..storage.recovery import advise_recovery
from ..storage.weight_files import find_weight_folders, get_library
from ..storage.weight_formats import CAST_DTYPES, FLOAT_DTYPES, INTEGER_DTYPES, is_awq
from .config_values import require_config_values
from .empty_modules import build_empty_module, find_too_many_layers, get_architecture
from .lora_files import parse_lora
from .lora_merging import merge_loras
from .module_values import find_unusable_value
from .packed_layers import METHODS, require_all_layers, require_whole_layers
from .passed_checks import check_once
from .preflight import check_lfs_pointers
from .quantized_modules import replace_modules

logger = logging.getLogger(__name__)

# What AWQ's layout is stored in, by the dtypes of the buffers; all else may be of any floating-point dtype.
STORED_DTYPES = {torch.int32: ("I32",), torch.int8: ("I8",), torch.uint8: ("U8",), torch.float16: ("F16",)}
# Buffers that older releases stored and that are computed now.
COMPUTED = r"rotary_emb\.inv_freq$|(^|\.)position_ids$"
SINGLE_FILE = "If they come from a single-file checkpoint, make a folder of it: 'edgepress convert'."


def check_pipeline_weights(pipeline: Path) -> None:
    """Checks that the weights of all components can be read, and logs what is unusual about them.

    Of components with a `quantization_config`, the library that loads them knows the format.

    Raises:
        UserError: A file is missing, corrupt or a git-lfs pointer, or weights are incomplete or have a format that is
            not read.
    """
    check_lfs_pointers(pipeline)
    for folder in find_weight_folders(pipeline):
        checkpoint = Checkpoint(folder)
        config = read_json_object(folder / "config.json") if (folder / "config.json").exists() else {}
        if "quantization_config" not in config:
            checkpoint.require_supported()
        elif not is_awq(config):
            require_whole_layers(checkpoint)
        _log_unusual(checkpoint)


def _log_unusual(checkpoint: Checkpoint) -> None:
    folder, files = checkpoint.folder, checkpoint.weight_files
    if files.strays:
        used = (files.index or files.files[0]).name
        logger.warning("%s: %s is loaded; ignored: %s.", folder, used, list_names(path.name for path in files.strays))
    elif files.variant:
        logger.warning("%s has weights of the variant %r only; they are used.", folder, files.variant)
    if checkpoint.doubles:
        names = list_names(checkpoint.doubles)
        logger.warning("%s: two files hold %s. The one that the index names is used.", folder, names)
    if checkpoint.wrapper_prefixes:
        prefixes = " and ".join(map(repr, checkpoint.wrapper_prefixes))
        logger.warning("%s: the names of weights contain %s, which is removed.", folder, prefixes)
    if any(checkpoint.dtype(name) in CAST_DTYPES for name in checkpoint.names()):
        logger.warning("%s has weights in float8 without scales. They are read as they are, as bfloat16.", folder)


# ---------------------------------------------------------------- weights against classes


def check_family_weights(pipeline: Path, family: Family) -> None:
    """Compares the weights of a pipeline folder with the classes of its family. Reads only headers.

    Of components that another library quantized, only the names of layers are compared.

    Raises:
        UserError: As for `check_described_component`.
    """
    folders = find_weight_folders(pipeline)
    for component in family.components:
        if pipeline / component.name not in folders:
            continue  # one that the pipeline can do without
        checkpoint = Checkpoint(pipeline / component.name, component.weight_prefix)
        config = checkpoint.load_config()
        if "quantization_config" not in config or is_awq(config):
            check_described_component(checkpoint, component)
        elif config["quantization_config"].get("quant_method") in METHODS:
            unquantized = {key: value for key, value in config.items() if key != "quantization_config"}
            class_name = config.get("_class_name", component.model_class)
            module = build_described_module(checkpoint, get_library(config), class_name, unquantized)
            require_all_layers(
                use_module_names(checkpoint, module), module, tied_names(module), component.unused_modules
            )


def check_described_component(checkpoint: Checkpoint, component: Component) -> None:
    """Compares the weights of a component, quantized or not, with its class in its family, unless they have passed.

    Raises:
        UserError: Weights are missing, unknown, in a format that is not read, or of another shape or dtype than the
            class and config.json describe.
    """
    config = checkpoint.load_config()
    if is_awq(config):
        compare = partial(_check_quantized, checkpoint, component.model_class, config)
    else:
        checkpoint.require_supported(config)
        compare = partial(_check_described, checkpoint, component, config)
    check_once(compare, checkpoint, component, config)


def _check_described(checkpoint: Checkpoint, component: Component, config: Mapping[str, Any]) -> None:
    """Compares weights in floating point with the class that loads them, under the names of its modules."""
    unused = tuple(f"{name}." for name in component.unused_modules)
    class_name = config.get("_class_name", component.model_class)
    module = build_described_module(checkpoint, get_library(config), class_name, config)
    check_weights(use_module_names(checkpoint, module), module, config, unused)


def check_weights(
    checkpoint: Checkpoint, module: nn.Module, config: Mapping[str, Any], unused_prefixes: tuple[str, ...] = ()
) -> frozenset[str]:
    """Compares the names and shapes of weights with those of a component without weights. Reads only headers.

    Args:
        checkpoint: The component's weights.
        module: The component, as `build_described_module` returns it.
        config: The component's config.json.
        unused_prefixes: What the names of weights begin with that may be missing.

    Returns:
        The names of weights that the class ignores, such as the head of a language model.

    Raises:
        UserError: A weight is missing, has another shape or has integers, or there are weights that the class does not
            have.
    """
    _compare(checkpoint, module, _find_unexpected(checkpoint, module, config), unused_prefixes, SINGLE_FILE)
    for name, tensor in module.state_dict().items():
        if name in checkpoint and tensor.is_floating_point() and checkpoint.dtype(name) in INTEGER_DTYPES:
            raise UserError(
                f"Weight {name!r} in {checkpoint.folder} has the dtype {checkpoint.dtype(name)}, but a "
                f"{type(module).__name__} has floating-point numbers there. Use the pipeline in its original precision."
            )
    return frozenset(checkpoint.names()) - module.state_dict().keys()


def _check_quantized(checkpoint: Checkpoint, class_name: str, config: Mapping[str, Any]) -> None:
    """Compares weights in AWQ's layout with the modules that load them, as `check_weights` does others."""
    from .hf_quantizers import AwqConfig

    config_file, library = checkpoint.folder / "config.json", get_library(config)
    stored_class = config.get("_class_name") or get_architecture(config)
    if stored_class != class_name:
        return  # another program quantized another class: the library that loads it compares
    module = build_described_module(checkpoint, library, class_name, config)
    settings = {key: value for key, value in config["quantization_config"].items() if key != "quant_method"}
    try:
        replace_modules(module, AwqConfig(**settings))
    except (ArithmeticError, AttributeError, RuntimeError, TypeError, ValueError) as error:
        raise UserError(
            f"{config_file} has a quantization_config that does not describe {add_article(class_name)}: {error}. "
            f"{advise_recovery(config_file)}"
        ) from error
    unexpected = _find_unexpected(checkpoint, module, config)
    _compare(checkpoint, module, unexpected, (), advise_recovery(config_file))
    for name, tensor in module.state_dict().items():
        dtypes = STORED_DTYPES.get(tensor.dtype, FLOAT_DTYPES)
        if name in checkpoint and checkpoint.dtype(name) not in dtypes:
            raise UserError(
                f"Weight {name!r} in {checkpoint.folder} has the dtype {checkpoint.dtype(name)} instead of "
                f"{' or '.join(dtypes)}. {advise_recovery(checkpoint.folder)}"
            )


def _compare(
    checkpoint: Checkpoint,
    module: nn.Module,
    unexpected: Sequence[str],
    unused_prefixes: tuple[str, ...],
    advice: str,
) -> None:
    """Compares the names and shapes of weights with those of a module.

    Args:
        checkpoint: The component's weights.
        module: What loads them.
        unexpected: The names of weights that it does not have.
        unused_prefixes: What the names of weights begin with that may be missing.
        advice: A sentence that says what to do if the names are different ones.
    """
    class_name, config_file = type(module).__name__, checkpoint.folder / "config.json"
    expected = {name: tuple(tensor.shape) for name, tensor in module.state_dict().items()}
    missing = [name for name in expected if name not in checkpoint and not name.startswith(unused_prefixes)]
    missing = [name for name in missing if name not in tied_names(module)]
    prefix = _find_prefix(unexpected, expected)
    if prefix:
        what = "all names of weights begin" if missing else "a second copy of weights is stored under names that begin"
        raise UserError(
            f"{checkpoint.folder} does not hold the weights of {add_article(class_name)} alone: {what} with "
            f"{prefix!r}. "
            f"{'Remove that from the names' if missing else 'Remove that copy'}, and save the component again."
        )
    if missing and unexpected:
        raise UserError(
            f"{checkpoint.folder} does not hold the weights of {add_article(class_name)}: {list_names(missing)} are "
            "missing, and "
            f"{list_names(unexpected)} are unknown. {advice}"
        )
    if missing:
        raise UserError(
            f"Weight {missing[0]!r}, required by config.json, is missing from {checkpoint.folder}. "
            f"{advise_recovery(checkpoint.folder)}"
        )
    for name, shape in expected.items():
        if name in checkpoint and checkpoint.shape(name) != shape:
            raise UserError(
                f"Weight {name!r} in {checkpoint.folder} has shape {checkpoint.shape(name)}, but config.json describes "
                f"{shape}. The weights and config.json belong to different models. {advise_recovery(config_file)}"
            )
    if unexpected:
        raise UserError(
            f"{checkpoint.folder} has weights that {add_article(class_name)} does not have, as {config_file.name} "
            "describes it: "
            f"{list_names(unexpected)}. The weights and config.json belong to different models. "
            f"{advise_recovery(config_file)}"
        )


def _find_prefix(names: Sequence[str], expected: Collection[str]) -> str:
    """What names begin with that are expected without it; empty if there is no such beginning."""
    parts = names[0].split(".") if names else []
    prefixes = (".".join([*parts[:length], ""]) for length in range(1, len(parts)))
    return next((p for p in prefixes if all(n.startswith(p) and n.removeprefix(p) in expected for n in names)), "")


def build_described_module(
    checkpoint: Checkpoint,
    library: str,
    class_name: str,
    config: Mapping[str, Any],
    dtype: torch.dtype = torch.float32,
) -> nn.Module:
    """Builds a component without weights.

    Args:
        checkpoint: The component's weights.
        library: `diffusers` or `transformers`.
        class_name: The class whose names the weights have.
        config: The component's config.json.
        dtype: Dtype of a component of transformers.

    Raises:
        UserError: The config does not describe it, has a number that it cannot compute with, or describes more layers
            than there can be.
    """
    config_file = checkpoint.folder / "config.json"
    too_many = find_too_many_layers(config, len(checkpoint.names()))
    if too_many:
        raise UserError(
            f"{config_file} says {too_many}, but {checkpoint.folder} has only {len(checkpoint.names())} "
            f"weights. They belong to different models. {advise_recovery(config_file)}"
        )
    require_config_values(config_file, library, class_name, config)
    try:
        module = build_empty_module(library, class_name, config, dtype)
    except Exception as error:  # a class may raise anything for an invalid config
        reject_failed_import(error)
        raise UserError(
            f"{config_file} does not describe {add_article(class_name)} ({summarize_error(error)}). "
            f"{advise_recovery(config_file)}"
        ) from error
    unusable = find_unusable_value(module)
    if unusable:
        raise UserError(
            f"{config_file} describes {add_article(class_name)} that cannot compute: {unusable}. "
            f"{advise_recovery(config_file)}"
        )
    return module


def use_module_names(checkpoint: Checkpoint, module: nn.Module) -> Checkpoint:
    """Returns a component's weights under the names of the modules that they belong to.

    transformers stores some classes under the names of earlier releases, and renames weights when it loads them.

    Args:
        checkpoint: The component's weights.
        module: The component, with or without weights.

    Raises:
        UserError: transformers does more than rename: it puts weights together.
    """
    if not hasattr(module, "base_model_prefix"):
        return checkpoint
    from transformers.conversion_mapping import get_model_conversion_mapping
    from transformers.core_model_loading import WeightConverter, WeightRenaming, rename_source_key

    transforms = get_model_conversion_mapping(cast(Any, module))
    renamings = [transform for transform in transforms if isinstance(transform, WeightRenaming)]
    converters = [transform for transform in transforms if isinstance(transform, WeightConverter)]
    state = module.state_dict()
    names = {}
    for name in checkpoint.names():
        new, converter = rename_source_key(name, renamings, converters, str(module.base_model_prefix), state)
        if converter is not None:
            raise UserError(
                f"The weights of {checkpoint.folder} must be put together before "
                f"{add_article(type(module).__name__)} can use "
                f"them ({name}), which is not supported. Leave the component out of quantize.components."
            )
        names[name] = new
    return checkpoint.rename(names)


def find_token_embeddings(module: nn.Module) -> tuple[str, ...]:
    """Finds the plain token embedding of a text encoder, unless something else computes with its weight too."""
    get = getattr(module, "get_input_embeddings", None)
    try:
        embedding = get() if get else None
    except NotImplementedError:
        return ()
    names = [name for name, child in module.named_modules() if child is embedding and type(child) is nn.Embedding]
    tied = tied_names(module)
    return tuple(name for name in names if f"{name}.weight" not in tied)


def _find_unexpected(checkpoint: Checkpoint, module: nn.Module, config: Mapping[str, Any]) -> list[str]:
    """Lists the weights that a class does not have, but those that it declares as ignorable.

    Those of the class that the config names, such as the head of a language model, are ignored as well.
    """
    expected = module.state_dict().keys()
    names = [name for name in (*checkpoint.names(), *checkpoint.ignored_names()) if name not in expected]
    declared = getattr(module, "_keys_to_ignore_on_load_unexpected", None) or ()
    patterns = re.compile("|".join((COMPUTED, *declared)))
    names = [name for name in names if not patterns.search(name)]
    stored_class = get_architecture(config)
    if names and stored_class and stored_class != type(module).__name__:
        names = [name for name in names if name not in _list_names(get_library(config), str(stored_class), config)]
    return names


def _list_names(library: str, class_name: str, config: Mapping[str, Any]) -> set[str]:
    """The names of the weights of a class; none if the library does not have it."""
    try:
        return set(build_empty_module(library, class_name, config, torch.float32).state_dict())
    except Exception:  # a class may raise anything for an invalid config; then its weights are unknown
        return set()


def tied_names(module: nn.Module) -> set[str]:
    """The names of weights that the class takes from other ones, so that files lack them."""
    return {name for names in (getattr(module, "all_tied_weights_keys", None) or {}).items() for name in names}


# ---------------------------------------------------------------- loading


def load_unusual_components(pipeline: Path, dtype: torch.dtype, skip: Collection[str] = ()) -> dict[str, nn.Module]:
    """Loads the components that diffusers would not load alike: variants, prefixed names, doubled tensors, float8.

    Args:
        pipeline: The pipeline's folder.
        dtype: Dtype of the weights.
        skip: Names of components that are not needed.

    Raises:
        UserError: The weights of one cannot be read, or are not those of its class.
    """
    index = read_json_object(pipeline / MODEL_INDEX)
    components = {}
    for folder in find_weight_folders(pipeline):
        if folder.name in skip or "quantization_config" in read_json_object(folder / "config.json"):
            continue
        checkpoint = Checkpoint(folder)
        if not checkpoint.is_plain:
            library, class_name = index[folder.name]
            components[folder.name] = _load_component(checkpoint, library, class_name, dtype)
    return components


def load_merged_components(pipeline: Path, dtype: torch.dtype, loras: Sequence[str]) -> dict[str, nn.Module]:
    """Loads the components that LoRAs change, with the LoRAs in their weights.

    Args:
        pipeline: The pipeline's folder, in its original precision.
        dtype: Dtype of the weights.
        loras: The LoRAs as `PATH` or `PATH:WEIGHT`.

    Raises:
        UserError: A LoRA cannot be read, is for another base model, or has keys without a layer.
    """
    index = read_json_object(pipeline / MODEL_INDEX)
    checkpoints = {folder.name: Checkpoint(folder) for folder in find_weight_folders(pipeline)}
    merged = merge_loras([parse_lora(text) for text in loras], pipeline, checkpoints)
    components = {}
    for name, checkpoint in merged.items():
        library, class_name = index[name]
        components[name] = _load_component(checkpoint, library, class_name, dtype)
    return components


def _load_component(checkpoint: Checkpoint, library: str, class_name: str, dtype: torch.dtype) -> nn.Module:
    """Loads a component on the CPU in evaluation mode."""
    checkpoint.require_supported()
    config = checkpoint.load_config()
    module = build_described_module(checkpoint, library, class_name, config, dtype)
    prefix = f"{getattr(module, 'base_model_prefix', '')}."
    expected, tensors = set(module.state_dict()), {}
    for name in checkpoint.names():
        for target in (name, prefix + name, name.removeprefix(prefix)):  # as transformers does
            if target in expected:
                tensor = checkpoint.load_tensor(name)
                tensors[target] = tensor.to(dtype) if tensor.is_floating_point() else tensor
                break
    missing = expected - tensors.keys() - tied_names(module)
    if missing:
        raise UserError(
            f"Weight {min(missing)!r}, required by config.json, is missing from {checkpoint.folder}. {SINGLE_FILE}"
        )
    module.load_state_dict(tensors, strict=False, assign=True)
    if library != "diffusers":
        cast(Any, module).tie_weights()
    return module.eval().requires_grad_(False)
