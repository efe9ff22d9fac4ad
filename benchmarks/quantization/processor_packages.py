"""Makes packages importable that processors of images and some tokenizers need, from build/processors.

`make bench-families` installs them there and not in the environment, because PyPI's torchvision would break one whose
torch is a CPU build.
"""

from __future__ import annotations

import sys
from pathlib import Path

import torch

FOLDER = Path(__file__).parents[2] / "build" / "processors"
OPERATORS = "nms", "qnms"  # of torchvision's compiled part, which a CPU build of torch cannot load; nothing calls them


def import_processor_packages() -> None:
    """Adds the packages to the path and imports torchvision, if they are installed.

    It must come before the first import of transformers, which looks for them once.
    """
    if not FOLDER.is_dir() or str(FOLDER) in sys.path:
        return
    sys.path.append(str(FOLDER))
    if torch.version.cuda is None:
        library = torch.library.Library("torchvision", "FRAGMENT")
        for name in OPERATORS:
            library.define(f"{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
        _LIBRARIES.append(library)
    import torchvision  # noqa: F401  in the order that its operators need


_LIBRARIES: list[torch.library.Library] = []  # whose operators end with them
