"""What pipeline.json records of a built part, from a hand-made measurement."""

from __future__ import annotations

from edgepress.export.rknn.building.build_log import BuildLog, BuiltLayer
from edgepress.export.rknn.building.simulation import BuildMeasurement, LayerError
from edgepress.export.rknn.pipeline_config import describe_measurement
from edgepress.storage.pipeline_config import PartConfig

LAYERS = (
    BuiltLayer("Conv", "FLOAT16", "NPU", "conv"),
    BuiltLayer("Gather", "FLOAT16", "CPU", "lookup"),
    BuiltLayer("Reshape", "FLOAT16", "CPU", ""),
    BuiltLayer("MatMul", "FLOAT16", "NPU", "product"),
)
LOG = BuildLog(LAYERS, weight_bytes=1000, internal_bytes=20, errors=("E RKNN: a problem",))
ERRORS = tuple(LayerError("Conv", f"conv{number}", 0.5 / (1 + number)) for number in range(9))


def test_a_measurement_is_recorded() -> None:
    fields = describe_measurement(BuildMeasurement(LOG, 1e-3, 0.999, ERRORS, 12.345, 2**30))
    part = PartConfig(
        name="a", inputs=("x",), device="npu", config={}, quantized=False, float_layers=(), status="simulated", **fields
    )
    assert part.operators
    assert (part.operators.npu, part.operators.not_on_npu) == (2, ("Gather lookup", "Reshape"))
    assert part.errors == ("E RKNN: a problem",)
    assert part.memory
    assert (part.memory.weights, part.memory.internal) == (1000, 20)
    assert part.simulated
    assert (part.simulated.relative_error, part.simulated.cosine) == (1e-3, 0.999)
    assert part.build
    assert (part.build.seconds, part.build.peak_bytes) == (12.3, 2**30)


def test_only_the_worst_layers_are_listed() -> None:
    fields = describe_measurement(BuildMeasurement(LOG, 0.0, 1.0, ERRORS, 0.0, 0))
    assert [layer.name for layer in fields["worst_layers"]] == ["conv0", "conv1", "conv2", "conv3", "conv4"]
    assert describe_measurement(BuildMeasurement(LOG, 0.0, 1.0, (), 0.0, 0))["worst_layers"] == ()
