"""CLIP models loaded with open_clip, which `make open-clip` installs in build/, outside of the environment.

open_clip requires torchvision, which PyPI provides for CUDA only, and which breaks an environment whose torch is a CPU
build. The test that needs both therefore runs in a separate process, which also defines two operators that torchvision
lacks.
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
import torch

import edgepress
from edgepress.common.errors import UserError
from edgepress.evaluate.backends.clip import open_clip_backend, transformers_backend
from edgepress.evaluate.backends.clip.embedder import load_encoders
from edgepress.evaluate.backends.clip.encoders import ClipEncoders
from edgepress.evaluate.backends.clip.open_clip_backend import resolve_architecture
from edgepress.evaluate.backends.clip.spec import parse_clip_spec
from edgepress.evaluate.images.image_file import load_image
from edgepress.pipelines.hub import DEMO_CLIP
from edgepress.prompts.prompt import Prompt

if TYPE_CHECKING:
    from .conftest import TinyClip

OPEN_CLIP = Path(edgepress.__file__).resolve().parent / "build" / "open_clip"
KNOWN = ["ViT-B-32", "ViT-B-32-quickgelu", "coca_ViT-B-32"]
VECTORS = Path(__file__).parent / "open_clip.json"  # embeddings of the demo's images and prompts by open_clip 3.3.0


def test_architecture_must_determine_the_activation() -> None:
    with pytest.raises(UserError, match=r"Use ViT-B-32-quickgelu \(OpenAI's weights\) or ViT-B-32-gelu"):
        resolve_architecture("ViT-B-32", KNOWN)
    assert resolve_architecture("ViT-B-32-quickgelu", KNOWN) == "ViT-B-32-quickgelu"
    assert resolve_architecture("ViT-B-32-gelu", KNOWN) == "ViT-B-32"
    assert resolve_architecture("coca_ViT-B-32", KNOWN) == "coca_ViT-B-32"
    with pytest.raises(UserError, match="does not know the architecture 'ViT-B-64'"):
        resolve_architecture("ViT-B-64", KNOWN)


def test_architecture_by_name_requires_open_clip(tiny_clip: TinyClip, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(open_clip_backend, "is_installed", lambda: False)
    with pytest.raises(UserError, match=r"requires open_clip\. Install open-clip-torch"):
        load_encoders(parse_clip_spec(f"ViT-B-32-quickgelu:{tiny_clip.folder / 'open_clip_model.safetensors'}"))


def test_broken_open_clip_is_reported(tiny_clip: TinyClip, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As with a torchvision that was built for another version of torch."""
    (tmp_path / "open_clip.py").write_text("raise RuntimeError('operator torchvision::nms does not exist')")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "open_clip", raising=False)
    with pytest.raises(UserError, match=r"torchvision::nms does not exist.*torchvision version that matches torch"):
        load_encoders(parse_clip_spec(f"local-dir:{tiny_clip.folder}"))


def encode_pair(encoders: ClipEncoders, text: str, file: Path) -> tuple[torch.Tensor, torch.Tensor]:
    assert encoders.tokenize
    tokens = encoders.tokenize(text, encoders.context_length)
    return encoders.encode_image(load_image(file)), encoders.encode_text(tokens)


def assert_close(vector: torch.Tensor, expected: list[float]) -> None:
    assert np.abs((vector / vector.norm()).numpy() - expected).max() < 1e-3


def test_transformers_reproduces_the_embeddings_of_open_clip(signs: list[tuple[Prompt, Path]]) -> None:
    """For the demo's CLIP model; the slow test below compares the stored vectors with open_clip."""
    encoders = transformers_backend.load_open_clip_folder(parse_clip_spec(f"local-dir:{DEMO_CLIP}"))
    expected = json.loads(VECTORS.read_text())
    for prompt, file in signs:
        image, text = encode_pair(encoders, prompt.prompt, file)
        assert_close(image, expected[f"{prompt.id} image"])
        assert_close(text, expected[f"{prompt.id} prompt"])


@pytest.mark.slow
@pytest.mark.skipif(not OPEN_CLIP.is_dir(), reason="open_clip is not installed; run `make open-clip`")
def test_open_clip_and_transformers_agree(
    tiny_clip: TinyClip, signs: list[tuple[Prompt, Path]], tmp_path: Path
) -> None:
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(OPEN_CLIP), *sys.path])}
    images = {prompt.prompt: str(file) for prompt, file in signs}
    job = {"demo": f"local-dir:{DEMO_CLIP}", "small": f"local-dir:{tiny_clip.folder}", "images": images}
    script = Path(__file__).with_name("open_clip_process.py")
    command = [sys.executable, str(script), json.dumps(job), str(tmp_path / "vectors.json")]
    process = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300, check=False)
    assert process.returncode == 0, process.stderr
    from_open_clip = json.loads((tmp_path / "vectors.json").read_text())
    assert from_open_clip.pop("differences") == 0
    assert from_open_clip.pop("refused") == {"missing": True, "resized": True, "unknown": True}
    for name in ("demo", "small"):
        encoders = transformers_backend.load_open_clip_folder(parse_clip_spec(str(job[name])))
        for text, file in images.items():
            for vector, expected in zip(
                encode_pair(encoders, text, Path(file)), from_open_clip[name][text], strict=True
            ):
                assert_close(vector, expected)
    for text in images:  # only texts: by name, images are normalized as OpenAI's are
        np.testing.assert_allclose(from_open_clip["named"][text][1], from_open_clip["small"][text][1])
    stored = json.loads(VECTORS.read_text())
    for prompt, _ in signs:
        for vector, kind in zip(from_open_clip["demo"][prompt.prompt], ("image", "prompt"), strict=True):
            assert np.abs(np.subtract(vector, stored[f"{prompt.id} {kind}"])).max() < 1e-5
