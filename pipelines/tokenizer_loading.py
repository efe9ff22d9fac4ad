"""Loads the tokenizers and processors of a pipeline as diffusers does, by the classes that model_index.json names."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ..common.articles import add_article
from ..common.errors import UserError, summarize_error
from ..common.requirements import reject_failed_import
from ..common.validation import format_value
from ..storage.files import read_json_object
from ..storage.layout import MODEL_INDEX
from ..storage.recovery import advise_recovery
from .byte_order_marks import hide_byte_order_marks

TRIAL_TEXT = "a red sign"


def load_tokenizer(pipeline: Path, component: str = "tokenizer") -> Any:
    """Loads a tokenizer, or a processor of prompts and images, of a pipeline folder.

    Args:
        pipeline: The pipeline's folder.
        component: The name of its folder.

    Raises:
        UserError: transformers has no such class, or the class cannot load it.
    """
    import transformers

    folder = pipeline / component
    entry = read_json_object(pipeline / MODEL_INDEX).get(component)
    name = entry[1] if isinstance(entry, list) and len(entry) == 2 and isinstance(entry[1], str) else "AutoTokenizer"
    cls = getattr(transformers, name, None)
    if cls is None:
        raise UserError(
            f"{pipeline / MODEL_INDEX} names {add_article(format_value(name))} for '{component}', but transformers "
            f"{transformers.__version__} has no such class. Correct the name, or update transformers."
        )
    try:
        with hide_byte_order_marks(folder) as readable:
            return cls.from_pretrained(readable, local_files_only=True)
    except Exception as error:  # transformers and tokenizers raise anything for damaged files
        reject_failed_import(error, f"{folder} ({name})")
        reason = summarize_error(error)
        raise UserError(f"{folder} cannot be loaded as {name} ({reason}). {advise_recovery(folder)}") from error


def check_tokenizers(pipeline: Path) -> None:
    """Loads the tokenizers of a pipeline before any work, and lets each make tokens of a text.

    Raises:
        UserError: One cannot be loaded, or makes no tokens.
    """
    for component, entry in read_json_object(pipeline / MODEL_INDEX).items():
        if component.startswith("tokenizer") and isinstance(entry, list) and entry[0] == "transformers":
            tokenizer = load_tokenizer(pipeline, component)
            if not tokenizer(TRIAL_TEXT, add_special_tokens=False).input_ids:
                folder = pipeline / component
                raise UserError(f"The tokenizer in {folder} makes no tokens of a text. {advise_recovery(folder)}")


def check_processors(pipeline: Path) -> None:
    """Loads the processors of a pipeline before any work: parts of some need packages that edgepress does not.

    Raises:
        UserError: One cannot be loaded.
    """
    for component, entry in read_json_object(pipeline / MODEL_INDEX).items():
        is_listed = isinstance(entry, list) and len(entry) == 2 and entry[0] == "transformers"
        if is_listed and str(entry[1]).endswith("Processor"):
            load_tokenizer(pipeline, component)
