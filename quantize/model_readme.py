"""README.md of a quantized pipeline: how to open it."""

from __future__ import annotations

from pathlib import Path

README = "README.md"
SOURCE_README = "README.source.md"  # what the original pipeline says about itself, such as its licence
TEXT = """\
# A pipeline quantized with edgepress

Linear layers of this diffusers pipeline have 4-bit weights in AWQ's layout. There are two ways to open it.

In Python, edgepress registers a reader with diffusers and transformers for the process. Without the first line, they
ask for packages that cannot read this folder:

```python
import edgepress.loading
from diffusers import DiffusionPipeline

pipeline = DiffusionPipeline.from_pretrained("path/of/this/folder")
```

On the command line, `edgepress export onnx --model path/of/this/folder --output artifact` exports it to ONNX graphs.
Then `edgepress generate --prompt "a red door" --output door.png artifact` generates images without torch.
"""


def write_model_readme(model: Path, source: Path) -> None:
    """Writes README.md into the folder of a quantized pipeline, and that of the original pipeline beside it.

    Args:
        model: The folder of the quantized pipeline.
        source: The folder of the original pipeline.
    """
    text = TEXT
    if (source / README).is_file():
        (model / SOURCE_README).write_bytes((source / README).read_bytes())
        text += f"\nThe original pipeline's own description is in [{SOURCE_README}]({SOURCE_README}).\n"
    (model / README).write_text(text, "utf-8")
