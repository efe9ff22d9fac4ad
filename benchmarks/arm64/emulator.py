"""An arm64 system to run Python in, under qemu's user-mode emulation: Debian's packages, unpacked, and arm64 wheels.

Nothing is installed and nothing runs as root: packages are unpacked into a folder, whose files qemu opens in place of
this system's. /proc/cpuinfo and /sys/devices/system/cpu are made up, since ONNX Runtime would read this processor's and
end.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ...common.errors import UserError
from ...serving.wheelhouse import PLATFORM_TAGS

ROOT = Path(__file__).parents[2]
PACKAGES = ("python3", "libstdc++6")
PYTHON_VERSION = "3.11"  # Debian 12's
SOURCE_LISTS = (Path("/etc/apt/sources.list.d/debian.sources"), Path("/etc/apt/sources.list"))
MARKER = ".complete"
FEATURES = {  # as Linux reports those of the processors that qemu emulates
    "cortex-a72": "fp asimd evtstrm aes pmull sha1 sha2 crc32 cpuid",
    "cortex-a76": "fp asimd evtstrm aes pmull sha1 sha2 crc32 atomics fphp asimdhp cpuid asimdrdm lrcpc dcpop asimddp",
}
LOG_TAIL = 600  # characters of a failed command's output to show


@dataclass(frozen=True)
class Emulator:
    """An arm64 system.

    Attributes:
        qemu: The emulator.
        root: The system's files.
        processor: What qemu emulates.
    """

    qemu: Path
    root: Path
    processor: str

    def run_module(self, module: str, arguments: Sequence[str]) -> None:
        """Runs a module of edgepress with the system's Python.

        Raises:
            UserError: It failed.
        """
        environment = {
            "PYTHONPATH": f"{self.root / 'site'}:{self.root / 'view'}",
            "PYTHONHOME": str(self.root / "usr"),
            "PYTHONDONTWRITEBYTECODE": "1",
            "HOME": str(self.root / "home"),
            "ORT_DISABLE_TELEMETRY": "1",
        }
        variables = [option for name, value in environment.items() for option in ("-E", f"{name}={value}")]
        python = self.root / "usr/bin" / f"python{PYTHON_VERSION}"
        command = [str(self.qemu), "-cpu", self.processor, "-L", str(self.root), *variables, str(python), "-m", module]
        _run([*command, *arguments])


def prepare_emulator(folder: Path, processor: str) -> Emulator:
    """Creates the system in a folder, or finds it complete there.

    Args:
        folder: Where it is kept, about 300 MB.
        processor: A processor of `FEATURES`.

    Raises:
        UserError: This system has neither qemu-aarch64-static nor apt-get and dpkg-deb, or a download failed.
    """
    folder = folder.absolute()
    root, requirements = folder / "root", _read_requirements()
    digest = hashlib.sha256("\n".join([*PACKAGES, *requirements]).encode()).hexdigest()
    marker = folder / MARKER
    if not marker.exists() or marker.read_text("utf-8") != digest:
        shutil.rmtree(root, ignore_errors=True)
        root.mkdir(parents=True)
        for package in _download("arm64", PACKAGES, folder / "apt-arm64"):
            _run(["dpkg-deb", "-x", str(package), str(root)])
        _install_wheels(root / "site", requirements)
        (root / "view").mkdir()
        (root / "view/edgepress").symlink_to(ROOT)
        (root / "home").mkdir()
        marker.write_text(digest, "utf-8")
    _write_processor(root, processor)
    return Emulator(_find_qemu(folder), root, processor)


def _find_qemu(folder: Path) -> Path:
    installed = shutil.which("qemu-aarch64-static")
    if installed:
        return Path(installed)
    qemu = folder / "qemu/usr/bin/qemu-aarch64-static"
    if not qemu.exists():
        machine = subprocess.run(["dpkg", "--print-architecture"], capture_output=True, text=True, check=True)
        packages = _download(machine.stdout.strip(), ("qemu-user-static",), folder / "apt-qemu")
        (package,) = (file for file in packages if file.name.startswith("qemu-user-static_"))
        _run(["dpkg-deb", "-x", str(package), str(folder / "qemu")])
    return qemu


def _download(architecture: str, packages: Sequence[str], folder: Path) -> list[Path]:
    """Downloads packages and all that they depend on, with apt in a folder of its own."""
    sources = next((file for file in SOURCE_LISTS if file.exists()), None)
    if sources is None or not all(map(shutil.which, ("apt-get", "dpkg-deb"))):
        raise UserError(f"{SOURCE_LISTS[-1]}, apt-get or dpkg-deb is missing, which unpack arm64. Run it on Debian.")
    for name in ("state/lists/partial", "cache/archives/partial"):
        (folder / name).mkdir(parents=True, exist_ok=True)
    (folder / "status").touch()
    settings = {
        "APT::Architecture": architecture,
        "APT::Install-Recommends": "false",
        "APT::Sandbox::User": "",
        "Dir::State": folder / "state",
        "Dir::State::status": folder / "status",
        "Dir::Cache": folder / "cache",
        "Dir::Etc::sourcelist": sources,
        "Dir::Etc::sourceparts": "-",
    }
    lines = [f'{key} "{value}";' for key, value in settings.items()]
    configuration = folder / "apt.conf"
    configuration.write_text("\n".join([*lines, f'APT::Architectures {{ "{architecture}"; }};', ""]), "utf-8")
    environment = os.environ | {"APT_CONFIG": str(configuration)}
    for arguments in (["update"], ["install", "--download-only", "--yes", *packages]):
        _run(["apt-get", "--quiet", *arguments], environment)
    return sorted((folder / "cache/archives").glob("*.deb"))


def _read_requirements() -> list[str]:
    """What `pip install edgepress` needs, as pyproject.toml says."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    return sorted(project["dependencies"])


def _install_wheels(site: Path, requirements: Sequence[str]) -> None:
    platforms = [option for tag in PLATFORM_TAGS["aarch64"] for option in ("--platform", tag)]
    target = [
        "--python-version",
        PYTHON_VERSION,
        "--implementation",
        "cp",
        "--only-binary=:all:",
        "--target",
        str(site),
    ]
    constraints = ["--constraint", str(ROOT / "constraints.txt")]
    _run([sys.executable, "-m", "pip", "install", "--quiet", *target, *platforms, *constraints, *requirements])


def _write_processor(root: Path, processor: str) -> None:
    """Writes what a system with one such core reports."""
    cpu = root / "sys/devices/system/cpu"
    cpu.mkdir(parents=True, exist_ok=True)
    for name in ("possible", "present", "online"):
        (cpu / name).write_text("0\n")
    (root / "proc").mkdir(exist_ok=True)
    text = f"processor\t: 0\nFeatures\t: {FEATURES[processor]}\nCPU implementer\t: 0x41\nCPU architecture: 8\n\n"
    (root / "proc/cpuinfo").write_text(text)


def _run(command: Sequence[str], environment: dict[str, str] | None = None) -> None:
    result = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    if result.returncode:
        output = (result.stderr or result.stdout).strip()[-LOG_TAIL:]
        raise UserError(f"{Path(command[0]).name} failed ({output}). Check the network and the space on the disk.")
