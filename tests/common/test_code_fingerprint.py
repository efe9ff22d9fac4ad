from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from edgepress.common import code_fingerprint
from edgepress.common.code_fingerprint import code_fingerprint, model_modules

TEXT = "edgepress.evaluate.metrics.text"
SCORES = Path("evaluate", "text_scores.py")


@pytest.fixture
def copied(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The package's source in a folder of its own, from which hashes are then taken."""
    root = Path(code_fingerprint.__file__).parent
    for folder in ("evaluate", "models", "runtime"):
        shutil.copytree(root / folder, tmp_path / folder, ignore=shutil.ignore_patterns("assets", "__pycache__"))
    for file in root.glob("*.py"):
        shutil.copy(file, tmp_path)
    monkeypatch.setattr(code_fingerprint, "ROOT", tmp_path)
    code_fingerprint.cache_clear()
    yield tmp_path
    code_fingerprint.cache_clear()


def fingerprint_changes(copied: Path, file: Path, *modules: str, alone: str | None = None) -> bool:
    """Whether another comment in a file changes the hash of modules."""
    before = code_fingerprint(*modules, alone=alone)
    with (copied / file).open("a") as stream:
        stream.write("# changed\n")
    code_fingerprint.cache_clear()
    return code_fingerprint(*modules, alone=alone) != before


def test_what_a_metric_imports_counts_and_nothing_else(copied: Path) -> None:
    assert fingerprint_changes(copied, SCORES, TEXT)
    assert fingerprint_changes(copied, Path("evaluate", "ocr.py"), TEXT)
    assert fingerprint_changes(copied, Path("prompts.py"), TEXT)
    assert not fingerprint_changes(copied, Path("evaluate", "metrics", "ssim.py"), TEXT)
    assert not fingerprint_changes(copied, Path("evaluate", "clip", "embed.py"), TEXT)


def test_what_paints_counts(copied: Path) -> None:
    for name in ("loading.py", "int4.py", "products.py", "sampling.py"):
        assert fingerprint_changes(copied, Path(name), "edgepress.pipelines.sampling")
    exported = ["edgepress.runtime.pipeline", *model_modules()]
    for file in ("runtime/noise.py", "runtime/rknn/simulator.py", "models/z_image_host.py"):
        assert fingerprint_changes(copied, Path(file), *exported)
    assert not fingerprint_changes(copied, Path("runtime", "bench", "report.py"), *exported)


def test_imports_of_what_stands_alone_do_not_count(copied: Path) -> None:
    alone = "edgepress.evaluate.generation.generators"
    assert fingerprint_changes(copied, Path("evaluate", "painters.py"), TEXT, alone=alone)
    assert not fingerprint_changes(copied, Path("evaluate", "sides.py"), TEXT, alone=alone)


def test_code_of_others_counts_nothing() -> None:
    assert code_fingerprint("numpy") == code_fingerprint("a.module.that.is.not") == code_fingerprint()
