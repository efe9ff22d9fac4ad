"""Power modes, clocks, temperatures and throttling, from planted files and from stand-ins for the tools of boards."""

from __future__ import annotations

from pathlib import Path

import pytest
from helpers.planted_files import plant

from edgepress.perf.power import CpufreqPolicy, PowerState, read_power_state, read_temperatures, read_throttling

CPUFREQ = "sys/devices/system/cpu/cpufreq"


def tool(folder: Path, name: str, script: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The one program of that name that can be found."""
    folder.mkdir(exist_ok=True)
    (folder / name).write_text(f"#!/bin/sh\n{script}\n")
    (folder / name).chmod(0o755)
    monkeypatch.setenv("PATH", str(folder))


def test_clocks_by_policy(tmp_path: Path) -> None:
    files = {
        f"{CPUFREQ}/policy0/related_cpus": "0 1 2 3\n",
        f"{CPUFREQ}/policy0/scaling_governor": "ondemand\n",
        f"{CPUFREQ}/policy0/scaling_min_freq": "1500000\n",
        f"{CPUFREQ}/policy0/scaling_max_freq": "2400000\n",
        f"{CPUFREQ}/policy4/scaling_governor": "performance\n",
    }
    found = read_power_state(plant(tmp_path, files))
    assert found.policies == [
        CpufreqPolicy(cores="0 1 2 3", governor="ondemand", min_hz=1_500_000_000, max_hz=2_400_000_000),
        CpufreqPolicy(cores=None, governor="performance", min_hz=None, max_hz=None),
    ]


def test_a_jetsons_mode(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    script = "test $1 = -q && echo 'NV Fan Mode:quiet' && echo 'NV Power Mode: 15W' && echo 0"
    tool(tmp_path / "bin", "nvpmodel", script, monkeypatch)
    assert read_power_state(tmp_path) == PowerState(mode="15W", policies=[])


@pytest.mark.parametrize("script", ["echo 'NV Power Mode: 15W'; exit 1", "echo no", ""])
def test_a_tool_that_fails_tells_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, script: str) -> None:
    tool(tmp_path / "bin", "nvpmodel", script, monkeypatch)
    assert read_power_state(tmp_path).mode is None


def test_temperatures_of_zones_that_are_on(tmp_path: Path) -> None:
    files = {
        "sys/class/thermal/thermal_zone0/type": "cpu-thermal\n",
        "sys/class/thermal/thermal_zone0/temp": "48312\n",
        "sys/class/thermal/thermal_zone1/type": "gpu-thermal\n",
        "sys/class/thermal/thermal_zone1/temp": "\n",
        "sys/class/thermal/thermal_zone2/temp": "-5000\n",
    }
    assert read_temperatures(plant(tmp_path, files)) == {"cpu-thermal (0)": 48.312, "zone (2)": -5.0}


@pytest.mark.parametrize(
    ("state", "words"),
    [
        ("0x0", "never since boot"),
        ("0x50005", "under-voltage now, throttled now, under-voltage since boot, throttled since boot"),
    ],
)
def test_a_raspberry_pis_throttling(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, state: str, words: str) -> None:
    tool(tmp_path / "bin", "vcgencmd", f"test $1 = get_throttled && echo throttled={state}", monkeypatch)
    assert read_throttling(tmp_path) == {"vcgencmd get_throttled": words}


def test_counts_of_all_cores(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    counts = {f"sys/devices/system/cpu/cpu{n}/thermal_throttle/core_throttle_count": f"{n + 3}\n" for n in range(2)}
    assert read_throttling(plant(tmp_path, counts)) == {"core throttle count": "7"}


def test_where_nothing_is_told_nothing_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert read_power_state(tmp_path) == PowerState(mode=None, policies=[])
    assert read_temperatures(tmp_path) == read_throttling(tmp_path) == {}
