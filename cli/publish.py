"""`edgepress publish`: an artifact as a model repository on the Hugging Face Hub."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from .command import Command, require_effect
from .console import print_json, show_progress
from .options import PATH, json_option, output_option, verbosity_options


@click.command(cls=Command)
@click.argument("artifact", type=PATH)
@click.argument("repo", metavar="OWNER/NAME")
@click.option("--folder", "folders", multiple=True, help="Publish only this folder; may be repeated.  [default: all]")
@click.option("--base-model", default="", metavar="ID", help="The original on the Hub.  [default: what was quantized]")
@click.option("--license", default="", metavar="ID", help="Licence, such as apache-2.0.  [default: the original's]")
@click.option("--private", is_flag=True, help="Make a new repository private.")
@click.option("--dry-run", is_flag=True, help="Write the folder and upload nothing.")
@output_option("A new folder for the repository, needed for a dry run.")
@json_option
@verbosity_options
def publish(artifact: Path, repo: str, as_json: bool, **options: Any) -> None:
    """Publish an artifact with a model card: results, how to load it, how it was made, hashes."""
    require_effect("--private", not options["dry_run"], "a dry run uploads nothing")
    from ..api import hub_publishing as api

    with show_progress() as progress:
        result = api.publish(artifact, repo, progress=progress, **options)
    if as_json:
        print_json({"repo": result.repo_id, "url": result.url, "files": [file.path for file in result.files]})
    else:
        click.echo(str(result))
