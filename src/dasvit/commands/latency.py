"""`dasvit latency`: what the operations of a space take on this machine, as a table for searches here and elsewhere."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

from rich.console import Console
from rich.table import Table

from dasvit.commands.common import print_json
from dasvit.commands.options import LatencyOptions
from dasvit.config import Config
from dasvit.config.units import time_text
from dasvit.errors import UserError
from dasvit.io.files import write_whole
from dasvit.latency.table import LatencyTable, read_table, renew_table
from dasvit.report.tables import text_table
from dasvit.runtime.progress import Reporter


def latency_command(options: LatencyOptions, config: Config) -> None:
    """`dasvit latency`: measure a table anew, keep it for this machine's searches, and write it."""
    out = Path(options.out) if options.out else None
    if out and out.exists():
        try:
            read_table(out)
        except UserError:
            raise UserError(f"{out} is there already and is no latency table: give --out another name.") from None
    search = replace(config.search, latency=options.where(config.search.latency))
    table = renew_table(replace(config, search=search), options.classes, Reporter())
    if out:
        out.parent.mkdir(parents=True, exist_ok=True)
        write_whole(out, table.to_json().encode())
    if options.json:
        print_json({**json.loads(table.to_json()), **({"out": str(out)} if out else {})})
        return
    Console().print(shown(table))
    print(f"The sums are {100 * table.error:.1f} % off for the networks of that depth (median).")
    if out:
        print(f"{out}: search for this machine elsewhere with dasvit search --latency-table {out} --max-latency TIME")


def shown(table: LatencyTable) -> Table:
    """Return the table for the terminal, in microseconds."""
    sizes = ", ".join(f"{name} {value}" for name, value in table.sizes.items())
    view = text_table(["part"], ["takes"], f"{table.machine}: {sizes}")
    parts = {"skeleton": table.skeleton, "layer": table.layer, **table.operations}
    for name, seconds in parts.items():
        view.add_row(name, time_text(seconds))
    return view
