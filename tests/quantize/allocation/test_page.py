"""The page of an allocation lists every layer, and its plot is a drawing that programs can read."""

import xml.etree.ElementTree as ET

from edgepress.quantize.allocation.page import write_allocation_page
from edgepress.storage.manifest import AllocationRecord, LayerAllocation

SVG = "{http://www.w3.org/2000/svg}"


def make_layer(number, chosen, drifts):
    return LayerAllocation(layer=f"transformer.layers.{number}.to_q", format=chosen, weights=64, size=40, drifts=drifts)


def make_record(layers):
    return AllocationRecord(
        choice="mixed", limit=100, size=80, images=3, expected_drift=-30.0, drift={"mixed": -31.0}, layers=layers
    )


def test_every_layer_has_a_row_and_a_bar_that_grows_with_its_drift(tmp_path):
    drifts = [1e-6, 1e-4, 0.0]
    layers = [make_layer(n, "g32", {"g128": drift, "g32": drift / 2}) for n, drift in enumerate(drifts)]
    write_allocation_page(make_record(layers), tmp_path)
    page = (tmp_path / "allocation.md").read_text()
    assert all(page.count(f"`{layer.layer}`") == 1 for layer in layers)
    assert "-31.00 dB" in page
    bars = [
        rect
        for rect in ET.parse(tmp_path / "allocation.svg").getroot().iter(f"{SVG}rect")
        if rect.find(f"{SVG}title") is not None
    ]
    heights = [float(bar.get("height")) for bar in bars]
    assert len(heights) == 3
    assert heights[1] > heights[0] >= heights[2] > 0


def test_a_model_whose_errors_do_nothing_has_a_page(tmp_path):
    write_allocation_page(make_record([make_layer(0, "g128", {"g128": 0.0})]), tmp_path)
    assert ET.parse(tmp_path / "allocation.svg").getroot().tag == f"{SVG}svg"
