"""The device is found before any work, and its errors say what to do."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import torch
from click.testing import CliRunner
from helpers.advice import ADVICE
from torch import nn

from edgepress.cli.main import main
from edgepress.common.errors import UserError
from edgepress.quantize.calibration.streaming import stream_or_load
from edgepress.quantize.compute_device import (
    CPU,
    describe_device,
    explain_full_memory,
    move_module,
    move_tensors,
    resolve_device,
)
from edgepress.quantize.device_memory import require_device_memory

META = torch.device("meta")


@pytest.fixture
def two_gpus(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.backends.cuda, "is_built", lambda: True)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: f"Test GPU {device.index}")
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda _: (2**30, 2**34))


@pytest.mark.usefixtures("two_gpus")
def test_a_gpu_has_a_number_and_a_name() -> None:
    assert [resolve_device(name) for name in ("auto", "cuda", "cuda:1")] == [
        torch.device("cuda", 0),
        torch.device("cuda", 0),
        torch.device("cuda", 1),
    ]
    assert describe_device(torch.device("cuda", 1)) == "Test GPU 1"


def test_without_a_gpu_the_processor_computes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert resolve_device("auto") == resolve_device("cpu") == CPU
    assert describe_device(CPU) is None


@pytest.mark.parametrize(("is_built", "problem"), [(False, "is built without CUDA"), (True, "finds no GPU")])
def test_a_gpu_that_is_missing_is_an_error(is_built: bool, problem: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.backends.cuda, "is_built", lambda: is_built)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(UserError, match=problem) as caught:
        resolve_device("cuda:1")
    assert "cannot compute on cuda:1" in str(caught.value)
    assert ADVICE.search(str(caught.value))


@pytest.mark.usefixtures("two_gpus")
def test_a_number_beyond_the_last_is_an_error() -> None:
    with pytest.raises(UserError, match=r"There is no GPU cuda:2: PyTorch finds 2, numbered from 0\. Choose"):
        resolve_device("cuda:2")


@pytest.mark.usefixtures("two_gpus")
def test_memory_that_does_not_suffice_is_an_error() -> None:
    gpu = torch.device("cuda", 1)
    require_device_memory(gpu, 2**30)
    require_device_memory(CPU, 2**60)
    with pytest.raises(UserError, match=r"takes about 1\.5 GiB of Test GPU 1, of which 1\.0 GiB are free\. Close"):
        require_device_memory(gpu, 3 * 2**29)


@pytest.mark.usefixtures("two_gpus")
def test_full_memory_is_an_error_that_names_the_stage() -> None:
    gpu, stages = torch.device("cuda", 0), ["calibrating on images"]

    def run() -> None:
        with explain_full_memory(gpu, lambda: stages[-1]):
            stages.append("tuning transformer")
            raise torch.OutOfMemoryError

    with pytest.raises(UserError, match=r"of Test GPU 0 was full in the stage 'tuning transformer'\. Close") as caught:
        run()
    assert isinstance(caught.value.__cause__, torch.OutOfMemoryError)


def test_a_tensor_in_several_places_is_moved_once() -> None:
    shared = torch.ones(3)
    moved = move_tensors({"a": [shared, 1], "b": (shared, torch.ones(3))}, META)
    assert moved["a"][0] is moved["b"][0]
    assert moved["a"][0] is not moved["b"][1]
    assert (moved["a"][0].device, moved["a"][1]) == (META, 1)
    assert move_tensors(shared, CPU) is shared


def test_tensors_without_data_are_not_moved() -> None:
    module = nn.Sequential(nn.Linear(2, 3), nn.BatchNorm1d(3))
    module[0].to(META)
    move_module(module, torch.device("meta", 0))
    assert all(tensor.is_meta for tensor in module.state_dict().values())
    move_module(module, CPU)
    assert module[0].weight.is_meta


def quantize(*arguments: str | Path) -> tuple[int, str]:
    result = CliRunner().invoke(main, ["quantize", *map(str, arguments)])
    return result.exit_code, result.stderr


def test_a_command_ends_before_the_work_without_the_gpu(
    lean: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.backends.cuda, "is_built", lambda: False)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr("edgepress.quantize.run.hash_files", lambda *_, **__: pytest.fail("the work began"))
    code, text = quantize("--recipe", "orin", "--model", lean, "--output", tmp_path / "out", "--device", "cuda")
    assert code == 2
    assert "built without CUDA" in text.splitlines()[-1]
    assert len(re.findall("^Error", text, re.MULTILINE)) == 1
    assert not (tmp_path / "out").exists()


def test_a_cluster_has_processors_alone() -> None:
    code, text = quantize("--recipe", "orin", "--device", "cuda", "--ray", "local")
    assert code == 2
    assert "A Ray cluster computes on processors alone. Leave out --device or --ray." in text


@pytest.mark.parametrize("name", ["orin", "cuda:", "cuda:x", "gpu", "cuda:-1"])
def test_other_names_are_refused(name: str) -> None:
    code, text = quantize("--recipe", "orin", "--device", name)
    assert code == 2
    assert f"'{name}' is nothing that PyTorch computes on. Give cpu" in text.replace("\n", " ")


def test_out_of_memory_is_not_taken_for_a_weight_on_disk() -> None:
    """Which would start over with everything in memory."""
    runs = []

    def run(streams: bool) -> None:
        weight = torch.ones(1, device=META)  # as blocks that do not run
        runs.append((streams, weight))
        raise torch.OutOfMemoryError("CUDA out of memory")

    with pytest.raises(torch.OutOfMemoryError):
        stream_or_load(None, run)  # type: ignore[arg-type]  # no plan is read
    assert len(runs) == 1
