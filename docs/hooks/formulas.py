r"""Formulas as MathML, which browsers draw by themselves: $\frac{1}{n}$ needs no script, no font and no network."""

import html
import re

from latex2mathml.converter import convert
from mkdocs.exceptions import PluginError

FORMULA = re.compile(r'<(span|div) class="arithmatex">\\[(\[](.*?)\\[)\]]</\1>', re.DOTALL)


def on_page_content(content, page, **_):
    def drawn(match):
        tag, text = match[1], html.unescape(match[2]).strip()
        formula = convert(text, display="block" if tag == "div" else "inline")
        left = re.search(r"\\[a-zA-Z]+", html.unescape(formula))
        if left:
            raise PluginError(f"{page.file.src_uri}: latex2mathml does not know {left[0]} in the formula {text!r}: write it in other words")
        return f'<{tag} class="formula" data-search-exclude>{formula}</{tag}>'

    return FORMULA.sub(drawn, content)
