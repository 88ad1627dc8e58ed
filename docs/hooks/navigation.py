"""Patterns in the navigation of mkdocs.yml stand for the pages that they find, so that a new page needs no line there."""

from pathlib import Path


def on_config(config):
    config.nav = list(expanded(config.nav, Path(config.docs_dir), set(named(config.nav))))
    return config


def named(items):
    """The pages that have a line of their own."""
    for item in items:
        below = next(iter(item.values())) if isinstance(item, dict) else item
        yield from named(below) if isinstance(below, list) else [below]


def expanded(items, folder, elsewhere):
    """The items with each pattern replaced by the pages that are not named elsewhere; sections without a page are left out."""
    for item in items:
        if isinstance(item, dict):
            ((title, below),) = item.items()
            below = list(expanded(below, folder, elsewhere)) if isinstance(below, list) else below
            if below:
                yield {title: below}
        elif "*" in item:
            found = (path.relative_to(folder).as_posix() for path in folder.glob(item))
            yield from sorted(set(found) - elsewhere, key=lambda page: (not page.endswith("index.md"), page))
        else:
            yield item
