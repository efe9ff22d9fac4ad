"""Compares a pipeline's tokenizers with the token embeddings of its text encoders, from JSON files alone."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from ..common.errors import UserError
from ..common.validation import format_value
from ..storage.files import LFS_POINTER, read_json_object, require_no_lfs_pointer
from ..storage.recovery import advise_recovery

TOKENIZER, TEXT_ENCODER = "tokenizer", "text_encoder"  # what the names of the folders begin with; a number may follow
SIZE_KEYS = ("vocab_size", "padded_vocab_size")  # of a text encoder's config
TEMPLATE_FILE, CONFIG_FILES = "chat_template.jinja", ("tokenizer_config.json", "special_tokens_map.json")


def check_token_ids(pipeline: Path, components: Iterable[str]) -> None:
    """Checks that text encoders have an embedding for every token that prompts may be made of.

    A token that was added to the vocabulary, but is named by no template and no special token, may be beyond them.

    Args:
        pipeline: The pipeline's folder.
        components: The names of its components.

    Raises:
        UserError: A tokenizer is not valid JSON, or has ids that its text encoder has no embedding for.
    """
    for name in components:
        folder = pipeline / name
        config = pipeline / name.replace(TOKENIZER, TEXT_ENCODER) / "config.json"
        if not name.startswith(TOKENIZER) or not config.is_file():
            continue
        size = _read_vocabulary_size(config)
        file, tokens = _read_tokens(folder)
        if file is None or size is None:
            continue
        token = next((token for token, number in tokens if number >= size), None)
        if token is not None:
            raise UserError(
                f"{file} has the token {format_value(token)} with an id beyond the {size} embeddings that {config} "
                f"describes. They belong to different models. {advise_recovery(config)}"
            )


def _read_vocabulary_size(config_file: Path) -> int | None:
    """The number of token embeddings that a text encoder's config describes; None if it does not say."""
    config = read_json_object(config_file)
    sections = (config, config.get("text_config"))
    values = [section.get(key) for section in sections if isinstance(section, Mapping) for key in SIZE_KEYS]
    return max((value for value in values if isinstance(value, int)), default=None)


def _read_tokens(folder: Path) -> tuple[Path | None, Iterator[tuple[str, int]]]:
    """The file with a tokenizer's vocabulary, None if it is none of JSON, and the tokens that prompts may have."""
    file, simple_file = folder / "tokenizer.json", folder / "vocab.json"
    if file.is_file():
        return file, _iter_tokens(_read_json(file), folder)
    if simple_file.is_file():
        return simple_file, _iter_vocabulary(_read_json(simple_file))
    return None, iter(())


def _read_json(file: Path) -> Any:
    """A file of many megabytes, which is therefore not read strictly."""
    try:
        text = file.read_text("utf-8-sig")
        require_no_lfs_pointer(file, text[: len(LFS_POINTER)].encode())
        return json.loads(text)
    except (OSError, ValueError, RecursionError) as error:
        raise UserError(f"{file} is not valid JSON. {advise_recovery(file)}") from error


def _iter_tokens(content: Any, folder: Path) -> Iterator[tuple[str, int]]:
    """Yields the vocabulary of a tokenizer.json, and the added tokens that a template or a special token names."""
    if not isinstance(content, Mapping):
        return
    model, added = content.get("model"), content.get("added_tokens")
    yield from _iter_vocabulary(model.get("vocab") if isinstance(model, Mapping) else None)
    texts = [json.dumps(content.get("post_processor"), ensure_ascii=False), *_read_templates(folder)]
    for entry in added if isinstance(added, list) else ():
        token, number = (entry.get("content"), entry.get("id")) if isinstance(entry, Mapping) else (None, None)
        if isinstance(token, str) and isinstance(number, int) and any(token in text for text in texts):
            yield token, number


def _read_templates(folder: Path) -> Iterator[str]:
    """Yields the texts that name tokens: chat templates, and the special tokens of a tokenizer's configs."""
    for name in CONFIG_FILES:
        config = read_json_object(folder / name) if (folder / name).is_file() else {}
        named = {key: value for key, value in config.items() if key.endswith("_token") or key == "chat_template"}
        yield json.dumps(named, ensure_ascii=False)
    if (folder / TEMPLATE_FILE).is_file():
        yield (folder / TEMPLATE_FILE).read_text("utf-8", errors="replace")


def _iter_vocabulary(vocabulary: Any) -> Iterator[tuple[str, int]]:
    """Yields tokens and ids: of an object the values, of a list of tokens with scores the positions."""
    if isinstance(vocabulary, Mapping):
        yield from ((token, number) for token, number in vocabulary.items() if isinstance(number, int))
    elif isinstance(vocabulary, list):
        for number, entry in enumerate(vocabulary):
            yield str(entry[0] if isinstance(entry, list) and entry else entry), number
