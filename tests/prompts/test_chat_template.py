"""Chat templates render what transformers renders (see also tests/runtime/test_tokenizer.py), or say what is wrong."""

from __future__ import annotations

import pytest
from jinja2 import TemplateError

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


@pytest.mark.parametrize(
    ("template", "reason"),
    [
        ("{% for a in range(999) %}{% for b in range(999) %}{% endfor %}{% endfor %}", "more than 100000 steps"),
        ("{{ 'x' * 3000000 }}", "too long"),
        ("{{ ([0] * 2000000) | length }}", "too long"),
        ("{{ 10 ** 100000 }}", "too long"),
        ("{{ 'x' | center(3000000) }}", "too long"),
        ("{{ 'x'.ljust(3000000) }}", "too long"),
        ("{{ '%2000000d' % 1 }}", "too long"),
        ("{{ '%2000000d' | format(1) }}", "too long"),
        ("{{ 'x' | indent(width=3000000, first=true) }}", "too long"),
    ],
)
def test_what_has_no_end_is_ended(template: str, reason: str) -> None:
    with pytest.raises(TemplateError, match=reason):
        compile_chat_template(template, "file", "Advice.").render()


def test_limits_are_those_of_one_text() -> None:
    template = compile_chat_template("{% for n in range(60000) %}{% endfor %}{{ 'ab' * 2 }}{{ 2 ** 3 }}", "", "")
    assert [template.render() for _ in range(3)] == ["abab8"] * 3
    short = "{{ 'x' | center(3) }}|{{ '%d %%' % 7 }}|{{ '%s' | format('y') }}|{{ 'a b'.split(' ', 1)[1] }}|{{ 7 % 4 }}"
    assert compile_chat_template(short, "", "").render() == " x |7 %|y|b|3"
