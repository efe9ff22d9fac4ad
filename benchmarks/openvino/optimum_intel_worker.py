"""Exports a pipeline with optimum-intel and its own INT8. `optimum_intel.py` runs this in an environment of its own.

    python optimum_intel_worker.py PIPELINE OUTPUT BITS

BITS is 8 for INT8 weights, as optimum-intel compresses them with NNCF, or 32 for floats.
"""

from __future__ import annotations

import sys

from optimum.intel import OVDiffusionPipeline, OVWeightQuantizationConfig


def main(pipeline: str, output: str, bits: str) -> None:
    config = OVWeightQuantizationConfig(bits=8) if bits == "8" else None
    exported = OVDiffusionPipeline.from_pretrained(
        pipeline, export=True, compile=False, quantization_config=config, load_in_8bit=False
    )
    exported.save_pretrained(output)


if __name__ == "__main__":
    main(*sys.argv[1:])
