"""Text and tables as LaTeX and Markdown print them."""

import re
from collections.abc import Iterable, Sequence

from dasvit.errors import printable

Cell = str | Sequence[tuple[str, str]]
"""What stands in a table: a text, or links with their texts."""
_LATEX = str.maketrans(
    {
        **{char: f"\\{char}" for char in "&%$#_{}"},
        "\\": r"\textbackslash{}",
        "~": r"\textasciitilde{}",
        "^": r"\textasciicircum{}",
        "±": r"$\pm$",
        "–": "--",
    }
)


def latex(text: str) -> str:
    """Return text as LaTeX prints it."""
    return text.translate(_LATEX)


def markdown(text: object) -> str:
    """Return a text of others so that Markdown shows it as it stands."""
    return re.sub(r"([\\`*_{}\[\]<>#|!~&$])", r"\\\1", printable(text))


def latex_table(heads: Sequence[str], rows: Iterable[Sequence[str]], align: str) -> str:
    """Return a table as LaTeX, in the manner of the package booktabs; `align` has l or r for every column."""
    head, *body = (" & ".join(map(latex, row)) + r" \\" for row in (heads, *rows))
    lines = [rf"\begin{{tabular}}{{{align}}}", r"\toprule", head, r"\midrule", *body, r"\bottomrule", r"\end{tabular}"]
    return "\n".join(lines) + "\n"


def markdown_table(table: tuple[Sequence[str], Sequence[Sequence[Cell]]], align: str = "") -> str:
    """Return heads and rows as a table in Markdown, with as many columns as there are heads.

    Args:
        table: Heads, and rows of texts or of links.
        align: l or r for every column. Empty: all l.
    """
    heads, rows = table
    rule = ["---:" if side == "r" else "---" for side in align or "l" * len(heads)]
    lines = [heads, rule, *([_cell(cell) for cell in row[: len(heads)]] for row in rows)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _cell(cell: Cell) -> str:
    if isinstance(cell, str):
        return cell.replace("|", "\\|")
    return ", ".join(f"[{text}]({link})" for text, link in cell) or "–"
