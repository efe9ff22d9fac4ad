"""A step of building the package: what `top_level.txt` says."""

from __future__ import annotations

from pathlib import Path

from setuptools.command.egg_info import egg_info


class EggInfo(egg_info):
    """Names edgepress alone.

    setuptools would add `optimum`, because of one file in that namespace, and diffusers takes the version of the first
    distribution that names it there for that of optimum-quanto.
    """

    def run(self) -> None:
        super().run()
        (Path(self.egg_info) / "top_level.txt").write_text("edgepress\n", "utf-8")
