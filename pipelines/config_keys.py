"""Names the keys of components' configs that their classes do not know: diffusers and transformers ignore them."""

from __future__ import annotations

import inspect
import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ..common.articles import add_article
from ..common.suggest import find_misspelling
from ..storage.files import read_json_object
from ..storage.layout import MODEL_INDEX
from .empty_modules import resolve_class

OF_ALL_MODELS = frozenset({"quantization_config"})
LIBRARY_LOGGER, LIBRARY_MESSAGE = "diffusers.configuration_utils", "The config attributes "
logger = logging.getLogger(__name__)


def warn_about_unknown_keys(pipeline: Path) -> None:
    """Logs a warning for each key that is ignored, and for what it may be a misspelling of.

    Configs of transformers often have keys of further releases: of them only probable misspellings are named.

    Args:
        pipeline: The pipeline's folder. What cannot be read or resolved in it is left to other checks.
    """
    logging.getLogger(LIBRARY_LOGGER).addFilter(_is_not_about_keys)  # the same in diffusers' words, several times
    for file, cls in _list_configs(pipeline):
        config = read_json_object(file, allow_infinity=True)
        known, is_exact = _list_known_keys(cls)
        for key in config:
            if key.startswith("_") or key in known or key in OF_ALL_MODELS:
                continue
            meant = find_misspelling(key, known - config.keys())
            if meant:
                hint = f"did you mean '{meant}'? Correct it, or remove it."
                logger.warning("%s: %s ignores the key '%s'; %s", file, add_article(cls.__name__), key, hint)
            elif is_exact:
                logger.warning("%s: %s ignores the key '%s'. Remove it.", file, add_article(cls.__name__), key)


def _is_not_about_keys(record: logging.LogRecord) -> bool:
    return not str(record.msg).startswith(LIBRARY_MESSAGE)


def _list_configs(pipeline: Path) -> Iterator[tuple[Path, Any]]:
    """The config files of a pipeline's components, each with its class."""
    for name, entry in read_json_object(pipeline / MODEL_INDEX).items():
        if not (isinstance(entry, list) and len(entry) == 2 and all(isinstance(part, str) for part in entry)):
            continue
        file = pipeline / name / ("scheduler_config.json" if entry[1].endswith("Scheduler") else "config.json")
        if file.is_file():
            try:
                yield file, resolve_class(*entry)
            except (AttributeError, ImportError):
                continue


def _list_known_keys(cls: Any) -> tuple[set[str], bool]:
    """The keys of a class's config, and whether these are all that its library reads."""
    if hasattr(cls, "config_class"):  # of transformers
        config = cls.config_class
        known = {*inspect.signature(config.__init__).parameters, *getattr(config, "attribute_map", {})}
        return known | config().to_dict().keys(), False
    import diffusers

    compatible = [getattr(diffusers, str(name), None) for name in getattr(cls, "_compatibles", ())]
    classes = [cls, *(entry for entry in compatible if entry is not None)]
    return {key for entry in classes for key in inspect.signature(entry.__init__).parameters} - {"self"}, True
