"""Checks a diffusers pipeline before any work: whether all its files are there, and whether it can make such images.

Only names, JSON files and the headers of weights are read, so that it takes the same time for a model of any size.
"""

from __future__ import annotations

import codecs
import logging
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..common.articles import add_article
from ..common.errors import UserError, summarize_error
from ..common.named_configs import NamedConfig
from ..common.plausible_values import find_implausible_value
from ..common.system_memory import check_memory
from ..common.validation import describe_value_error, format_value
from ..models.base.family import Family
from ..models.base.host import load_host
from ..models.base.image_size import check_image_size, estimate_min_memory
from ..models.registry import load_families
from ..runtime.scheduler_config import check_schedule, check_supported_schedule, find_misspelt_options
from ..storage.awq_layout import require_awq_layout
from ..storage.checkpoint import Checkpoint
from ..storage.files import LFS_POINTER, read_json_object, require_no_lfs_pointer
from ..storage.layout import MODEL_INDEX, SCHEDULER_CONFIG
from ..storage.parameter_count import read_loaded_headers
from ..storage.recovery import DOWNLOAD_AGAIN, advise_recovery
from ..storage.relative_path import is_file_name
from ..storage.weight_files import find_weight_folders, select_weight_files
from ..storage.weight_formats import is_awq
from .component_libraries import LIBRARIES, check_library
from .hub import read_pipeline_arguments, read_pipeline_class
from .tokenizer_ids import check_token_ids

if TYPE_CHECKING:
    from jinja2 import Template

READ_SUFFIXES = (".json", ".txt", ".jinja", ".model")  # of the files besides the weights that are loaded
TRIAL_PROMPT = "prompt"
logger = logging.getLogger(__name__)
# One of these holds the vocabulary, depending on the kind of tokenizer.
VOCABULARY_FILES = (
    "tokenizer.json", "vocab.json", "vocab.txt", "spiece.model", "sentencepiece.bpe.model",
    "tokenizer.model",
)  # fmt: skip
TOKENIZER_OBJECTS = ("tokenizer.json", "vocab.json", "special_tokens_map.json", "added_tokens.json")
PEEK_BYTES = 256
WITHOUT_WEIGHTS = ("Tokenizer", "Processor", "Extractor")  # in names of classes, such as CLIPImageProcessorPil
WITHOUT_VOCABULARY = ("ByT5Tokenizer",)  # every byte is a token


def check_pipeline(folder: Path) -> None:
    """Checks that a diffusers folder has everything that its model_index.json names.

    Args:
        folder: The folder, quantized or not.

    Raises:
        UserError: model_index.json is corrupt or lacks a component of the family, or a component has no config, another
            class than model_index.json says, a library that does not exist, no weights, no vocabulary, no chat template
            that it needs, or only some of its shards, a tokenizer has ids beyond the embeddings of its text encoder, or
            the configs lack what a host of exported graphs reads of them.
    """
    family = load_families().get(read_pipeline_class(folder))
    index = read_json_object(folder / MODEL_INDEX)
    components = {name: entry for name, entry in index.items() if isinstance(entry, list)}
    if family is None:
        components = {name: entry for name, entry in components.items() if not _has_numbers(entry)}
    if family is not None:
        _check_family(folder, family, components)
    for name, entry in components.items():
        if len(entry) != 2 or not all(part is None or (isinstance(part, str) and part.strip()) for part in entry):
            advice = advise_recovery(folder)
            raise UserError(f"{folder / MODEL_INDEX} has no library and class for '{name}'. {advice}")
        if not is_file_name(name):
            reason = f"the component {format_value(name)}, which can be no folder in it"
            raise UserError(f"{folder / MODEL_INDEX} names {reason}. {advise_recovery(folder)}")
        library, class_name = entry
        if library is not None and class_name is not None:
            _check_component(folder / name, library, class_name)
    check_token_ids(folder, components)
    if family is not None and family.uses_chat_template:
        _check_chat_template(folder / "tokenizer", family.pipeline_class)
    if family is not None and family.host:
        check_host(folder, family)
        file = folder / "scheduler" / SCHEDULER_CONFIG
        with _named_file(file):
            check_schedule(read_json_object(file, allow_infinity=True))


def check_lfs_pointers(folder: Path) -> None:
    """Checks that the files of a pipeline besides its weights were downloaded.

    Raises:
        UserError: One is a git-lfs pointer.
    """
    for file in sorted((*folder.glob("*"), *folder.glob("*/*"))):
        if file.suffix in READ_SUFFIXES and file.is_file():
            with file.open("rb") as stream:
                require_no_lfs_pointer(file, stream.read(len(LFS_POINTER)))


def check_weight_headers(folder: Path) -> list[Checkpoint]:
    """Checks that all weights of a pipeline were downloaded, and that shards hold what their index says.

    Returns:
        The weights of its components.

    Raises:
        UserError: A file is missing, corrupt or a git-lfs pointer, or an index names what a shard has not.
    """
    check_lfs_pointers(folder)
    return [Checkpoint(component) for component in find_weight_folders(folder)]


def check_weight_formats(folder: Path) -> None:
    """Checks by headers that the weights of a pipeline, as far as it has some, are of a format that is read.

    Raises:
        UserError: As for `check_weight_headers`, or weights have another format.
    """
    for checkpoint in check_weight_headers(folder):
        file = checkpoint.folder / "config.json"
        config = read_json_object(file) if file.exists() else {}
        if is_awq(config):
            headers = read_loaded_headers(select_weight_files(checkpoint.folder))
            require_awq_layout(checkpoint.folder, headers, config["quantization_config"])
        else:
            checkpoint.require_supported(config)


def _has_numbers(entry: list[Any]) -> bool:
    """Whether a list of model_index.json is an argument of the pipeline's class, such as the layers that it reads."""
    return bool(entry) and all(isinstance(part, int | float) for part in entry)


def read_configs(folder: Path) -> dict[str, dict[str, Any]]:
    """Reads the configs of a pipeline's components and scheduler, by folder name.

    Raises:
        UserError: A config is corrupt.
    """
    files = [path for path in sorted(folder.glob("*/*config.json")) if path.name in ("config.json", SCHEDULER_CONFIG)]
    configs: dict[str, dict[str, Any]] = {}
    for path in files:
        content = read_json_object(path, allow_infinity=path.name == SCHEDULER_CONFIG)
        configs[path.parent.name] = NamedConfig(f"{path.parent.name}/{path.name}", content)
    return configs | read_pipeline_arguments(folder)


def check_images(folder: Path, height: int, width: int) -> None:
    """Checks that a pipeline can generate images of a size, and that there can be memory for one.

    Args:
        folder: The pipeline's folder.
        height: Height in pixels.
        width: Width in pixels.

    Raises:
        UserError: The pipeline does not support the size, or the memory certainly does not suffice.
    """
    configs = read_configs(folder)
    pipeline_class = read_pipeline_class(folder)
    family = load_families().get(pipeline_class)
    with _reject_configs(folder, pipeline_class):
        if family is not None:
            check_image_size(family, configs, height, width)
        min_memory = estimate_min_memory(configs, height, width)
    check_memory(min_memory, f"An image of {height}x{width}", "Choose a smaller size.")


def check_host(folder: Path, family: Family) -> None:
    """Checks that the configs have what a host of exported graphs reads of them, of a family that has one.

    Raises:
        UserError: A value is missing or invalid.
    """
    if family.host:
        with _reject_configs(folder, family.pipeline_class):
            load_host(family, read_configs(folder))


def check_exported_schedule(folder: Path, family: Family) -> None:
    """Checks that images can be generated without torch with a pipeline's schedule.

    Raises:
        UserError: The family has a host, and that has no such schedule.
    """
    if not family.host:
        return
    check_host(folder, family)
    file = folder / "scheduler" / SCHEDULER_CONFIG
    with _named_file(file):
        config = read_json_object(file, allow_infinity=True)
        check_supported_schedule(config, load_host(family, read_configs(folder)).scheduler_class)


def warn_about_scheduler_options(folder: Path) -> None:
    """Logs which options of a pipeline's scheduler are probably misspelt; no library is imported for it."""
    file = folder / "scheduler" / SCHEDULER_CONFIG
    if file.is_file():
        for key, meant in find_misspelt_options(read_json_object(file, allow_infinity=True)).items():
            logger.warning("%s: the key '%s' is ignored; did you mean '%s'? Correct it.", file, key, meant)


@contextmanager
def _named_file(file: Path) -> Iterator[None]:
    """Adds the name of a file to what is wrong in it."""
    try:
        yield
    except UserError as error:
        text = str(error)
        raise UserError(text if str(file) in text else f"{file}: {text}") from error


@contextmanager
def _reject_configs(folder: Path, pipeline_class: str) -> Iterator[None]:
    try:
        yield
    except (ArithmeticError, AttributeError, LookupError, TypeError, ValueError) as error:
        raise UserError(
            f"The configs in {folder} do not describe {add_article(pipeline_class)}: {describe_value_error(error)}. "
            f"{advise_recovery(folder)}"
        ) from error


# ---------------------------------------------------------------- components


def _check_family(folder: Path, family: Family, components: Mapping[str, Any]) -> None:
    """Raises UserError where model_index.json lacks a component that the family needs."""
    optional = {graph.component for graph in family.graphs if graph.optional}
    required = [part.name for part in family.components if part.name not in optional]
    for name in (*required, "scheduler", "tokenizer"):
        if (components.get(name) or [None])[0] is None:
            raise UserError(f"{folder / MODEL_INDEX} does not list the component '{name}'. {advise_recovery(folder)}")


def _check_component(folder: Path, library: str, class_name: str) -> None:
    if not folder.is_dir():
        advice = advise_recovery(folder)
        if folder.name.startswith("text_encoder") and advice == DOWNLOAD_AGAIN:
            advice = "Download it into that folder; if it is gated, ask for access on its page and log in first."
        raise UserError(
            f"There is no folder {folder}, which {MODEL_INDEX} names as {add_article(class_name)}. {advice}"
        )
    check_library(folder, library, class_name)
    if "Tokenizer" in class_name and class_name not in WITHOUT_VOCABULARY:
        _check_tokenizer(folder)
    elif class_name.endswith("Scheduler"):
        _check_scheduler(folder, class_name)
    elif library in LIBRARIES and not any(word in class_name for word in WITHOUT_WEIGHTS):
        _check_model(folder, library, class_name)


def _require_file(file: Path) -> Path:
    if not file.is_file():
        raise UserError(f"{file} is missing. {advise_recovery(file)}")
    return file


def _check_tokenizer(folder: Path) -> None:
    if not any((folder / name).is_file() for name in VOCABULARY_FILES):
        raise UserError(f"{folder} has no vocabulary, such as {VOCABULARY_FILES[0]}. {advise_recovery(folder)}")
    for name in TOKENIZER_OBJECTS:
        for file in folder.glob(name):
            with file.open("rb") as stream:  # some are of tens of megabytes, which transformers reads once more
                beginning = stream.read(PEEK_BYTES).removeprefix(codecs.BOM_UTF8).lstrip()
            require_no_lfs_pointer(file, beginning)
            if not beginning.startswith(b"{"):
                raise UserError(f"{file} is no JSON object. {advise_recovery(file)}")
    for file in folder.glob("tokenizer_config.json"):
        _check_max_length(file, read_json_object(file).get("model_max_length"))


def _check_max_length(file: Path, length: Any) -> None:
    """Raises UserError where transformers or a pipeline would truncate prompts at an impossible length."""
    is_number = isinstance(length, int | float) and not isinstance(length, bool)
    if length is not None and not (is_number and length >= 1 and length == int(length)):
        raise UserError(
            f"{file}: model_max_length = {format_value(length)}: it must be a whole number of tokens, at least 1. "
            f"{advise_recovery(file)}"
        )


def _check_scheduler(folder: Path, class_name: str) -> None:
    """Raises UserError where diffusers would load another scheduler than the exported graphs are run with."""
    file = _require_file(folder / SCHEDULER_CONFIG)
    _require_class(file, read_json_object(file, allow_infinity=True), class_name)


def _check_chat_template(folder: Path, pipeline_class: str) -> None:
    """Raises UserError where a tokenizer has no chat template, or one that is invalid."""
    file, config_file = folder / "chat_template.jinja", folder / "tokenizer_config.json"
    try:
        text = file.read_text("utf-8") if file.is_file() else None
    except UnicodeDecodeError as error:
        raise UserError(f"{file} is not UTF-8. {advise_recovery(folder)}") from error
    if text is None and config_file.is_file():
        file, text = config_file, read_json_object(config_file).get("chat_template")
    if text is None:
        raise UserError(
            f"{folder} has no chat template, chat_template.jinja, which {add_article(pipeline_class)} needs. "
            f"{advise_recovery(folder)}"
        )
    if isinstance(text, str):  # a list of them has names; transformers chooses
        from ..prompts.chat_template import compile_chat_template

        _try_chat_template(compile_chat_template(text, file, advise_recovery(folder)), file)


def _try_chat_template(template: Template, file: Path) -> None:
    """Raises UserError where a chat template rejects a prompt, or leaves it out."""
    messages = [{"role": "user", "content": TRIAL_PROMPT}]
    try:
        rendered = template.render(messages=messages, tools=None, documents=None, add_generation_prompt=True)
    except Exception as error:  # a template may raise anything
        raise UserError(
            f"The chat template in {file} rejects a prompt ({summarize_error(error)}). {advise_recovery(file)}"
        ) from error
    if TRIAL_PROMPT not in rendered:
        raise UserError(f"The chat template in {file} leaves the prompt out. {advise_recovery(file)}")


def _require_class(file: Path, config: Mapping[str, Any], class_name: str) -> None:
    """Raises UserError where a config of diffusers describes another class than model_index.json names."""
    described = config.get("_class_name")
    if described not in (None, class_name):
        raise UserError(
            f"{file} describes {add_article(format_value(described))}, but {MODEL_INDEX} names "
            f"{add_article(class_name)}. "
            f"{advise_recovery(file.parent)}"
        )


def _check_model(folder: Path, library: str, class_name: str) -> None:
    file = _require_file(folder / "config.json")
    config = read_json_object(file)
    if library == "diffusers":
        _require_class(file, config, class_name)
    implausible = find_implausible_value(config)
    if implausible:
        raise UserError(f"{file}: {implausible}. {advise_recovery(file)}")
    select_weight_files(folder)
