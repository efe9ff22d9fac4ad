"""The Markdown of a memory plan of hand-made parts, read back as tables."""

from __future__ import annotations

from edgepress.export.rknn.planning.memory_plan import Deployment, MemoryPlan, PartEstimate
from edgepress.export.rknn.planning.plan_report import render_plan

MIB, GIB = 2**20, 2**30
PARTS = (
    PartEstimate("encoder", "encoder", True, 2_000_000, 1 * MIB, 3 * MIB, 0, 0.0),
    PartEstimate("denoiser-1-of-2", "denoiser", False, 400_000_000, 800 * MIB, 10 * MIB, 2 * GIB, 90.0),
    PartEstimate("denoiser-2-of-2", "denoiser", False, 600_000_000, 1200 * MIB, 10 * MIB, 3 * GIB, 150.4),
)
NPU = Deployment("NPU, fp16", PARTS, GIB // 2, 2 * GIB, GIB // 4, (("denoiser-1-of-2",), ("denoiser-2-of-2",)))
CPU = Deployment("CPU, int4", PARTS[:1], GIB, GIB, 0)
REJECTED = Deployment("NPU, w8a8", rejection="encoder: a block is too large")


def read_tables(text: str) -> list[list[list[str]]]:
    """The tables of a Markdown text: rows of cells, without the line of dashes."""
    tables = []
    for paragraph in text.split("\n\n"):
        rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in paragraph.splitlines() if "|" in line]
        if rows:
            assert all(len(row) == len(rows[0]) for row in rows)
            assert set(rows.pop(1)) == {"---"}
            tables.append(rows)
    return tables


def make_plan(*deployments: Deployment) -> MemoryPlan:
    return MemoryPlan("rk3588", "fp16", 16 * GIB, (512, 768), 96, deployments)


def test_the_summary_says_for_what_the_plan_is() -> None:
    summary = render_plan(make_plan(CPU)).splitlines()[0]
    assert summary == "rk3588 with 16 GiB; images of 512x768 pixels, prompts of up to 96 tokens."


def test_deployments_are_the_rows_of_the_first_table() -> None:
    header, npu, cpu, rejected = read_tables(render_plan(make_plan(NPU, CPU, REJECTED)))[0]
    rows = [dict(zip(header, row, strict=True)) for row in (npu, cpu, rejected)]
    assert [row["deployment"] for row in rows] == ["NPU, fp16", "CPU, int4", "NPU, w8a8"]
    assert [row["parts"] for row in rows] == ["3", "1", "–"]
    # 1 GiB for the system, 0.5 for the process, 2 for weights, 0.25 for activations
    assert [row["total, with 1 GiB for the system"] for row in rows] == ["3.75 GiB", "3.00 GiB", "–"]
    assert [row["build time"] for row in rows] == ["4 min", "none", "–"]  # 90 s and 150 s
    assert rows[0]["verdict"].startswith("research: needs 2 memory domains")
    assert [row["verdict"] for row in rows[1:]] == ["fits", "rejected: encoder: a block is too large"]


def test_graphs_on_the_npu_have_a_table_with_the_range_of_their_parts() -> None:
    tables = read_tables(render_plan(make_plan(NPU, CPU)))
    assert len(tables) == 2
    assert tables[1][1:] == [
        ["encoder", "CPU, int4", "2 M", "1", "3 MiB", "–", "–"],
        ["denoiser", "2", "1000 M", "800–1200", "10 MiB", "1, 2", "3.0 GiB, 150 s"],
    ]


def test_a_plan_prints_as_its_report() -> None:
    plan = make_plan(NPU, CPU, REJECTED)
    assert str(plan) == render_plan(plan)
