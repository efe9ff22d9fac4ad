"""What the processor of this machine computes in, as Linux reports it in /proc/cpuinfo."""

from __future__ import annotations

import platform
import re
from dataclasses import dataclass
from pathlib import Path

CPU_INFO = Path("/proc/cpuinfo")
X86, ARM64 = ("x86_64", "amd64"), ("aarch64", "arm64")


@dataclass(frozen=True)
class CpuFeatures:
    """The features of a processor that decide what its products are.

    Attributes:
        architecture: Instruction set, such as `aarch64`.
        flags: Names of its features in Linux; empty where the system does not tell.
    """

    architecture: str
    flags: frozenset[str]

    @property
    def is_x86(self) -> bool:
        """Whether it is an x86-64 processor."""
        return self.architecture.lower() in X86

    @property
    def is_arm64(self) -> bool:
        """Whether it is an arm64 processor."""
        return self.architecture.lower() in ARM64

    @property
    def has_exact_int8(self) -> bool:
        """Whether 8-bit products are summed in 32 bits: VNNI on x86, always on arm64."""
        return not self.is_x86 or any("vnni" in flag for flag in self.flags)

    @property
    def has_dot_products(self) -> bool:
        """Whether an arm64 processor has SDOT, from the Cortex-A55 and A76 on."""
        return "asimddp" in self.flags

    @property
    def has_bf16_products(self) -> bool:
        """Whether it multiplies matrices in bfloat16 by itself."""
        return bool(self.flags & {"avx512_bf16", "amx_bf16", "bf16"})

    @property
    def has_fp16_arithmetic(self) -> bool:
        """Whether an arm64 processor computes in float16, in which ONNX Runtime then sums too."""
        return "asimdhp" in self.flags


def read_cpu_features(file: Path = CPU_INFO, architecture: str | None = None) -> CpuFeatures:
    """Reads the features that all cores of this machine have.

    Args:
        file: The file of the system.
        architecture: Instruction set; None for that of this machine.
    """
    try:
        text = file.read_text("utf-8", "replace")
    except OSError:
        text = ""
    cores = [frozenset(line.split()) for line in re.findall(r"^(?:flags|Features)\s*:\s*(.+)$", text, re.MULTILINE)]
    return CpuFeatures(architecture or platform.machine(), frozenset.intersection(*cores) if cores else frozenset())
