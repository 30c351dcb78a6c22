"""What a run looks like: tables for the terminal, pages, drawings and figures. Reads files and numbers, never torch."""

from dasvit._callable import make_callable
from dasvit.report.run.page import refresh_report, write_report

__all__ = ["refresh_report", "write_report"]

make_callable(__name__)
