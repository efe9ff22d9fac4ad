"""Measures what quantization lost: reference and candidates generate the same prompts from the same noise.

`evaluator` is the entry point. `plan` decides what is compared, `generation` produces the images, `metrics` score them,
`results` holds every number in one file, and `report` shows nothing that does not come from that file.

Callable as the public function: `edgepress.evaluate("pi5")`, see `edgepress.api.functions.evaluate`.
"""

from ..common.callable_package import make_callable

make_callable(__name__, "edgepress.api.functions", "evaluate")
