"""Chat templates render what transformers renders (see also tests/runtime/test_tokenizer.py), or say what is wrong."""

from __future__ import annotations

import pytest

from edgepress.common.errors import UserError
from edgepress.prompts.chat_template import compile_chat_template


@pytest.mark.parametrize(
    ("template", "rendered"),
    [
        ("a{% generation %}{{ 1 + 1 }}{% endgeneration %}b", "a2b"),
        ("{{ ['<字>'] | tojson }}", '["<字>"]'),
        ("{% for n in [1, 2] %}{% if n == 2 %}{% break %}{% endif %}{{ n }}{% endfor %}", "1"),
        ("{{ strftime_now('%%') }}", "%"),
    ],
)
def test_what_transformers_adds_is_rendered(template: str, rendered: str) -> None:
    assert compile_chat_template(template, "file", "Advice.").render() == rendered


@pytest.mark.parametrize("template", ["{% for n in [] %}", "{% unknown %}", "{{ 1 | unknown }}", "{% generation %}"])
def test_what_is_no_template_is_said_with_its_file(template: str) -> None:
    with pytest.raises(UserError, match=r"^some\.jinja is not a chat template \(.+\)\. Download it\.$"):
        compile_chat_template(template, "some.jinja", "Download it.")
