"""A build step that writes `top_level.txt`."""

from __future__ import annotations

from pathlib import Path

from setuptools.command.egg_info import egg_info


class EggInfo(egg_info):
    """Lists only edgepress as a top-level package.

    setuptools would also list `optimum`, because one file belongs to that namespace. diffusers would then mistake the
    version of edgepress for that of optimum-quanto, because it takes the first distribution that lists `optimum`.
    """

    def run(self) -> None:
        """Writes the metadata, and then replaces `top_level.txt`."""
        super().run()
        (Path(self.egg_info) / "top_level.txt").write_text("edgepress\n", "utf-8")
