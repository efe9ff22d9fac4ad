"""Says what this machine is, what it can run, and what is missing. Imports neither torch nor a runtime for NPUs."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from importlib import metadata
from importlib.util import find_spec
from pathlib import Path

from ..common.cpu_features import CpuFeatures, read_cpu_features
from ..common.requirements import requires_extra
from ..common.system_memory import read_available_memory
from ..common.text_table import align_rows
from ..perf.machine import MachineInfo, read_machine_info, read_text
from ..recipes.loader import load_recipe, recipe_names

NOT_FOUND = "not found"
NPU_LIBRARY_FILES = ("usr/lib/librknnrt.so", "usr/lib64/librknnrt.so", "usr/lib/aarch64-linux-gnu/librknnrt.so")
NPU_VERSION_MARKER = b"librknnrt version: "
NPU_DRIVER = "sys/kernel/debug/rknpu/version"
TENSORRT_PROGRAMS = ("usr/src/tensorrt/bin/trtexec",)  # where JetPack puts it, outside of the search path
MODULES = {  # what each extra needs, by names of modules
    "runtime": ("onnxruntime", "numpy", "PIL", "tokenizers", "jinja2"),
    "quantize": ("torch", "diffusers", "transformers", "accelerate", "safetensors"),
    "export": ("onnx", "onnx_ir", "onnxscript", "skimage"),
    "evaluate": ("cv2", "rapidocr", "markupsafe"),
}


@dataclass(frozen=True)
class Diagnosis:
    """What this machine is. `print` shows it.

    Attributes:
        machine: What the system reports of it.
        features: What its processor computes in.
        available_memory: Bytes that are free now; None if the system does not tell.
        runtimes: Version of each runtime, or `not found`.
        recipes: Names of the recipes that are for this machine, the nearest first.
        notes: How graphs compute here, where that is not what they do elsewhere. Sentences.
        missing: What is not installed, by the extra that installs it.
    """

    machine: MachineInfo
    features: CpuFeatures
    available_memory: int | None
    runtimes: dict[str, str]
    recipes: tuple[str, ...]
    notes: tuple[str, ...]
    missing: dict[str, tuple[str, ...]]

    def __str__(self) -> str:
        machine = self.machine
        sizes = [machine.memory, self.available_memory]
        memory, available = ("not known" if size is None else f"{size / 2**30:.1f} GiB" for size in sizes)
        rows = [
            ("machine", machine.model or "not known"),
            ("processor", f"{machine.cpu or 'not known'}, {machine.architecture}, {machine.cores} cores"),
            ("memory", f"{memory}, {available} available"),
            ("system", f"{machine.system or 'not known'}, Linux {machine.kernel}, Python {machine.python}"),
            *self.runtimes.items(),
            ("recipes for it", ", ".join(self.recipes)),
        ]
        lines = [*align_rows(rows, numbers=set()), "", *self.notes]
        lines += [
            f"Missing for {extra}: {', '.join(modules)}. Run: pip install 'edgepress[{extra}]'"
            for extra, modules in self.missing.items()
        ]
        return "\n".join(lines)


@requires_extra("runtime")
def diagnose(root: Path = Path("/")) -> Diagnosis:
    """Says what this machine is, what it can run, and what is missing.

    Args:
        root: Folder of /proc, /sys, /etc and /usr.
    """
    machine = read_machine_info(root)
    features = read_cpu_features(root / "proc/cpuinfo", machine.architecture)
    missing = {extra: tuple(name for name in names if find_spec(name) is None) for extra, names in MODULES.items()}
    return Diagnosis(
        machine=machine,
        features=features,
        available_memory=read_available_memory(),
        runtimes=_find_runtimes(root, machine),
        recipes=_find_recipes(root, machine, features),
        notes=tuple(machine.arithmetic),
        missing={extra: names for extra, names in missing.items() if names},
    )


def _find_runtimes(root: Path, machine: MachineInfo) -> dict[str, str]:
    trtexec = shutil.which("trtexec") or next((str(root / p) for p in TENSORRT_PROGRAMS if (root / p).exists()), None)
    return {
        "ONNX Runtime": _describe_onnxruntime(),
        "TensorRT": _find_version("tensorrt"),
        "trtexec": trtexec or NOT_FOUND,
        "Jetson Linux": machine.release or NOT_FOUND,
        "rknn-toolkit-lite2": _find_version("rknn-toolkit-lite2"),
        "librknnrt": _read_npu_library(root),
        "NPU driver": read_text(root / NPU_DRIVER) or f"{NOT_FOUND} (readable by root only)",
    }


def _describe_onnxruntime() -> str:
    if find_spec("onnxruntime") is None:
        return NOT_FOUND
    import onnxruntime

    providers = [name.removesuffix("ExecutionProvider") for name in onnxruntime.get_available_providers()]
    return f"{onnxruntime.__version__} ({', '.join(providers)})"


def _find_version(distribution: str) -> str:
    try:
        return metadata.version(distribution)
    except metadata.PackageNotFoundError:
        return NOT_FOUND


def _read_npu_library(root: Path) -> str:
    """The version of librknnrt, which is a string in the library itself."""
    for name in NPU_LIBRARY_FILES:
        if (root / name).exists():
            _, marker, rest = (root / name).read_bytes().partition(NPU_VERSION_MARKER)
            version = rest[:21].split(b" ")[0].decode("ascii", "replace")
            return f"{version if marker else 'unknown version'} in /{name}"
    return NOT_FOUND


def _find_recipes(root: Path, machine: MachineInfo, features: CpuFeatures) -> tuple[str, ...]:
    """Finds the recipes whose device reports such a name, with the nearest memory first; else that of the processor."""
    names = f"{machine.model or ''} {read_text(root / 'proc/device-tree/compatible') or ''}".lower()
    distances = {}
    for recipe in recipe_names():
        hardware = load_recipe(recipe).hardware
        if hardware and any(name.lower() in names for name in hardware.names):
            memory = (machine.memory or 0) / 2**30
            distances[recipe] = min(abs(size - memory) for size in hardware.memory)
    matching = tuple(sorted(distances, key=distances.__getitem__))
    return matching or (("x86",) if features.is_x86 else ("cpu-arm64",))
