"""Power modes, clocks, temperatures and throttling, from trees of files and fake tools."""

from __future__ import annotations

from pathlib import Path

import pytest
from helpers.system_files import write_tree

from edgepress.perf.power import CpufreqPolicy, PowerState, read_power_state, read_temperatures, read_throttling

CPUFREQ = "sys/devices/system/cpu/cpufreq"


def install_tool(folder: Path, name: str, script: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Installs a script as the only program on the search path."""
    folder.mkdir(exist_ok=True)
    (folder / name).write_text(f"#!/bin/sh\n{script}\n")
    (folder / name).chmod(0o755)
    monkeypatch.setenv("PATH", str(folder))


def test_cpufreq_policies(tmp_path: Path) -> None:
    files = {
        f"{CPUFREQ}/policy0/related_cpus": "0 1 2 3\n",
        f"{CPUFREQ}/policy0/scaling_governor": "ondemand\n",
        f"{CPUFREQ}/policy0/scaling_min_freq": "1500000\n",
        f"{CPUFREQ}/policy0/scaling_max_freq": "2400000\n",
        f"{CPUFREQ}/policy4/scaling_governor": "performance\n",
    }
    state = read_power_state(write_tree(tmp_path, files))
    assert state.policies == [
        CpufreqPolicy(cores="0 1 2 3", governor="ondemand", min_hz=1_500_000_000, max_hz=2_400_000_000),
        CpufreqPolicy(cores=None, governor="performance", min_hz=None, max_hz=None),
    ]


def test_jetson_power_mode(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    script = "test $1 = -q && echo 'NV Fan Mode:quiet' && echo 'NV Power Mode: 15W' && echo 0"
    install_tool(tmp_path / "bin", "nvpmodel", script, monkeypatch)
    assert read_power_state(tmp_path) == PowerState(mode="15W", policies=[])


@pytest.mark.parametrize("script", ["echo 'NV Power Mode: 15W'; exit 1", "echo no", ""])
def test_failing_tool_reports_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, script: str) -> None:
    install_tool(tmp_path / "bin", "nvpmodel", script, monkeypatch)
    assert read_power_state(tmp_path).mode is None


def test_temperatures_of_active_zones(tmp_path: Path) -> None:
    files = {
        "sys/class/thermal/thermal_zone0/type": "cpu-thermal\n",
        "sys/class/thermal/thermal_zone0/temp": "48312\n",
        "sys/class/thermal/thermal_zone1/type": "gpu-thermal\n",
        "sys/class/thermal/thermal_zone1/temp": "\n",
        "sys/class/thermal/thermal_zone2/temp": "-5000\n",
    }
    assert read_temperatures(write_tree(tmp_path, files)) == {"cpu-thermal (0)": 48.312, "zone (2)": -5.0}


@pytest.mark.parametrize(
    ("bits", "text"),
    [
        ("0x0", "never since boot"),
        ("0x50005", "under-voltage now, throttled now, under-voltage since boot, throttled since boot"),
    ],
)
def test_raspberry_pi_throttling(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, bits: str, text: str) -> None:
    install_tool(tmp_path / "bin", "vcgencmd", f"test $1 = get_throttled && echo throttled={bits}", monkeypatch)
    assert read_throttling(tmp_path) == {"vcgencmd get_throttled": text}


def test_throttle_counts_are_summed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    counts = {f"sys/devices/system/cpu/cpu{n}/thermal_throttle/core_throttle_count": f"{n + 3}\n" for n in range(2)}
    assert read_throttling(write_tree(tmp_path, counts)) == {"core throttle count": "7"}


def test_missing_files_report_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert read_power_state(tmp_path) == PowerState(mode=None, policies=[])
    assert read_temperatures(tmp_path) == read_throttling(tmp_path) == {}
