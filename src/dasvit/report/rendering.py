"""From a template and what it is given to one HTML file."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Any

from markupsafe import Markup

from dasvit._version import __version__
from dasvit.errors import UserError
from dasvit.io.files import write_whole
from dasvit.report.drawing import palette
from dasvit.report.markup import markdown, markdown_table

if TYPE_CHECKING:
    from jinja2 import Environment

MARK = '<meta name="generator" content="dasvit'
"""Stands in every page of ours, and in no file of a user's."""


def render(template: str, content: Mapping[str, Any]) -> str:
    """Return a page's text.

    Args:
        template: Its file in `templates/`.
        content: What the template is given; `operations` are those that the page colours.
    """
    operations: Mapping[str, int] = content["operations"]
    themes = {theme: _colours(operations, theme) for theme in palette.THEMES}
    style, script = (Markup(_text(name)) for name in ("style.css", "page.js"))  # files of ours
    more = {"themes": themes, "lines": palette.LINES, "style": style, "script": script, "version": __version__}
    return render_text(template, {**content, **more})


def render_text(template: str, content: Mapping[str, Any]) -> str:
    """Return the text of a template without its last line's end; what HTML acts upon is escaped in HTML alone."""
    return _environment().get_template(template).render(**content)


def _colours(operations: Mapping[str, int], theme: str) -> list[tuple[int, str, str]]:
    """Return the number of every operation's class, its colour, and that of text on it."""
    found = palette.colours(list(operations), theme)
    return [(i, found[name], palette.ink(found[name])) for name, i in operations.items()]


@functools.cache
def _environment() -> Environment:
    from jinja2 import Environment, PackageLoader, StrictUndefined

    environment = Environment(
        loader=PackageLoader("dasvit.report"),
        autoescape=lambda name: name is not None and name.endswith(".html.j2"),
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=StrictUndefined,
    )
    environment.filters |= {"dash": palette.dash, "markdown": markdown, "markdown_table": markdown_table}
    return environment


@functools.cache
def _text(name: str) -> str:
    return (resources.files("dasvit.report") / "templates" / name).read_text(encoding="utf-8")


def write_page(path: Path, text: str) -> None:
    """Write a page at once: readers see the old one or the new one.

    Raises:
        UserError: A file that is no page of ours stands there.
        OSError: It cannot be written.
    """
    if path.exists() and not is_ours(path):
        raise UserError(f"{path} is no page of dasvit's, and is left alone: move it, or give --out another file.")
    write_whole(path, text.encode(errors="replace"))


def is_ours(path: Path) -> bool:
    """Tell whether a file is a page that this package wrote."""
    if not path.is_file():
        return False
    with path.open("rb") as file:
        return MARK.encode() in file.read(2000)
