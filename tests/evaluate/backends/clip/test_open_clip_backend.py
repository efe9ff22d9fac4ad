"""open_clip itself, where it can be had: `make open-clip` puts it into build/, beside the environment.

It needs torchvision, which PyPI builds for CUDA alone and which breaks the environment that it is installed into where
torch is a CPU build. A process of its own is therefore given both, and the two operators that torchvision misses.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest

import edgepress
from edgepress.common.errors import UserError
from edgepress.evaluate.backends.clip import open_clip_backend, transformers_backend
from edgepress.evaluate.backends.clip.embedder import load_encoders
from edgepress.evaluate.backends.clip.open_clip_backend import resolve_architecture
from edgepress.evaluate.backends.clip.spec import parse_clip_spec
from edgepress.evaluate.images.image_file import load_image
from edgepress.pipelines.hub import DEMO_CLIP
from edgepress.prompts.prompt import Prompt

if TYPE_CHECKING:
    from .conftest import Plain

OPEN_CLIP = Path(edgepress.__file__).resolve().parent / "build" / "open_clip"
KNOWN = ["ViT-B-32", "ViT-B-32-quickgelu", "coca_ViT-B-32"]
VECTORS = Path(__file__).parent / "open_clip.json"  # what open_clip 3.3.0 makes of the demo's pictures and prompts


def test_a_name_that_leaves_the_activation_open_is_refused() -> None:
    with pytest.raises(UserError, match=r"write ViT-B-32-quickgelu \(OpenAI's weights\) or ViT-B-32-gelu"):
        resolve_architecture("ViT-B-32", KNOWN)
    assert resolve_architecture("ViT-B-32-quickgelu", KNOWN) == "ViT-B-32-quickgelu"
    assert resolve_architecture("ViT-B-32-gelu", KNOWN) == "ViT-B-32"
    assert resolve_architecture("coca_ViT-B-32", KNOWN) == "coca_ViT-B-32"
    with pytest.raises(UserError, match="knows no architecture 'ViT-B-64'"):
        resolve_architecture("ViT-B-64", KNOWN)


def test_a_name_needs_open_clip(plain: Plain, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(open_clip_backend, "installed", lambda: False)
    with pytest.raises(UserError, match="needs open_clip: install open-clip-torch"):
        load_encoders(parse_clip_spec(f"ViT-B-32-quickgelu:{plain.folder / 'open_clip_model.safetensors'}"))


def test_an_open_clip_that_cannot_be_imported_is_said_to_be(
    plain: Plain, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As beside a torchvision that was built for another torch."""
    (tmp_path / "open_clip.py").write_text("raise RuntimeError('operator torchvision::nms does not exist')")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "open_clip", raising=False)
    with pytest.raises(UserError, match=r"torchvision::nms does not exist.*torchvision that belongs to this torch"):
        load_encoders(parse_clip_spec(f"local-dir:{plain.folder}"))


def test_transformers_gives_the_vectors_that_open_clip_gave(signs: list[tuple[Prompt, Path]]) -> None:
    """The demo's CLIP, by both libraries; the vectors were written by the slow test below."""
    towers = transformers_backend.load_open_clip_folder(parse_clip_spec(f"local-dir:{DEMO_CLIP}"))
    assert towers.tokenize
    kept = json.loads(VECTORS.read_text())
    for prompt, file in signs:
        pictured = towers.encode_image(load_image(file)).numpy()
        asked = towers.encode_text(towers.tokenize(prompt.prompt, towers.context_length)).numpy()
        for vector, expected in ((pictured, kept[f"{prompt.id} picture"]), (asked, kept[f"{prompt.id} prompt"])):
            assert np.abs(vector / np.linalg.norm(vector) - expected).max() < 1e-3


@pytest.mark.slow
@pytest.mark.skipif(not OPEN_CLIP.is_dir(), reason="open_clip is not there: `make open-clip` fetches it")
def test_open_clip_and_transformers_agree(plain: Plain, signs: list[tuple[Prompt, Path]], tmp_path: Path) -> None:
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(OPEN_CLIP), *sys.path])}
    pictures = {prompt.prompt: str(file) for prompt, file in signs}
    job = {"demo": f"local-dir:{DEMO_CLIP}", "small": f"local-dir:{plain.folder}", "pictures": pictures}
    script = Path(__file__).with_name("open_clip_process.py")
    run = [sys.executable, str(script), json.dumps(job), str(tmp_path / "vectors.json")]
    done = subprocess.run(run, env=environment, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    found = json.loads((tmp_path / "vectors.json").read_text())
    assert found.pop("refused") == {"missing": True, "stretched": True, "other": True}
    for name in ("demo", "small"):
        towers = transformers_backend.load_open_clip_folder(parse_clip_spec(str(job[name])))
        assert towers.tokenize
        for text, file in pictures.items():
            vectors = (
                towers.encode_image(load_image(Path(file))),
                towers.encode_text(towers.tokenize(text, towers.context_length)),
            )
            for vector, expected in zip(vectors, found[name][text], strict=True):
                assert np.abs(vector.numpy() / np.linalg.norm(vector.numpy()) - expected).max() < 1e-3
    for text in pictures:  # by name, pictures are normalised as OpenAI's are
        np.testing.assert_allclose(found["named"][text][1], found["small"][text][1])
    kept = json.loads(VECTORS.read_text())
    for prompt, _ in signs:
        for vector, part in zip(found["demo"][prompt.prompt], ("picture", "prompt"), strict=True):
            assert np.abs(np.subtract(vector, kept[f"{prompt.id} {part}"])).max() < 1e-5
