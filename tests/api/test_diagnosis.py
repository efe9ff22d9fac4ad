"""What `edgepress doctor` says of machines, from what their systems report."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner

from edgepress.api.diagnosis import NPU_VERSION_MARKER, diagnose
from edgepress.cli.main import main
from edgepress.common.cpu_features import CpuFeatures
from edgepress.runtime.onnx.arithmetic import explain_arithmetic


def write_board(root: Path, model: str, compatible: str, gibibytes: float) -> Path:
    tree = root / "proc" / "device-tree"
    tree.mkdir(parents=True)
    (tree / "model").write_text(model)
    (tree / "compatible").write_bytes(compatible.encode())
    (root / "proc" / "meminfo").write_text(f"MemTotal: {int(gibibytes * 2**20)} kB\n")
    return root


@pytest.mark.parametrize(
    ("model", "compatible", "gibibytes", "recipe"),
    [
        ("Raspberry Pi 5 Model B Rev 1.0", "raspberrypi,5-model-b\0brcm,bcm2712", 7.9, "pi5"),
        ("Orange Pi 5 Plus", "xunlong,orangepi-5-plus\0rockchip,rk3588", 15.6, "rk3588"),
        ("Radxa ROCK 5B", "radxa,rock-5b\0rockchip,rk3588", 7.7, "rk3588-8gb"),
        ("Orange Pi 5", "xunlong,orangepi-5\0rockchip,rk3588s", 3.8, "rk3588s-4gb"),
        ("NVIDIA Jetson Orin NX Engineering Reference Developer Kit", "nvidia,p3768", 15.2, "orin"),
        ("NVIDIA Jetson Orin Nano Developer Kit Super", "nvidia,p3768", 7.4, "orin-nano"),
    ],
)
def test_a_board_is_recognized_by_its_device_tree_and_memory(
    tmp_path: Path, model: str, compatible: str, gibibytes: float, recipe: str
) -> None:
    diagnosis = diagnose(write_board(tmp_path, model, compatible, gibibytes))
    assert diagnosis.recipes[0] == recipe
    assert diagnosis.machine.model == model


def test_the_version_of_the_npu_library_is_read_from_it(tmp_path: Path) -> None:
    assert diagnose(tmp_path).runtimes["librknnrt"] == "not found"
    library = tmp_path / "usr" / "lib" / "librknnrt.so"
    library.parent.mkdir(parents=True)
    library.write_bytes(b"\x7fELF" + NPU_VERSION_MARKER + b"2.3.2 (429f97ae6b@2025-04-09)\0")
    assert diagnose(tmp_path).runtimes["librknnrt"] == "2.3.2 in /usr/lib/librknnrt.so"


@pytest.mark.parametrize(
    ("architecture", "flags", "present", "absent"),
    [
        ("x86_64", "avx2", "session.x64quantprecision=1", "fp16:"),
        ("x86_64", "avx512_vnni", "exact (VNNI)", "x64quantprecision"),
        ("aarch64", "asimd", "level 4 computes as level 0", "fp16:"),
        ("aarch64", "asimddp asimdhp", "mlas.disable_kleidiai=1", "level 0"),
        ("aarch64", "asimddp asimdhp", "fp16: sums are in float16", "VNNI"),
    ],
)
def test_how_products_are_computed_depends_on_the_processor(
    architecture: str, flags: str, present: str, absent: str
) -> None:
    text = " ".join(explain_arithmetic(CpuFeatures(architecture, frozenset(flags.split()))))
    assert present in text
    assert absent not in text


def test_the_command_prints_this_machine_as_text_and_as_json() -> None:
    text = CliRunner().invoke(main, ["doctor"])
    assert text.exit_code == 0, text.output
    assert "ONNX Runtime" in text.stdout
    content = json.loads(CliRunner().invoke(main, ["doctor", "--json"]).stdout)
    assert content["runtimes"]["ONNX Runtime"] != "not found"
    assert content["recipes"]
