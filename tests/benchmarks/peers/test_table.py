"""The table of peers, for known scores."""

from __future__ import annotations

from edgepress.benchmarks.common.report import CANDIDATE_NAME, compare_paired_psnr, format_mean
from edgepress.benchmarks.peers.quantization import QuantizedRun
from edgepress.benchmarks.peers.table import TableEntry, render_peers_table
from edgepress.evaluate.metrics.base import Score
from edgepress.evaluate.results.aggregate import aggregate, select_variant
from edgepress.evaluate.results.schema import (
    FolderIdentity,
    ImageResult,
    PairResult,
    Results,
    RunIdentity,
    SampleResult,
    SamplingInfo,
    SystemInfo,
)
from edgepress.evaluate.stats.bootstrap import MeanCI
from edgepress.prompts.prompt import Prompt


def make_results(psnr: list[float | None], accuracy: list[float]) -> Results:
    """Returns scores of images whose text is always read in the reference."""
    scores = (Score(name="psnr", title="PSNR", unit="dB"),)
    texts = (Score(name="text_accuracy", title="text accuracy", unit="%"),)
    rows = tuple(_make_sample(number, *values) for number, values in enumerate(zip(psnr, accuracy, strict=True)))
    subject = SystemInfo(kind="diffusers", folder=FolderIdentity(path="", sha256="", files=0, bytes=0), dtype="float32")
    identity = RunIdentity(
        reference=subject,
        variants={CANDIDATE_NAME: subject},
        ground_truth=None,
        sampling=SamplingInfo(height=8, width=8, steps=1, guidance=0, num_seeds=1),
        prompt_set=None,
        prompts_sha256="",
        metrics={},
        libraries={},
        device="orin",
        image_folder="",
    )
    return Results(
        created="",
        edgepress="",
        identity=identity,
        stage_seconds={},
        metric_costs={},
        pair_scores=scores,
        image_scores=texts,
        unavailable_metrics={},
        reference_defects=(),
        variants={CANDIDATE_NAME: aggregate(select_variant(rows, CANDIDATE_NAME), scores, texts)},
        noise_floor=None,
        gates=(),
        strict=False,
        verdict=None,
        baseline=None,
        history=None,
        samples=rows,
    )


def _make_sample(number: int, psnr: float | None, accuracy: float) -> SampleResult:
    images = [ImageResult(file="", values={"text_accuracy": value}, notes={}, defect=None) for value in (1.0, accuracy)]
    prompt = Prompt(id=f"p{number}", prompt="a", language="en")
    pair = PairResult(identical=psnr is None, values={"psnr": psnr}, image=images[1])
    return SampleResult(prompt=prompt, seed=0, ground_truth=None, reference=images[0], variants={CANDIDATE_NAME: pair})


RUN = QuantizedRun("0.1", 4.15625, 41.6, 934_000_000)


def test_the_table_has_the_best_first_and_failures_last() -> None:
    best = TableEntry("**edgepress**", RUN, make_results([40.0, 42.0], [1.0, 1.0]))
    worse = TableEntry("peer", RUN, make_results([39.0, 40.0], [1.0, 0.5]))
    failed = TableEntry("broken", error="ImportError: no")
    lines = render_peers_table([failed, worse, best], best).splitlines()
    assert [line.split("|")[1].strip() for line in lines[2:]] == ["**edgepress** (0.1)", "peer (0.1)", "broken"]
    cells = [cell.strip() for cell in lines[3].split("|")[1:-1]]
    assert cells == [
        "peer (0.1)",
        "4.156",
        "39.50 [39.00, 40.00]",
        "1.50 [1.00, 2.00]",
        "25.0 [0.0, 50.0]",
        "42",
        "0.93",
    ]
    assert "not measured: ImportError: no" in lines[4]
    assert len({line.count("|") for line in lines}) == 1


def test_identical_images_are_left_out_of_the_difference() -> None:
    mean = compare_paired_psnr(make_results([40.0, None, 43.0], [1.0] * 3), make_results([39.0, 40.0, 40.0], [1.0] * 3))
    assert (mean.mean, mean.count) == (2.0, 2)


def test_a_mean_of_one_has_no_interval() -> None:
    assert format_mean(MeanCI(mean=0.125, low=None, high=None, count=1), 100, 1) == "12.5"


# ---------------------------------------------------------------- the command
