"""`dasvit data`: how a folder of images is understood, and what is in it."""

from __future__ import annotations

from dataclasses import asdict, replace
from pathlib import Path

from dasvit.commands.common import print_json
from dasvit.commands.options import DataOptions
from dasvit.config import Config, DataConfig
from dasvit.config.implied import with_implied_name
from dasvit.data.inspection import inspect_data
from dasvit.data.thumbnail import views_of
from dasvit.errors import printable
from dasvit.io.files import write_whole
from dasvit.report.data_page import write_data_page


def data_command(options: DataOptions, config: Config) -> None:
    """`dasvit data`: one screen, or all of it as JSON."""
    plain = asdict(DataConfig())
    given = {"data.path"} | {f"data.{name}" for name, value in asdict(config.data).items() if value != plain[name]}
    data = with_implied_name(replace(config.data, path=options.folder), given)
    found = inspect_data(data, config.runtime.seed)
    size = config.model.image_size
    lines = found.lines(size)
    if options.report:
        samples = [views_of(*sample, found.view, size) for sample in found.samples]
        write_data_page(Path(options.report), options.folder, lines, samples, found.alike)
    if options.held_out:
        names = "".join(f"{printable(name)}\n" for name in found.held_out)
        write_whole(Path(options.held_out), names.encode())
    if options.json:
        print_json(found.to_dict(size))
        return
    for line in lines:
        print(printable(line))
    if options.report:
        print(f"page: {options.report}")
