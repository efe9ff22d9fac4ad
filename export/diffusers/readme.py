"""README.md of an exported folder: which packages open it, and how."""

from __future__ import annotations

from pathlib import Path

README = "README"
LIBRARIES = "diffusers==0.42.1 transformers==5.23.0"
INSTALL = f"pip install {LIBRARIES} auto-round==0.16.1 auto-round-lib==0.16.0 py-cpuinfo datasets"
TEXT = """\
# A pipeline quantized with edgepress, for stock diffusers

Linear layers have 4-bit weights in AWQ's layout, which auto-round computes with:

    {install}

```python
from diffusers import {pipeline_class}

pipeline = {pipeline_class}.from_pretrained("path/of/this/folder")
```

Without auto-round-lib a CPU opens the model without its weights, and auto-round only warns.
"""


def write_readme(folder: Path, pipeline_class: str) -> None:
    """Writes README.md into the folder of an export."""
    text = TEXT.format(install=INSTALL, pipeline_class=pipeline_class)
    (folder / f"{README}.md").write_text(text, "utf-8")
