"""What lies outside the pages and belongs to the site: CONTRIBUTING.md and CHANGELOG.md as pages, linked sources as texts.

The pages are written for the repository, where `../normfast/include/normfast.h` is a link that works. Here its target becomes a text of
the site.
"""

import os
import re
from pathlib import Path, PurePosixPath

from mkdocs.structure.files import File

PAGES = {"CONTRIBUTING.md": "contributing.md", "CHANGELOG.md": "changelog.md"}
LINK = re.compile(r"\]\((?!\w+:|#|/)([^)#\s]+)(#[^)\s]*)?\)")


def on_files(files, config):
    root = Path(config.config_file_path).parent
    for name, place in PAGES.items():
        text = (root / name).read_text(encoding="utf-8")
        files.append(File.generated(config, place, content=text.replace("](docs/", "](")))
    pages = [(file.content_string, file.src_uri) for file in files.documentation_pages()]
    for target in sorted({resolved(match[1], page) for text, page in pages for match in LINK.finditer(text)} - set(PAGES)):
        if (root / target).is_file() and not shown(target, files):
            files.append(File.generated(config, f"source/{target}.txt", content=(root / target).read_bytes()))
    return files


def on_page_markdown(markdown, page, files, **_):
    """Links to what lies outside, led to its place in the site."""

    def led(match):
        target = resolved(match[1], page.file.src_uri)
        place = PAGES.get(target, f"source/{target}.txt")
        if shown(target, files) or not files.get_file_from_path(place):
            return match[0]
        return f"]({os.path.relpath(place, PurePosixPath(page.file.src_uri).parent)}{match[2] or ''})"

    return LINK.sub(led, markdown)


def resolved(link, page):
    """The place of a link in the repository, by the page of docs/ it stands on."""
    return os.path.normpath(PurePosixPath("docs") / PurePosixPath(page).parent / link).replace(os.sep, "/")


def shown(target, files):
    """Whether a file is one of the site as it is."""
    file = files.get_file_from_path(target.removeprefix("docs/")) if target.startswith("docs/") else None
    return file is not None and file.inclusion.is_included()
