"""A pipeline's tokenizer in the files that the runtime reads, with the token ids that the pipeline has in torch.

A tokenizer's folder says things in several places, and the class that loads it may overrule them: tokenizer_config.json
or added_tokens.json may add tokens, a class may have its own normalizer and special tokens, and templates may be in
several files. So the tokenizer is loaded as diffusers loads it. Files that already say the same are copied as they are,
and are not loaded again as long as they are the same; what differs is written out.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer

from ...common.articles import add_article
from ...common.errors import UserError
from ...pipelines.passed_checks import compute_key, has_passed, remember
from ...pipelines.tokenizer_loading import load_tokenizer
from ...storage.files import read_json_object
from ...storage.layout import MODEL_INDEX

TOKENIZER, TEMPLATE, CONFIG = "tokenizer.json", "chat_template.jinja", "tokenizer_config.json"
# Keys of tokenizer.json that no token id depends on: how ids are decoded, and what callers of a tokenizer set.
NOT_IN_IDS = ("version", "decoder", "truncation", "padding")


def resolve_tokenizer_files(
    pipeline: Path, tokenizer: str = "tokenizer", has_template: bool = True, is_padded: bool = False
) -> dict[str, str]:
    """Returns the text of tokenizer.json, tokenizer_config.json and chat_template.jinja for the runtime.

    Args:
        pipeline: A pipeline's folder.
        tokenizer: Folder of the tokenizer in it.
        has_template: Whether prompts are messages of a chat; otherwise there is no chat_template.jinja.
        is_padded: Whether short prompts are padded.

    Raises:
        UserError: A file is missing, the tokenizer cannot be loaded, or has a setting that the runtime lacks.
    """
    folder = pipeline / tokenizer
    if not (folder / CONFIG).is_file():
        raise UserError(f"{folder / CONFIG} is missing. Save the pipeline again with save_pretrained().")
    if has_template and not (folder / TOKENIZER).is_file():
        raise UserError(f"{folder / TOKENIZER} is missing. Save the pipeline again with save_pretrained().")
    stored = _read_stored(folder, has_template)
    if stored is None:  # nothing is remembered of what must be written out
        return _resolve_files(pipeline, tokenizer, has_template, is_padded)
    key = compute_key(__name__, {"files": _digest_files(pipeline, tokenizer), "settings": [has_template, is_padded]})
    if has_passed(key):
        return stored
    files = _resolve_files(pipeline, tokenizer, has_template, is_padded)
    if files == stored:
        remember(key)
    return files


def _read_stored(folder: Path, has_template: bool) -> dict[str, str] | None:
    """The files of a folder as they are; None if one is missing."""
    names = (TOKENIZER, CONFIG, *((TEMPLATE,) if has_template else ()))
    if not all((folder / name).is_file() for name in names):
        return None
    try:
        return {name: (folder / name).read_text("utf-8-sig") for name in names}
    except UnicodeDecodeError:  # loading the tokenizer tells what is wrong
        return None


def _digest_files(pipeline: Path, tokenizer: str) -> dict[str, str]:
    """Digests of all that a tokenizer is loaded from, by name."""
    files = sorted(file for file in (pipeline / tokenizer).rglob("*") if file.is_file())
    digests = {str(file.relative_to(pipeline)): hashlib.sha256(file.read_bytes()).hexdigest() for file in files}
    return digests | {MODEL_INDEX: json.dumps(read_json_object(pipeline / MODEL_INDEX).get(tokenizer))}


def _resolve_files(pipeline: Path, tokenizer: str, has_template: bool, is_padded: bool) -> dict[str, str]:
    """Loads the tokenizer, and returns the files that make the same token ids."""
    folder, loaded = pipeline / tokenizer, load_tokenizer(pipeline, tokenizer)
    if not hasattr(loaded, "backend_tokenizer"):
        raise UserError(
            f"{folder} is {add_article(type(loaded).__name__)}, which has no {TOKENIZER}. Export another pipeline."
        )
    if getattr(loaded, "split_special_tokens", False):
        raise UserError(
            f"{folder / CONFIG} sets split_special_tokens, which exported graphs do not support. Remove it there."
        )
    if is_padded and loaded.padding_side != "right":
        raise UserError(
            f"{folder / CONFIG} has padding_side {loaded.padding_side}, which exported graphs do not support. "
            "Set it to right if the model reads prompts so."
        )
    text = _resolve_tokenizer(folder / TOKENIZER, loaded)
    files = {TOKENIZER: text, CONFIG: _resolve_config(folder, text, loaded)}
    return files | ({TEMPLATE: _resolve_template(folder, loaded)} if has_template else {})


def _resolve_tokenizer(file: Path, loaded: Any) -> str:
    """The text of tokenizer.json if it makes the same ids as the loaded tokenizer, or else one that does."""
    backend = Tokenizer.from_str(loaded.backend_tokenizer.to_str())
    backend.no_truncation()
    backend.no_padding()
    if file.is_file():  # vocabularies of older pipelines are in other files
        text = file.read_text("utf-8-sig")
        if _describe_ids(Tokenizer.from_str(text)) == _describe_ids(backend):
            return text
    return backend.to_str(pretty=True)


def _describe_ids(tokenizer: Tokenizer) -> dict[str, Any]:
    """All that the ids of a tokenizer depend on."""
    content: dict[str, Any] = json.loads(tokenizer.to_str())
    content = {key: value for key, value in content.items() if key not in NOT_IN_IDS}
    if (content.get("post_processor") or {}).get("type") == "ByteLevel":  # it only changes offsets
        content["post_processor"] = None
    return content


def _resolve_template(folder: Path, loaded: Any) -> str:
    """The chat template, of several the default one."""
    try:
        template: str = loaded.get_chat_template()
    except ValueError as error:
        raise UserError(
            f"{folder / TEMPLATE} is missing, and no other file has a default chat template. "
            "Save the pipeline again with save_pretrained()."
        ) from error
    return template


def _resolve_config(folder: Path, text: str, loaded: Any) -> str:
    """The text of tokenizer_config.json with the special tokens of chat templates, and where to truncate and to pad.

    Args:
        folder: The tokenizer's folder.
        text: The text of tokenizer.json for the runtime.
        loaded: The loaded tokenizer.
    """
    config = read_json_object(folder / CONFIG)
    special = {key: token for key, token in loaded.special_tokens_map.items() if isinstance(token, str)}
    listed = {key: _get_content(token) for key, token in config.items() if key.endswith("_token")}
    listed = {key: token for key, token in listed.items() if isinstance(token, str)}
    backend = Tokenizer.from_str(text)
    stored = {"truncation_side": backend.truncation, "padding_side": backend.padding}
    listed_settings = {
        key: config.get(key) or (settings or {}).get("direction", "right") for key, settings in stored.items()
    }
    loaded_settings = {key: getattr(loaded, key) for key in stored}
    if listed == special and listed_settings == loaded_settings:
        return (folder / CONFIG).read_text("utf-8-sig")
    remaining = {key: value for key, value in config.items() if key not in listed}
    return json.dumps(remaining | special | loaded_settings, indent=2, ensure_ascii=False)


def _get_content(token: Any) -> Any:
    """The text of a token, which may be stored with settings of its own."""
    return token.get("content") if isinstance(token, Mapping) else token
