"""`<!-- help: bench -->` in a page becomes what `normfast bench --help` prints."""

import contextlib
import io
import os
import re

from normfast import cli


def on_page_markdown(markdown, **_):
    return re.sub(r"<!-- help: ?(.*?) ?-->", lambda match: f"```text\n{printed(match[1].split())}\n```", markdown)


def printed(arguments):
    """The help of a command, as a terminal of 100 columns shows it."""
    text, before = io.StringIO(), os.environ.get("COLUMNS")
    os.environ["COLUMNS"] = "100"
    try:
        with contextlib.redirect_stdout(text), contextlib.suppress(SystemExit):
            cli.main([*arguments, "--help"])
    finally:
        os.environ.pop("COLUMNS") if before is None else os.environ.update(COLUMNS=before)
    return text.getvalue().strip()
