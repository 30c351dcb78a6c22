"""What a run looks like: tables for the terminal, pages, drawings and figures. Reads files and numbers, never torch."""

from dasvit.report.run.page import refresh_report, write_report

__all__ = ["refresh_report", "write_report"]
