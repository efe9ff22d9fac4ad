from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from edgepress import source_code
from edgepress.source_code import code_of, family_modules

TEXT = "edgepress.evaluate.metrics.text"
SCORES = Path("evaluate", "text_scores.py")


@pytest.fixture
def copied(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The package's source in a folder of its own, from which hashes are then taken."""
    root = Path(source_code.__file__).parent
    for folder in ("evaluate", "models", "runtime"):
        shutil.copytree(root / folder, tmp_path / folder, ignore=shutil.ignore_patterns("assets", "__pycache__"))
    for file in root.glob("*.py"):
        shutil.copy(file, tmp_path)
    monkeypatch.setattr(source_code, "ROOT", tmp_path)
    code_of.cache_clear()
    yield tmp_path
    code_of.cache_clear()


def changed(copied: Path, file: Path, *modules: str, alone: str | None = None) -> bool:
    """Whether another comment in a file changes the hash of modules."""
    before = code_of(*modules, alone=alone)
    with (copied / file).open("a") as stream:
        stream.write("# changed\n")
    code_of.cache_clear()
    return code_of(*modules, alone=alone) != before


def test_what_a_metric_imports_counts_and_nothing_else(copied: Path) -> None:
    assert changed(copied, SCORES, TEXT)
    assert changed(copied, Path("evaluate", "ocr.py"), TEXT)
    assert changed(copied, Path("prompts.py"), TEXT)
    assert not changed(copied, Path("evaluate", "metrics", "ssim.py"), TEXT)
    assert not changed(copied, Path("evaluate", "clip", "embed.py"), TEXT)


def test_what_paints_counts(copied: Path) -> None:
    for name in ("loading.py", "int4.py", "products.py", "sampling.py"):
        assert changed(copied, Path(name), "edgepress.sampling")
    exported = ["edgepress.runtime.paint", *family_modules()]
    for file in ("runtime/noise.py", "runtime/rknn/simulator.py", "models/z_image_host.py"):
        assert changed(copied, Path(file), *exported)
    assert not changed(copied, Path("runtime", "bench", "report.py"), *exported)


def test_imports_of_what_stands_alone_do_not_count(copied: Path) -> None:
    alone = "edgepress.evaluate.painters"
    assert changed(copied, Path("evaluate", "painters.py"), TEXT, alone=alone)
    assert not changed(copied, Path("evaluate", "sides.py"), TEXT, alone=alone)


def test_code_of_others_counts_nothing() -> None:
    assert code_of("numpy") == code_of("a.module.that.is.not") == code_of()
