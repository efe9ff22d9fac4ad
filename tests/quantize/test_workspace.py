"""Workspaces: what is left of a run, and what the next one sees of it."""

from __future__ import annotations

import json
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import save_file

from edgepress.common.errors import UserError
from edgepress.quantize.workspace import (
    Workspace,
    WorkspaceState,
    compute_key,
    iterate_tensors,
    list_tensor_names,
    read_metadata,
    read_tensor,
)

INPUTS: dict[str, Any] = {"recipe": {"bits": 4}, "model": ["a"], "prompt set": "x"}


class KilledError(BaseException):
    """Stands for kill -9 at an exact moment; nothing in the package catches it."""


def leave_block(output: Path, inputs: dict[str, Any]) -> Workspace:
    """What a run leaves that was killed after its first block."""
    workspace = Workspace.open(output, inputs)
    with suppress(KilledError), workspace.lock():
        workspace.block_file("0").touch()
        raise KilledError
    return workspace


def test_a_run_that_finished_nothing_leaves_nothing(tmp_path: Path) -> None:
    with suppress(KilledError), Workspace(tmp_path / "artifact", "key", {"model": []}).lock():
        raise KilledError
    assert list(tmp_path.iterdir()) == []


def test_a_run_that_finished_a_block_leaves_it(tmp_path: Path) -> None:
    workspace = Workspace(tmp_path / "artifact", "key", {"model": []})
    with suppress(KilledError), workspace.lock():
        workspace.block_file("0").touch()
        raise KilledError
    assert workspace.block_file("0").exists()
    assert workspace.inputs_file.exists()


def test_half_written_files_are_removed_by_the_next_run(tmp_path: Path) -> None:
    workspace = leave_block(tmp_path / "artifact", INPUTS)
    (workspace.folder / "blocks" / "1.safetensors.new").touch()
    with workspace.lock():
        assert [path.name for path in workspace.block_file("").parent.iterdir()] == ["0.safetensors"]


def test_work_is_resumed_with_the_same_inputs_alone(tmp_path: Path) -> None:
    output = tmp_path / "artifact"
    assert Workspace.open(output, INPUTS).state is WorkspaceState.NEW
    assert not output.exists()  # nothing is written
    leave_block(output, INPUTS)
    assert Workspace.open(output, INPUTS).state is WorkspaceState.RESUMABLE
    assert Workspace.open(output, INPUTS, restart=True).state is WorkspaceState.NEW
    assert Workspace.open(output, INPUTS | {"model": ["b"]}).state is WorkspaceState.NEW


def test_work_of_other_inputs_is_stale_and_says_which_differ(tmp_path: Path) -> None:
    output = tmp_path / "artifact"
    old, older, damaged = (leave_block(output, INPUTS | {"model": [name]}) for name in "bcd")
    older.inputs_file.rename(older.folder / "made-from.json")  # its name in earlier releases
    damaged.inputs_file.write_text("{")
    workspace = leave_block(output, INPUTS)
    assert workspace.find_stale() == {
        old.folder: ["model"],
        older.folder: ["model"],
        damaged.folder: ["recipe", "model", "prompt set"],
    }
    workspace.clear()
    assert workspace.find_stale() == {}
    assert not workspace.folder.exists()


def test_a_model_of_other_inputs_is_not_replaced_without_force(tmp_path: Path) -> None:
    (tmp_path / "artifact" / "model").mkdir(parents=True)
    with pytest.raises(UserError, match=r"was made from another recipe.*--force"):
        Workspace.open(tmp_path / "artifact", INPUTS)
    assert Workspace.open(tmp_path / "artifact", INPUTS, force=True).state is WorkspaceState.NEW


def test_after_a_reset_only_the_inputs_are_known(tmp_path: Path) -> None:
    workspace = leave_block(tmp_path / "artifact", INPUTS)
    workspace.reset()
    assert [path for path in workspace.folder.rglob("*") if path.is_file()] == [workspace.inputs_file]
    assert json.loads(workspace.inputs_file.read_text("utf-8")) == INPUTS


def test_samples_of_a_block_are_in_the_order_of_calls_and_runs(tmp_path: Path) -> None:
    workspace = Workspace(tmp_path / "artifact", "key")
    calls = [(12, 0), (2, 1), (2, 0), (100, 0)]
    for call, run in calls:
        workspace.new_sample_file("layers.0", call, run).write_text(f"{call} {run}")
    workspace.new_sample_file("layers.1", 0, 0).touch()
    read = [tuple(map(int, file.read_text().split())) for file in workspace.sample_files("layers.0")]
    assert read == sorted(calls)


JSON = st.recursive(
    st.none() | st.integers() | st.text(), lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner)
)


@given(st.dictionaries(st.text(), JSON, max_size=4), st.randoms())
def test_a_key_depends_on_what_the_inputs_say_and_not_on_their_order(inputs: dict[str, Any], random: Any) -> None:
    topics = list(inputs)
    random.shuffle(topics)
    key = compute_key(inputs)
    assert key == compute_key({topic: inputs[topic] for topic in topics})
    assert key != compute_key(inputs | {"one more topic": None})
    assert Path(key).name == key  # a folder's name


def test_tensors_are_read_one_by_one(tmp_path: Path) -> None:
    tensors = {"b": torch.arange(3), "a": torch.ones(2, 2)}
    save_file(tensors, tmp_path / "t.safetensors", {"format": json.dumps({"layers": [1]})})
    assert sorted(list_tensor_names(tmp_path / "t.safetensors")) == ["a", "b"]
    assert all(torch.equal(tensors[name], tensor) for name, tensor in iterate_tensors(tmp_path / "t.safetensors"))
    assert torch.equal(read_tensor(tmp_path / "t.safetensors", "b"), tensors["b"])
    assert read_metadata(tmp_path / "t.safetensors") == {"layers": [1]}
