"""What the pages of operations show is taken from where it stands: the text of a function, rows of the tables of times and of errors.

A page asks for it by a line of its own, which on GitHub is a link:

    Source: [`gradient_row`](../../normfast/kernels/layer_norm.py)
    Speed: [layer_norm of 4096x768](../benchmarks.md#all-rows)
    Errors: [layer_norm](errors.md)

What is not found raises, and the build ends.
"""

import ast
import re
from pathlib import Path

ROOT = Path(__file__).parents[2]
LINE = re.compile(r"^(Source|Speed|Errors): \[`?([^]`]+)`?\]\(([^)#]+)(?:#[\w-]+)?\)$", re.MULTILINE)


def on_page_markdown(markdown, page, **_):
    return with_includes(markdown, ROOT / "docs" / page.file.src_uri)


def with_includes(markdown, page):
    """The page's text, with what such lines name below them."""

    def replaced(match):
        kind, name, target = match.groups()
        file = (page.parent / target).resolve()
        found = {"Source": source, "Speed": speed, "Errors": errors}[kind](name, file)
        return f"{match[0]}\n\n{found}"

    return LINE.sub(replaced, markdown)


def source(name, file):
    """A function, or a method as `Class.method`, as a block of code."""
    text = file.read_text(encoding="utf-8")
    scope = ast.parse(text)
    for part in name.split("."):
        found = [node for node in scope.body if isinstance(node, ast.FunctionDef | ast.ClassDef) and node.name == part]
        if not found:
            raise LookupError(f"{file} has no {name}")
        scope = found[0]
    first = min([scope.lineno, *(decorator.lineno for decorator in scope.decorator_list)])
    lines = text.splitlines()[first - 1 : scope.end_lineno]
    return "\n".join(["```python", *(line[scope.col_offset :] for line in lines), "```"])


def speed(name, file):
    """The rows of an operation and a shape, every direction, dtype and number of threads of them; without empty columns."""
    operation, shape = name.split(" of ")
    head, rows = rows_of(file.read_text(encoding="utf-8"), "operation")
    found = [row for row in rows if row[0].split(", ")[0] == operation and row[head.index("shape")] == shape]
    if not found:
        raise LookupError(f"{file} has no row of {operation} with the shape {shape}")
    shown = [i for i, title in enumerate(head) if title not in ("model", "shape") and any(row[i] != "-" for row in found)]
    return markdown_table([head[i] for i in shown], [[row[i] for i in shown] for row in found])


def errors(name, file):
    """The largest error of an operation, over all its cases, for each dtype."""
    rows = []
    for section in re.split(r"^## ", file.read_text(encoding="utf-8"), flags=re.MULTILINE)[1:]:
        dtype, text = section.split("\n", 1)
        head, cases = rows_of(text, "operation")
        columns = list(zip(*(row for row in cases if row[0].split(", ")[0] == name), strict=True))
        if not columns:
            raise LookupError(f"{file} has no row of {name} in {dtype}")
        largest = [max((cell for cell in column if cell != "-"), key=float, default="-") for column in columns[1:]]
        rows.append([dtype, str(len(columns[0])), *largest])
    return markdown_table(["dtype", "cases", *head[1:]], rows)


def rows_of(text, first):
    """Head and rows of the last table whose first column has that name."""
    head, rows = None, []
    for line in text.splitlines():
        cells = [cell.strip() for cell in line.strip("|").split("|")] if line.startswith("|") else None
        if cells and cells[0] == first:
            head, rows = cells, []
        elif cells and head and len(cells) == len(head) and set(cells[0]) - set("- :"):
            rows.append(cells)
    if head is None:
        raise LookupError(f"there is no table whose first column is {first!r}")
    return head, rows


def markdown_table(head, rows):
    return "\n".join(f"| {' | '.join(row)} |" for row in [head, ["---"] * len(head), *rows])
