"""Examples that a docstring shows in its text, outside of its section of examples, are code for the reference as well."""

import re

import griffe

EXAMPLE = re.compile(r"^>>> .*(?:\n(?!\s*$).*)*", re.MULTILINE)  # up to the next empty line


class Doctests(griffe.Extension):
    def on_object(self, *, obj, **_):
        if obj.docstring and not obj.is_alias:
            text, *rest = re.split(r"^(?=Examples\n-----)", obj.docstring.value, flags=re.MULTILINE)
            obj.docstring.value = "".join([EXAMPLE.sub(r"```pycon\n\g<0>\n```", text), *rest])
