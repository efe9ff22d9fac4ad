"""Features of processors, from what Linux prints for them."""

from __future__ import annotations

from pathlib import Path

import pytest

from edgepress.common.cpu_features import read_cpu_features

A72 = "fp asimd evtstrm crc32 cpuid"
A76 = "fp asimd evtstrm aes pmull sha1 sha2 crc32 atomics fphp asimdhp cpuid asimdrdm lrcpc dcpop asimddp"


def write(folder: Path, *cores: str, key: str = "Features") -> Path:
    file = folder / "cpuinfo"
    file.write_text("\n\n".join(f"processor\t: {number}\n{key}\t: {flags}" for number, flags in enumerate(cores)))
    return file


@pytest.mark.parametrize(
    ("cores", "dot", "fp16"), [((A76,), True, True), ((A72,), False, False), ((A76, A72), False, False)]
)
def test_an_arm64_processor_has_what_all_of_its_cores_have(
    tmp_path: Path, cores: tuple[str, ...], dot: bool, fp16: bool
) -> None:
    features = read_cpu_features(write(tmp_path, *cores), "aarch64")
    assert (features.has_dot_products, features.has_fp16_arithmetic) == (dot, fp16)
    assert features.is_arm64
    assert features.has_exact_int8


@pytest.mark.parametrize(("flags", "exact"), [("avx2 avx512_vnni", True), ("avx2 avx_vnni", True), ("avx2", False)])
def test_an_x86_processor_needs_vnni_for_exact_products(tmp_path: Path, flags: str, exact: bool) -> None:
    features = read_cpu_features(write(tmp_path, flags, key="flags"), "x86_64")
    assert features.has_exact_int8 is exact


def test_what_the_system_does_not_tell_is_not_guessed(tmp_path: Path) -> None:
    assert read_cpu_features(tmp_path / "absent", "aarch64").flags == frozenset()
