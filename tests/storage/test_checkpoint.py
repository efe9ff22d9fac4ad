"""Weights of components: lazy reading, messages that name what is wrong, and streaming, atomic writing."""

from __future__ import annotations

import json
import resource
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file
from torch import Tensor

from edgepress.common.errors import UserError
from edgepress.storage import checkpoint as checkpoint_module
from edgepress.storage.checkpoint import Checkpoint, open_safetensors, write_sharded, write_tensors


def some_tensors() -> dict[str, Tensor]:
    """Six tensors of 64 to 384 bytes in four dtypes."""
    generator = torch.Generator().manual_seed(0)
    return {
        "a.weight": torch.randn(4, 8, generator=generator),
        "a.bias": torch.randn(32, generator=generator).bfloat16(),
        "b.weight": torch.randn(8, 12, generator=generator),
        "b.qweight": torch.randint(-(2**31), 2**31 - 1, (4, 4), generator=generator, dtype=torch.int32),
        "c.scales": torch.randn(6, 8, generator=generator).half(),
        "c.weight": torch.randn(3, 16, generator=generator),
    }


def assert_same(actual: dict[str, Tensor], expected: dict[str, Tensor]) -> None:
    assert actual.keys() == expected.keys()
    for name, tensor in expected.items():
        assert actual[name].dtype == tensor.dtype, name
        assert torch.equal(actual[name], tensor), name


def load_all(checkpoint: Checkpoint) -> dict[str, Tensor]:
    return {name: checkpoint.load_tensor(name) for name in checkpoint.names()}


def write_shards_by_hand(folder: Path) -> dict[str, Tensor]:
    """Two shards and an index, written without the code under test."""
    tensors = some_tensors()
    shards = {"model-00001-of-00002.safetensors": ["a.weight", "a.bias", "b.weight"]}
    shards["model-00002-of-00002.safetensors"] = [name for name in tensors if name not in shards[next(iter(shards))]]
    for file, names in shards.items():
        save_file({name: tensors[name] for name in names}, folder / file)
    weight_map = {name: file for file, names in shards.items() for name in names}
    (folder / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": weight_map}))
    return tensors


# ---------------------------------------------------------------- reading


def test_a_single_file_is_read(tmp_path: Path) -> None:
    tensors = some_tensors()
    save_file(tensors, tmp_path / "diffusion_pytorch_model.safetensors")
    checkpoint = Checkpoint(tmp_path)
    assert_same(load_all(checkpoint), tensors)
    assert "a.bias" in checkpoint
    assert "a.biased" not in checkpoint
    assert checkpoint.shape("b.weight") == (8, 12)
    assert checkpoint.file_bytes() == (tmp_path / "diffusion_pytorch_model.safetensors").stat().st_size


def test_shards_are_read_by_their_index(tmp_path: Path) -> None:
    tensors = write_shards_by_hand(tmp_path)
    save_file({"stray": torch.zeros(1)}, tmp_path / "not-in-the-index.safetensors")
    checkpoint = Checkpoint(tmp_path)
    assert_same(load_all(checkpoint), tensors)
    assert len(checkpoint.files) == 2


@pytest.mark.parametrize(("limit", "openings"), [(2**26, 3), (4 * 8 * 4 + 32 * 2, 4), (0, 6)])
def test_tensors_are_loaded_in_any_order_with_few_openings(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, limit: int, openings: int
) -> None:
    """One opening for consecutive tensors of a file, as far as these are not larger than the limit."""
    tensors = write_shards_by_hand(tmp_path)
    names = ["c.weight", "a.weight", "a.bias", "b.weight", "b.qweight", "c.scales"]
    opened: list[Path] = []

    def open_and_record(file: Path) -> Any:
        opened.append(file)
        return open_safetensors(file)

    monkeypatch.setattr(checkpoint_module, "MAX_OPEN_BYTES", limit)
    monkeypatch.setattr(checkpoint_module, "open_safetensors", open_and_record)
    loaded = list(Checkpoint(tmp_path).load_tensors(names))
    assert [name for name, _ in loaded] == names
    assert_same(dict(loaded), tensors)
    assert len(opened) == openings


def test_a_tensor_is_loaded_when_it_is_used(tmp_path: Path) -> None:
    """A change on disk after opening is visible: nothing was loaded ahead."""
    save_file({"w": torch.zeros(4)}, tmp_path / "model.safetensors")
    checkpoint = Checkpoint(tmp_path)
    save_file({"w": torch.ones(4)}, tmp_path / "model.safetensors")
    assert checkpoint.load_tensor("w").tolist() == [1.0] * 4


def test_a_prefix_selects_tensors_and_is_removed_from_their_names(tmp_path: Path) -> None:
    write_shards_by_hand(tmp_path)
    checkpoint = Checkpoint(tmp_path, "b.")
    assert_same(load_all(checkpoint), {name: some_tensors()[f"b.{name}"] for name in ("weight", "qweight")})
    assert checkpoint.shape("weight") == (8, 12)
    assert checkpoint.nbytes("weight") == 8 * 12 * 4
    assert "weight" in checkpoint
    assert "b.weight" not in checkpoint
    assert "a.weight" not in checkpoint
    visible = {"b.weight", "b.qweight"}
    assert checkpoint.ignored_bytes() == sum(
        tensor.nbytes for name, tensor in some_tensors().items() if name not in visible
    )
    assert Checkpoint(tmp_path).ignored_bytes() == 0


def test_a_prefix_is_removed_once(tmp_path: Path) -> None:
    save_file({"model.model.w": torch.ones(1), "w": torch.zeros(1)}, tmp_path / "model.safetensors")
    assert Checkpoint(tmp_path, "model.").names() == ["model.w"]


def test_a_nan_behind_a_prefix_is_reported(tmp_path: Path) -> None:
    save_file({"model.w": torch.tensor([torch.nan])}, tmp_path / "model.safetensors")
    with pytest.raises(UserError, match=r"Weight 'w' in .* contains NaN"):
        Checkpoint(tmp_path, "model.").check_finite()


@pytest.mark.parametrize("shape", [(), (0,), (3,), (5, 7)])
@pytest.mark.parametrize(
    "dtype",
    [
        *(torch.float64, torch.float32, torch.float16, torch.bfloat16),
        *(torch.int64, torch.int32, torch.int16, torch.int8, torch.uint8, torch.bool),
    ],
    ids=str,
)
def test_the_size_of_a_tensor_is_known_without_loading_it(
    tmp_path: Path, dtype: torch.dtype, shape: tuple[int, ...]
) -> None:
    tensor = torch.ones(shape, dtype=dtype)
    save_file({"w": tensor, "x": torch.zeros(3)}, tmp_path / "model.safetensors")
    assert Checkpoint(tmp_path).nbytes("w") == tensor.nbytes


def test_the_config_is_read(tmp_path: Path) -> None:
    save_file(some_tensors(), tmp_path / "model.safetensors")
    (tmp_path / "config.json").write_text('{"dim": 384}')
    assert Checkpoint(tmp_path).load_config() == {"dim": 384}


@pytest.mark.parametrize("content", [None, "{", "\xff"])
def test_a_config_that_cannot_be_read_is_reported(tmp_path: Path, content: str | None) -> None:
    save_file(some_tensors(), tmp_path / "model.safetensors")
    if content is not None:
        (tmp_path / "config.json").write_text(content, "latin-1")
    with pytest.raises(UserError, match=r"config\.json cannot be read"):
        Checkpoint(tmp_path).load_config()


@pytest.mark.parametrize(
    "pickle", ["diffusion_pytorch_model.bin", "model.pt", "model.pth", "model.ckpt", "weights.pkl"]
)
def test_pickles_are_rejected_with_how_to_convert_them(tmp_path: Path, pickle: str) -> None:
    (tmp_path / pickle).write_bytes(b"cos\nsystem\n(S'touch opened'\ntR.")
    with pytest.raises(UserError, match="safe_serialization=True") as raised:
        Checkpoint(tmp_path)
    assert pickle in str(raised.value)
    assert "save_pretrained" in str(raised.value)


def test_safetensors_beside_pickles_are_read(tmp_path: Path) -> None:
    (tmp_path / "model.bin").write_bytes(b"pickle")
    save_file(some_tensors(), tmp_path / "model.safetensors")
    assert_same(load_all(Checkpoint(tmp_path)), some_tensors())


def test_a_missing_folder_is_reported(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="transformer"):
        Checkpoint(tmp_path / "transformer")


def test_a_folder_without_weights_is_reported(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(UserError, match=r"has no \.safetensors file") as raised:
        Checkpoint(tmp_path)
    assert str(tmp_path) in str(raised.value)


@settings(max_examples=25, deadline=None)
@given(st.floats(0, 1, exclude_max=True))
def test_a_truncated_file_is_reported_wherever_it_ends(tmp_path_factory: pytest.TempPathFactory, part: float) -> None:
    folder = tmp_path_factory.mktemp("truncated")
    file = folder / "model.safetensors"
    save_file(some_tensors(), file)
    whole = file.read_bytes()
    file.write_bytes(whole[: int(part * len(whole))])
    with pytest.raises(UserError, match=r"model\.safetensors is corrupt or truncated"):
        Checkpoint(folder)


def test_a_missing_shard_is_reported(tmp_path: Path) -> None:
    write_shards_by_hand(tmp_path)
    (tmp_path / "model-00002-of-00002.safetensors").unlink()
    with pytest.raises(UserError, match=r"model-00002-of-00002\.safetensors is missing"):
        Checkpoint(tmp_path)


@pytest.mark.parametrize(
    "content",
    ["", "{", "[]", "{}", '{"weight_map": []}', '{"weight_map": {"a": ["b"]}}', '{"weight_map": {"a": 1}}', '"text"'],
)
def test_a_corrupt_index_is_reported(tmp_path: Path, content: str) -> None:
    write_shards_by_hand(tmp_path)
    (tmp_path / "model.safetensors.index.json").write_text(content)
    with pytest.raises(UserError, match=r"model\.safetensors\.index\.json (is corrupt|cannot be read|does not)"):
        Checkpoint(tmp_path)


@pytest.mark.parametrize(
    ("value", "kind"), [(float("nan"), "NaN"), (float("inf"), "infinite"), (float("-inf"), "infinite")]
)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_a_weight_that_is_not_finite_is_reported(tmp_path: Path, value: float, kind: str, dtype: torch.dtype) -> None:
    tensors = some_tensors() | {"layers.3.norm.weight": torch.ones(16, dtype=dtype)}
    tensors["layers.3.norm.weight"][5] = value
    save_file(tensors, tmp_path / "model.safetensors")
    with pytest.raises(UserError, match=rf"layers\.3\.norm\.weight' .*{kind}"):
        Checkpoint(tmp_path).check_finite()


def test_finite_weights_pass(tmp_path: Path) -> None:
    save_file(some_tensors(), tmp_path / "model.safetensors")
    Checkpoint(tmp_path).check_finite()


# ---------------------------------------------------------------- writing


@pytest.mark.parametrize("shard_bytes", [1, 200, 400, 10**9])
def test_what_was_written_is_read_again(tmp_path: Path, shard_bytes: int) -> None:
    write_sharded(some_tensors().items(), tmp_path, "model", shard_bytes)
    assert_same(load_all(Checkpoint(tmp_path)), some_tensors())


def test_shards_have_at_most_the_given_size_and_are_listed_in_the_index(tmp_path: Path) -> None:
    """128 + 64 bytes, full to the last; then 384, more than a shard by itself; then 64 + 96; then 192."""
    files = write_sharded(some_tensors().items(), tmp_path, "model", 192)
    names = [f"model-{number:05d}-of-00004.safetensors" for number in (1, 2, 3, 4)]
    assert [file.name for file in files] == names
    contents = [list(load_file(tmp_path / name)) for name in names]
    assert [sorted(shard) for shard in contents] == [
        ["a.bias", "a.weight"],
        ["b.weight"],
        ["b.qweight", "c.scales"],
        ["c.weight"],
    ]
    index = json.loads((tmp_path / "model.safetensors.index.json").read_text())
    assert index["weight_map"] == {key: name for name, shard in zip(names, contents, strict=True) for key in shard}
    assert index["metadata"]["total_size"] == 128 + 64 + 384 + 64 + 96 + 192
    assert sorted(path.name for path in tmp_path.iterdir()) == [*names, "model.safetensors.index.json"]


def test_one_shard_has_no_index(tmp_path: Path) -> None:
    files = write_sharded(some_tensors().items(), tmp_path, "diffusion_pytorch_model")
    assert files == list(tmp_path.iterdir()) == [tmp_path / "diffusion_pytorch_model.safetensors"]


@pytest.mark.parametrize("shard_bytes", [200, 10**9])
def test_the_same_tensors_give_the_same_bytes(tmp_path: Path, shard_bytes: int) -> None:
    for folder in ("first", "second"):
        (tmp_path / folder).mkdir()
        write_sharded(some_tensors().items(), tmp_path / folder, "model", shard_bytes)
    files = {path.name: path.read_bytes() for path in (tmp_path / "first").iterdir()}
    assert files == {path.name: path.read_bytes() for path in (tmp_path / "second").iterdir()}


def test_the_order_of_names_changes_no_value(tmp_path: Path) -> None:
    write_sharded(reversed(some_tensors().items()), tmp_path, "model", 200)
    assert_same(dict(sorted(load_all(Checkpoint(tmp_path)).items())), dict(sorted(some_tensors().items())))


def test_views_are_written_as_they_appear(tmp_path: Path) -> None:
    base = torch.arange(12.0).reshape(3, 4)
    write_tensors({"transposed": base.T, "columns": base[:, 1:3]}, tmp_path / "views.safetensors")
    assert_same(load_file(tmp_path / "views.safetensors"), {"transposed": base.T, "columns": base[:, 1:3]})


@pytest.mark.parametrize("after", [0, 1, 4])
def test_writing_that_fails_midway_leaves_no_final_name(tmp_path: Path, after: int) -> None:
    def failing() -> Iterator[tuple[str, Tensor]]:
        yield from list(some_tensors().items())[:after]
        raise RuntimeError("no power")

    with pytest.raises(RuntimeError, match="power"):
        write_sharded(failing(), tmp_path, "model", 200)
    assert not list(tmp_path.glob("model*"))


def test_a_file_is_unchanged_if_rewriting_it_fails(tmp_path: Path) -> None:
    file = tmp_path / "unit.safetensors"
    write_tensors(some_tensors(), file)
    before = file.read_bytes()
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (64, limits[1]))  # as on a full disk
    try:
        with pytest.raises(OSError, match=r"unit\.safetensors"):
            write_tensors({"x": torch.zeros(100)}, file)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert list(tmp_path.iterdir()) == [file]
    assert file.read_bytes() == before


@pytest.mark.parametrize(
    ("tensor", "dtype", "message"),
    [
        (
            torch.tensor([0, -1e39], dtype=torch.float64),
            torch.float32,
            r"contains 1e\+39, .*float32\. Download the model",
        ),
        (torch.tensor([3.4e38]), torch.bfloat16, r"contains 3\.4e\+38, .* in bfloat16\. Set dtype: float32"),
    ],
)
def test_values_that_are_infinite_where_they_are_used(
    tensor: Tensor, dtype: torch.dtype, message: str, tmp_path: Path
) -> None:
    save_file({"w": tensor}, tmp_path / "model.safetensors")
    with pytest.raises(UserError, match=rf"Weight 'w' in .*model\.safetensors {message}"):
        Checkpoint(tmp_path).check_finite(dtype)
    save_file({"w": tensor / 2}, tmp_path / "model.safetensors")
    Checkpoint(tmp_path).check_finite(dtype if dtype is torch.bfloat16 else torch.float64)
