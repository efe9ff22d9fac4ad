"""What may have no end is not read: by no reader of a file that a user names."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from edgepress.common.errors import UserError
from edgepress.evaluate.results.history import init_history
from edgepress.evaluate.results.results_file import load_results
from edgepress.prompts.sets import load_prompt_set
from edgepress.recipes.loader import load_recipe
from edgepress.storage.files import read_json_object
from edgepress.storage.safetensors_header import read_tensor_headers

READERS: dict[str, Callable[[Path], object]] = {
    "prompts.jsonl": load_prompt_set,
    "prompts.parquet": load_prompt_set,
    "recipe.yaml": load_recipe,
    "results.json": load_results,
    "history.sqlite": init_history,
    "config.json": read_json_object,
    "model.safetensors": read_tensor_headers,
}


@pytest.mark.parametrize("name", READERS)
@pytest.mark.parametrize("kind", ["pipe", "device"])
def test_pipes_and_devices_are_refused(name: str, kind: str, tmp_path: Path) -> None:
    file = tmp_path / name
    if kind == "pipe":
        os.mkfifo(file)
    else:
        file.symlink_to("/dev/zero")
    with pytest.raises(
        UserError, match=rf"{name} is no file but a pipe, socket or device, which may have no end\. \w+"
    ):
        READERS[name](file)
