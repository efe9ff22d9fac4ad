"""Which files hold a component's weights: those that the library of its class loads, decided by names alone.

diffusers looks for an index first, then for a single file; transformers looks for a single file first. A pipeline that
has no plain weights may have one variant, such as `fp16`, whose name is part of the file names.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..common.errors import UserError
from ..common.validation import format_value
from .files import list_files, read_json_object
from .layout import LORA_SCALES, MODEL_INDEX, SOLUTIONS, is_pipeline
from .recovery import advise_recovery
from .relative_path import is_file_name

SUFFIX, INDEX_SUFFIX = ".safetensors", ".safetensors.index.json"
PICKLE_PATTERNS = ("*.bin", "*.pt", "*.pth", "*.ckpt", "*.pkl")
OTHER_SUFFIXES = (".gguf", ".msgpack", ".h5", ".onnx", ".tflite", ".engine")  # weights of other libraries and runtimes
UNFINISHED_SUFFIXES = (".part", ".partial", ".incomplete", ".crdownload", ".download", ".aria2", ".tmp")
WEIGHT_FILE_STEMS = {"diffusers": "diffusion_pytorch_model", "transformers": "model"}
SHARD = re.compile(r"-\d{5}-of-\d{5}")


@dataclass(frozen=True)
class WeightFiles:
    """The files that hold a component's weights.

    Attributes:
        files: The safetensors files, sorted by name.
        index: The index that lists them; None for a single file.
        locations: File of each tensor, as the index says. Empty for a single file.
        variant: Variant that the files belong to; empty for plain files.
        plain_name: Name of the single file or the index without the variant.
        strays: Further weight files in the folder, which are not loaded.
        folder: The component's folder.
        library: The library of the component's class: `diffusers` or `transformers`.
    """

    files: tuple[Path, ...]
    index: Path | None
    locations: Mapping[str, Path] = field(repr=False)
    variant: str
    plain_name: str
    strays: tuple[Path, ...]
    folder: Path
    library: str

    @property
    def renamed(self) -> dict[str, str]:
        """New names of the files, by their old ones, under which they are loaded without naming a variant."""
        return {(self.index or self.files[0]).name: self.plain_name}


def select_weight_files(folder: Path) -> WeightFiles:
    """Selects the weight files of a component folder.

    Raises:
        UserError: The folder has no weights that its library loads, only pickled ones or several variants, or a file is
            missing or corrupt.
    """
    if not folder.is_dir():
        raise UserError(f"There is no component folder {folder}. {advise_recovery(folder)}")
    stem = _find_stem(folder)
    variant = _resolve_variant(folder) if _list_variants(folder, stem) else ""
    for name_variant in dict.fromkeys((variant, "")):  # a component without the variant has plain weights
        for name, plain_name in _candidates(stem, name_variant):
            file = folder / name
            if not _is_present(file):
                continue
            locations = _read_index(file) if name.endswith(".json") else {}
            files = tuple(sorted(set(locations.values()))) if name.endswith(".json") else (file,)
            index = file if name.endswith(".json") else None
            strays = tuple(path for path in _list_weights(folder) if path not in {*files, file})
            library = next(library for library, name in WEIGHT_FILE_STEMS.items() if name == stem)
            return WeightFiles(files, index, locations, name_variant, plain_name, strays, folder, library)
    raise UserError(_explain_absence(folder, stem))


def find_weight_folders(pipeline: Path) -> list[Path]:
    """Finds the folders of a pipeline's components that hold weights of any kind, sorted."""
    patterns = (f"*{SUFFIX}*", *PICKLE_PATTERNS)
    if is_pipeline(pipeline):
        index = read_json_object(pipeline / MODEL_INDEX)
        entries = [name for name, value in sorted(index.items()) if isinstance(value, list) and any(value)]
        folders = [pipeline / name for name in entries if is_file_name(name)]
    else:
        folders = sorted(path for path in pipeline.iterdir() if path.is_dir() and not path.name.startswith("."))
    return [folder for folder in folders if any(next(folder.glob(pattern), None) for pattern in patterns)]


def find_stray_files(pipeline: Path) -> list[Path]:
    """Finds the files of a pipeline that are never loaded and may be large, sorted.

    These are weight files beside those that are loaded, such as other variants, the whole model in one file at the top,
    or weights of another runtime; and folders with weights that model_index.json does not name, but for the solutions
    and the scales for LoRAs of a quantized model.

    Raises:
        UserError: A component folder has no weights that can be loaded.
    """
    selected = [select_weight_files(folder) for folder in find_weight_folders(pipeline)]
    components = {files.folder.name for files in selected}
    files = (path for path in map(Path, list_files(pipeline)) if Path(*path.parts[1:]) != Path(LORA_SCALES))
    paths = [path for path in files if path.parts[0] != SOLUTIONS]
    weights = [path for path in paths if SUFFIX in path.name or path.suffix in OTHER_SUFFIXES]
    unused = {path.parts[0] for path in weights if len(path.parts) > 1} - components
    strays = {path for files in selected for path in files.strays}
    strays |= {pipeline / path for path in paths if len(path.parts) > 1 and path.parts[0] in unused}
    strays |= {pipeline / path for path in weights if path.suffix in OTHER_SUFFIXES or len(path.parts) != 2}
    return sorted(strays)


def get_library(config: Mapping[str, Any]) -> str:
    """The library that loads a component: `diffusers` or `transformers`.

    Args:
        config: The component's config.json.
    """
    return "diffusers" if "_class_name" in config else "transformers"


def _find_stem(folder: Path) -> str:
    """What the names of a component's weight files begin with: its config says which library loads them."""
    file = folder / "config.json"
    config = read_json_object(file) if _is_present(file) else {}
    if "architectures" in config or "model_type" in config:
        _require_usual_names(folder, config)
    if {"_class_name", "architectures", "model_type"} & config.keys():
        return WEIGHT_FILE_STEMS[get_library(config)]
    # An extra scheme, which is a part of a component, has no class.
    is_diffusers = any(folder.glob(f"{WEIGHT_FILE_STEMS['diffusers']}*"))
    return WEIGHT_FILE_STEMS["diffusers" if is_diffusers else "transformers"]


def _require_usual_names(folder: Path, config: Mapping[str, Any]) -> None:
    """Raises UserError where transformers would load other files than those of the usual names."""
    if "transformers_weights" in config:
        raise UserError(
            f"{folder / 'config.json'} names its weights by 'transformers_weights', which is not supported. Save the "
            "component again with save_pretrained()."
        )
    if (folder / "adapter_config.json").exists():
        raise UserError(
            f"{folder} has an adapter_config.json: transformers would add a LoRA to the weights. Merge it with "
            "merge_and_unload(), or remove it."
        )


def _candidates(stem: str, variant: str) -> Iterator[tuple[str, str]]:
    """Yields the names of files to look for in the library's order, each with its plain name."""
    dot = f".{variant}" if variant else ""
    single = (f"{stem}{dot}{SUFFIX}", f"{stem}{SUFFIX}")
    indexes = [(f"{stem}{SUFFIX}.index{dot}.json", f"{stem}{INDEX_SUFFIX}")]
    if variant and stem == WEIGHT_FILE_STEMS["diffusers"]:  # as earlier releases of diffusers saved it
        indexes.append((f"{stem}{SUFFIX}{dot}.index.json", f"{stem}{INDEX_SUFFIX}"))
    yield from (single, *indexes) if stem == WEIGHT_FILE_STEMS["transformers"] else (*indexes, single)


def _is_present(file: Path) -> bool:
    """Whether a file is there.

    Raises:
        UserError: It is a link to nothing, or its name is none that a file can have.
    """
    try:
        if file.is_symlink() and not file.exists():
            raise UserError(f"{file} is a link to {file.readlink()}, which does not exist. {advise_recovery(file)}")
        return file.is_file()
    except OSError as error:  # such as a name that is too long
        raise UserError(f"{file} cannot be read ({error.strerror}). {advise_recovery(file.parent)}") from error


def _list_weights(folder: Path) -> list[Path]:
    """All safetensors files of a folder and their indexes, sorted."""
    names = re.compile(rf".*\{SUFFIX}(\..*\.?json)?")
    return sorted(path for path in folder.iterdir() if names.fullmatch(path.name) and not path.name.startswith("."))


# ---------------------------------------------------------------- variants


def _resolve_variant(component: Path) -> str:
    """The variant in which a pipeline's components are loaded that have it; empty if all have plain weights.

    Raises:
        UserError: Components have only variants, and no or more than one variant is common to all of these.
    """
    common: set[str] | None = None
    pipeline = component.parent
    for folder in find_weight_folders(pipeline) if is_pipeline(pipeline) else [component]:
        stem = _find_stem(folder)
        variants = _list_variants(folder, stem)
        if variants and not any((folder / name).is_file() for name, _ in _candidates(stem, "")):
            common = variants if common is None else common & variants
    if common is None:
        return ""
    if len(common) != 1:
        names = ", ".join(sorted(common)) or "none that all components have"
        raise UserError(
            f"{pipeline} has its weights in several variants only ({names}). Keep the files of one variant, or save "
            "the pipeline without a variant."
        )
    return common.pop()


def _list_variants(folder: Path, stem: str) -> set[str]:
    """The variants of which a folder has a single file or an index."""
    patterns = [rf"{stem}\.([^.]+)\{SUFFIX}", rf"{stem}\{SUFFIX}\.index\.([^.]+)\.json"]
    if stem == WEIGHT_FILE_STEMS["diffusers"]:
        patterns.append(rf"{stem}\{SUFFIX}\.([^.]+)\.index\.json")
    matches = (re.fullmatch(pattern, path.name) for path in _list_weights(folder) for pattern in patterns)
    return {match[1] for match in matches if match and not SHARD.search(match[1])}


# ---------------------------------------------------------------- index


def _read_index(index: Path) -> dict[str, Path]:
    """The file of each tensor.

    Raises:
        UserError: The index is corrupt, or a file that it lists is missing or outside of its folder.
    """
    content = read_json_object(index)
    weight_map = content.get("weight_map")
    if not isinstance(weight_map, dict) or not all(isinstance(name, str) for name in weight_map.values()):
        problem = "its weight_map does not name a file for each tensor"
        raise UserError(f"{index} is corrupt: {problem}. {advise_recovery(index)}")
    if not weight_map:
        raise UserError(f"{index} is corrupt: it lists no tensors. {advise_recovery(index)}")
    for name in sorted(set(weight_map.values())):
        if Path(name).name != name.removeprefix("./"):
            problem = f"it names the file {name!r} in another folder"
            raise UserError(f"{index} is corrupt: {problem}. {advise_recovery(index)}")
        if not is_file_name(name.removeprefix("./")):
            raise UserError(f"{index} is corrupt: no file can be named {format_value(name)}. {advise_recovery(index)}")
        if not _is_present(index.parent / name):
            raise UserError(f"{index.parent / name} is missing, but {index.name} lists it. {advise_recovery(index)}")
    return {tensor: index.parent / name for tensor, name in weight_map.items()}


def _explain_absence(folder: Path, stem: str) -> str:
    names = sorted(path.name for path in folder.iterdir())
    unfinished = next((name for name in names if name.lower().endswith(UNFINISHED_SUFFIXES)), None)
    if unfinished:
        return f"{folder / unfinished} is a download that has not been finished. {advise_recovery(folder)}"
    loaded = (SUFFIX, INDEX_SUFFIX)
    written_otherwise = next((n for n in names if n.lower().endswith(loaded) and not n.endswith(loaded)), None)
    if written_otherwise:
        return f"{folder / written_otherwise} is not found by its name. Rename it to {written_otherwise.lower()}."
    other_kind = next((path for path in _list_weights(folder) if path.exists() and not path.is_file()), None)
    if other_kind:
        return f"{other_kind} is a folder, pipe or device instead of a file. {advise_recovery(folder)}"
    files = [path.name for path in _list_weights(folder)]
    if files:
        library = next(name for name in WEIGHT_FILE_STEMS if WEIGHT_FILE_STEMS[name] == stem)
        return (
            f"{folder} has no {stem}{SUFFIX} and no {stem}{INDEX_SUFFIX}, which {library} loads, only "
            f"{', '.join(files)}. Rename the file with the weights to {stem}{SUFFIX}."
        )
    pickles = [path.name for pattern in PICKLE_PATTERNS for path in sorted(folder.glob(pattern))]
    if pickles:
        return (
            f"{folder} has only pickled weights ({pickles[0]}), which are not loaded because they can run code. "
            "Convert them: load the model and call save_pretrained(..., safe_serialization=True)."
        )
    unread = sorted(path.name for path in folder.iterdir() if path.suffix.lower() in OTHER_SUFFIXES)
    if unread:
        return (
            f"{folder} has no .safetensors file, only {unread[0]}, which is not read. Use the pipeline as "
            "diffusers saves it, with weights in .safetensors files."
        )
    return f"{folder} has no .safetensors file. {advise_recovery(folder)}"
