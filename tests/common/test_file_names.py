"""Names of files: what is an address, and what only looks like one."""

from __future__ import annotations

import pytest

from edgepress.common.errors import UserError
from edgepress.common.file_names import require_local, require_utf8


@pytest.mark.parametrize(
    "name", ["https://h/x", "HTTP://h", "ftp://h/x", "s3://b", "hf://a/b", "file:///x", "git+ssh://h/x", "https:/h/x"]
)
def test_addresses_are_refused(name: str) -> None:
    with pytest.raises(UserError, match="is an address, and only files and folders of this machine are used"):
        require_local(name)


@pytest.mark.parametrize(
    "name", ["x", "/x", "./a:b", "C:\\x", "C:/x", "a//b", "//x", "transformer:/x/y.gguf", "x:0.8", ""]
)
def test_paths_pass(name: str) -> None:
    require_local(name)


def test_a_name_that_is_not_utf8_is_shown_by_its_bytes() -> None:
    with pytest.raises(UserError, match=r"^The name 'a\\xff' is not UTF-8\. Rename"):
        require_utf8("a\udcff")
