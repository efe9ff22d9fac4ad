"""Draws the ground-truth signs of prompts, for `edgepress evaluate --ground-truth`.

    python -m edgepress.demo.signs.ground_truth --prompts demo/pipeline/prompts/evaluation.jsonl --output signs

What a prompt leaves open, such as the positions of dots, is drawn the same each time. No generated image can match it;
what counts is how much less a variant matches it than the reference.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import cast

import click

from ...common.errors import UserError
from ...pipelines.hub import DEMO_PIPELINE
from ...prompts.prompt import Prompt
from ...prompts.reader import load_prompts
from .dataset import BACKGROUNDS, COLOURS, PATTERNS, PLACES, SIZES, TEMPLATES, Language, Sign, Size, render_sign

NO_FONTS_EXIT_CODE = 3  # callers may continue without ground truth


class MissingFontsError(UserError):
    """The fonts of the signs are not installed."""


class MissingFontsExit(click.ClickException):
    """Ends the command with `NO_FONTS_EXIT_CODE`."""

    exit_code = NO_FONTS_EXIT_CODE


def write_images(prompts: list[Prompt], folder: Path) -> None:
    """Writes `<prompt id>.png` for each prompt.

    Raises:
        UserError: A prompt does not describe a sign of the demo.
        MissingFontsError: The fonts are not installed.
    """
    from PIL import Image

    folder.mkdir(parents=True, exist_ok=True)
    for prompt in prompts:
        try:
            image = render_sign(parse_prompt(prompt))
        except OSError as error:
            raise MissingFontsError(
                f"Drawing signs needs fonts ({error}). Install fonts-dejavu-core and fonts-noto-cjk."
            ) from error
        Image.fromarray(image).save(folder / f"{prompt.id}.png")


def parse_prompt(prompt: Prompt) -> Sign:
    """Returns the sign that a prompt describes.

    Raises:
        UserError: It describes none.
    """
    for language, templates in TEMPLATES.items():
        for number, template in enumerate(templates):
            match = re.fullmatch(_make_pattern(template, _make_vocabulary(language)), prompt.prompt)
            if match and language == prompt.language:
                sign = _make_sign(prompt.lines, language, number, match.groupdict())
                if sign.prompt == prompt.prompt:
                    return sign
    raise UserError(
        f"The prompt {prompt.id!r} does not describe a sign of the demo: {prompt.prompt}. Give one of its prompts."
    )


def _make_sign(lines: tuple[str, ...], language: Language, template: int, values: Mapping[str, str]) -> Sign:
    keys = {name: _make_vocabulary(language)[name][word] for name, word in values.items()}
    return Sign(
        lines=lines,
        language=language,
        colour=keys["colour"],
        background=keys["background"],
        pattern=keys["pattern"],
        size=cast(Size, keys["size"]),
        place=keys["place"],
        template=template,
    )


def _make_vocabulary(language: Language) -> dict[str, dict[str, str]]:
    """Returns, for each attribute of a sign, its keys by the words of a language."""
    chinese = language == "zh"
    tables: Mapping[str, Mapping[str, str]] = {
        "colour": {key: word for key, (word, _) in COLOURS.items()},
        "background": {key: word for key, (word, _) in BACKGROUNDS.items()},
        "pattern": PATTERNS,
        "size": SIZES,
        "place": PLACES,
    }
    return {name: {(word if chinese else key): key for key, word in table.items()} for name, table in tables.items()}


def _make_pattern(template: str, vocabulary: Mapping[str, Mapping[str, str]]) -> str:
    """Returns a regular expression for the prompts of a template."""
    choices = {name: f"(?P<{name}>{'|'.join(table)})" for name, table in vocabulary.items()}
    return re.escape(template).replace(r"\{", "{").replace(r"\}", "}").format(text=".+", **choices)


@click.command(help=__doc__)
@click.option("--prompts", type=click.Path(path_type=Path), default=DEMO_PIPELINE / "prompts" / "evaluation.jsonl")
@click.option("--output", type=click.Path(path_type=Path), required=True)
def main(prompts: Path, output: Path) -> None:
    try:
        write_images(load_prompts(prompts), output)
    except UserError as error:
        exception_class = MissingFontsExit if isinstance(error, MissingFontsError) else click.ClickException
        raise exception_class(str(error)) from error
    click.echo(f"Wrote the signs to {output}.")


if __name__ == "__main__":
    main()
