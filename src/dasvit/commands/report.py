"""`dasvit report`: run folders as a page, and as figures for a paper."""

from __future__ import annotations

import json
from pathlib import Path

from dasvit.commands.options import ReportOptions
from dasvit.errors import UserError
from dasvit.report.folders import runs_of, write_pages


def report_command(options: ReportOptions) -> None:
    folders = [Path(run) for run in options.runs]
    out = Path(options.out) if options.out else None
    if out and out.is_dir():
        raise UserError(f"--out is the page's file, and {out} is a folder: give {out / 'report.html'}, say.")
    page = write_pages(folders, out)
    figures: list[Path] = []
    if options.figures:
        from dasvit.report.run.figures import write_figures

        figures = write_figures(runs_of(folders), page.parent / "figures")
    if options.json:
        print(json.dumps({"report": str(page), "figures": [str(path) for path in figures]}, ensure_ascii=False))
        return
    print(f"{page}: open it in a browser.")
    for path in figures:
        print(path)
