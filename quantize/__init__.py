"""Quantizes a pipeline to 4 bits: plan, calibrate, quantize block by block, write. The entry is `pipeline`.

Callable as the public function: `edgepress.quantize("pi5")`, see `edgepress.api.functions.quantize`.
"""

from ..common.callable_package import make_callable

make_callable(__name__, "edgepress.api.functions", "quantize")
