"""What goes to standard error, and what to standard output."""

from __future__ import annotations

import json
import logging
import warnings

import click
import pytest
from click.testing import CliRunner

from edgepress.cli.console import log_to_terminal, print_json, show_progress
from edgepress.cli.options import QUIET

LOGGER = logging.getLogger("edgepress")


@click.command()
@click.option("--quiet", is_flag=True)
@click.pass_context
def work(context: click.Context, quiet: bool) -> None:
    context.meta[QUIET] = quiet
    with log_to_terminal(), show_progress() as progress:
        progress("solving", 1, 2)
        logging.getLogger("edgepress.quantize").warning("%d layers stay in floats", 3)
        logging.getLogger("edgepress.quantize").info("a detail")
        logging.getLogger("edgepress.storage").warning("%s is ignored", "a\n\x1b[2J.safetensors")
        logging.getLogger("elsewhere").warning("of a library")
        warnings.warn("of a library in Python's way", stacklevel=1)
    print_json({"text": "牌子", "layers": 3})


@pytest.mark.filterwarnings("always:of a library")
@pytest.mark.parametrize("quiet", [False, True])
def test_results_go_to_standard_output_and_the_rest_to_standard_error(quiet: bool) -> None:
    result = CliRunner().invoke(work, ["--quiet"] if quiet else [])
    assert json.loads(result.stdout) == {"text": "牌子", "layers": 3}
    assert "牌子" in result.stdout  # not escaped
    assert "Warning: 3 layers stay in floats\n" in result.stderr
    assert r"Warning: a\n\x1b[2J.safetensors is ignored" in result.stderr
    assert "a detail" not in result.stderr
    assert "of a library" not in result.stderr
    assert ("50%" in result.stderr) != quiet


def test_logging_is_as_before_when_a_command_has_ended() -> None:
    before = (LOGGER.level, LOGGER.propagate, list(LOGGER.handlers))
    with pytest.raises(ValueError, match="stop"), log_to_terminal():
        raise ValueError("stop")
    assert (LOGGER.level, LOGGER.propagate, list(LOGGER.handlers)) == before


def test_that_transformers_reads_images_with_pillow_is_not_said(caplog: pytest.LogCaptureFixture) -> None:
    logger = logging.getLogger("transformers.utils.import_utils")
    with log_to_terminal():
        logger.warning("`XImageProcessor` requires torchvision (not installed); falling back to `XImageProcessorPil`")
        logger.warning("Disabling PyTorch because it is too old")
    assert [record.getMessage() for record in caplog.records] == ["Disabling PyTorch because it is too old"]
