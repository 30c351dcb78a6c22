"""Text as LaTeX prints it."""

_SPECIAL = str.maketrans(
    {
        **{char: f"\\{char}" for char in "&%$#_{}"},
        "\\": r"\textbackslash{}",
        "~": r"\textasciitilde{}",
        "^": r"\textasciicircum{}",
        "±": r"$\pm$",
        "–": "--",
    }
)


def escape(text: str) -> str:
    """Return text as LaTeX prints it."""
    return text.translate(_SPECIAL)


def table_row(cells: list[str]) -> str:
    """Return a row of a table, its cells escaped."""
    return " & ".join(map(escape, cells)) + r" \\"
