"""Remembers, in the user's cache, which checks of a pipeline's parts have passed.

A check builds or loads a class, and importing that takes seconds, half of an export whose graphs are cached. Its result
depends on little: what is checked, the code and the versions of the libraries.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from contextlib import suppress
from importlib.metadata import version
from pathlib import Path
from typing import Any

from ..common.code_fingerprint import code_fingerprint
from ..common.user_folders import get_check_cache_folder
from ..models.base.family import Component
from ..storage.checkpoint import Checkpoint

MAX_ENTRIES = 200
LIBRARIES = ("torch", "diffusers", "transformers", "accelerate", "tokenizers")


def check_once(
    compare: Callable[[], object], checkpoint: Checkpoint, component: Component, config: Mapping[str, Any]
) -> None:
    """Compares a component with its class, unless it is known to pass.

    Args:
        compare: Raises an error if the component does not pass.
        checkpoint: The component's weights.
        component: The component in its family.
        config: Its config.json.
    """
    content = {
        "component": repr(component),
        "config": config,
        "weights": [(name, checkpoint.shape(name), checkpoint.dtype(name)) for name in checkpoint.names()],
    }
    key = compute_key(f"{__package__}.component_weights", content)
    if not has_passed(key):
        compare()
        remember(key)


def compute_key(module: str, content: Mapping[str, Any]) -> str:
    """Returns a digest of all that the result of a check depends on.

    Args:
        module: Full name of the module that checks.
        content: What is checked, as JSON.
    """
    libraries = {library: version(library) for library in LIBRARIES}
    everything = {**content, "code": code_fingerprint(module), "libraries": libraries}
    return hashlib.sha256(json.dumps(everything, sort_keys=True).encode()).hexdigest()[:32]


def has_passed(key: str) -> bool:
    """Whether a check has passed. Without a home folder, nothing is remembered."""
    try:
        return _get_entry(key).exists()
    except (OSError, RuntimeError):
        return False


def remember(key: str) -> None:
    """Remembers that a check has passed, and forgets the oldest ones; a read-only home folder is no error."""
    with suppress(OSError, RuntimeError):
        entry = _get_entry(key)
        entry.parent.mkdir(parents=True, exist_ok=True)
        entry.touch()
        entries = sorted(entry.parent.iterdir(), key=lambda file: file.stat().st_mtime, reverse=True)
        for oldest in entries[MAX_ENTRIES:]:
            oldest.unlink(missing_ok=True)


def _get_entry(key: str) -> Path:
    return get_check_cache_folder() / key
