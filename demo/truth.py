"""Draws the true signs of prompts, so that painted ones can be compared with them (`evaluate --truth`).

    python -m edgepress.demo.truth --prompts demo/pipeline/prompts/evaluation.jsonl --output truth

What a prompt leaves open, such as where the dots of a dotted wall are, is drawn the same each time: no painting can
match it, and what counts is how much less the variant matches it than the reference does.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import cast

import click

from ..errors import UserError
from ..prompts import Prompt, load_prompts
from ..sources import DEMO
from .signs import COLOURS, GROUNDS, PATTERNS, PLACES, SIZES, TEMPLATES, Language, Sign, Size, render

NO_FONTS = 3  # exit code, on which whoever asks may go on without


class NoFontsError(UserError):
    """The signs cannot be drawn here."""


class WithoutFonts(click.ClickException):
    exit_code = NO_FONTS


def draw(prompts: list[Prompt], folder: Path) -> None:
    """Writes `<prompt id>.png` for each prompt.

    Raises:
        UserError: a prompt that asks for no sign of the demo.
        NoFontsError: fonts that are not installed.
    """
    from PIL import Image

    folder.mkdir(parents=True, exist_ok=True)
    for prompt in prompts:
        try:
            picture = render(sign_of(prompt))
        except OSError as error:
            raise NoFontsError(
                f"The true signs need fonts ({error}); install fonts-dejavu-core and fonts-noto-cjk."
            ) from error
        Image.fromarray(picture).save(folder / f"{prompt.id}.png")


def sign_of(prompt: Prompt) -> Sign:
    """The sign that a prompt asks for.

    Raises:
        UserError: it asks for none.
    """
    for language, templates in TEMPLATES.items():
        for number, template in enumerate(templates):
            found = re.fullmatch(_pattern(template, _words(language)), prompt.prompt)
            if found and language == prompt.language:
                sign = _sign(prompt.lines, language, number, found.groupdict())
                if sign.prompt == prompt.prompt:
                    return sign
    raise UserError(f"The prompt {prompt.id!r} asks for no sign of the demo: {prompt.prompt}")


def _sign(lines: tuple[str, ...], language: Language, template: int, said: Mapping[str, str]) -> Sign:
    keys = {name: _words(language)[name][word] for name, word in said.items()}
    return Sign(
        lines=lines,
        language=language,
        colour=keys["colour"],
        ground=keys["ground"],
        pattern=keys["pattern"],
        size=cast(Size, keys["size"]),
        place=keys["place"],
        template=template,
    )


def _words(language: Language) -> dict[str, dict[str, str]]:
    """The keys of what a prompt names, by the words of its language."""
    chinese = language == "zh"
    tables: Mapping[str, Mapping[str, str]] = {
        "colour": {key: word for key, (word, _) in COLOURS.items()},
        "ground": {key: word for key, (word, _) in GROUNDS.items()},
        "pattern": PATTERNS,
        "size": SIZES,
        "place": PLACES,
    }
    return {name: {(word if chinese else key): key for key, word in table.items()} for name, table in tables.items()}


def _pattern(template: str, words: Mapping[str, Mapping[str, str]]) -> str:
    """A regular expression of the prompts that a template makes."""
    choices = {name: f"(?P<{name}>{'|'.join(table)})" for name, table in words.items()}
    return re.escape(template).replace(r"\{", "{").replace(r"\}", "}").format(text=".+", **choices)


@click.command(help=__doc__)
@click.option("--prompts", type=click.Path(path_type=Path), default=DEMO / "prompts" / "evaluation.jsonl")
@click.option("--output", type=click.Path(path_type=Path), required=True)
def main(prompts: Path, output: Path) -> None:
    try:
        draw(load_prompts(prompts), output)
    except UserError as error:
        told = WithoutFonts if isinstance(error, NoFontsError) else click.ClickException
        raise told(str(error)) from error
    click.echo(f"written to {output}")


if __name__ == "__main__":
    main()
