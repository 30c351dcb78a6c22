"""A latency table: what every operation of a space takes in a network of given sizes, measured once a machine.

Operations are not timed alone, where their weights and tokens would lie in the caches as they never do in a network.
Whole networks of a few layers are timed in turns, and the table is what explains their times best: the time of a
network is that of its skeleton (embedding, norm, head), and for every layer that of the layer by itself and of each
operation on a live edge. An operation's time holds the addition to its node, for a cell adds as many tensors as it has
live edges, less one. All of it is then scaled to what a few networks of the recipe's depth take: deep networks' weights
lie in slower caches.
"""

from __future__ import annotations

import functools
import hashlib
import json
import logging
import math
import random
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from scipy.optimize import nnls

from dasvit.cell.cost import network_cost
from dasvit.cell.genotype import Genotype, parse_operation
from dasvit.cell.graph import live_edges
from dasvit.cell.space import Space
from dasvit.config import Config, ModelConfig
from dasvit.config.validation import has_sizes
from dasvit.data.sources import cache_folder
from dasvit.errors import UserError
from dasvit.io.files import write_whole
from dasvit.io.run_folder import RunFolder
from dasvit.latency.measure import Machine, in_turns, inference, this_machine
from dasvit.models.baselines import make_network
from dasvit.runtime.progress import Reporter

FORMAT = "dasvit-latency/1"
SIZES = ("image_size", "patch_size", "width", "layers")
"""Fields of the section model that a table is for."""
FORMS = {"stem": "patch", "pool": "token"}
"""Further ones, which a table names where they are not these."""
OWN = "latency.json"
"""The table of a run in its folder."""
OWN_TABLES = "latency"
"""The folder of a run's tables, where sizes are searched: one for each."""
DEPTHS = (1, 3)
"""Layers of the networks that the sums are fitted to: two depths tell the skeleton and a layer apart."""
WHOLE = 4
"""Networks of the recipe's depth, which the sums are scaled to."""
ALIVE = 2**30
"""Bytes of weights of the networks that are timed in turns; more networks are timed group by group."""
log = logging.getLogger("dasvit")


@dataclass(frozen=True)
class LatencyTable:
    """What the parts of a network take in an inference.

    Attributes:
        machine: Where it was measured.
        sizes: The networks' image_size, patch_size, width and layers; stem and pool, where they are not the usual ones.
        skeleton: Seconds of all but the layers.
        layer: Seconds of a layer beside its operations.
        operations: Seconds of every operation by name, in one layer.
        error: Median relative error of the sums for the networks of that depth that were measured.
    """

    machine: Machine
    sizes: Mapping[str, int | str]
    skeleton: float
    layer: float
    operations: Mapping[str, float]
    error: float

    def predict(self, cell: Genotype, layers: int) -> float:
        """Return what an inference of a cell's network of so many layers takes, in seconds."""
        operations = sum(self.operations[cell.ops[index]] for index in live_edges(cell))
        return self.skeleton + layers * (self.layer + operations)

    def to_json(self) -> str:
        """Return the text of a table's file."""
        return json.dumps({"format": FORMAT, **asdict(self)}, indent=2, ensure_ascii=False) + "\n"


def read_table(path: Path) -> LatencyTable:
    """Read a table's file, strictly.

    Raises:
        UserError: It is not there, or is no latency table.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"cannot read the latency table {path}: {getattr(error, 'strerror', error)}.") from None
    return _parsed(text, str(path))


@functools.lru_cache
def _parsed(text: str, where: str) -> LatencyTable:
    wrong = UserError(f"{where} is no latency table of this version: `dasvit latency --out FILE` writes one.")
    try:
        content = json.loads(text)
        if content.pop("format") != FORMAT:
            raise wrong
        table = LatencyTable(**{**content, "machine": Machine(**content["machine"])})
        times = [table.skeleton, table.layer, table.error, *table.operations.values()]
        sides = [table.sizes[name] for name in SIZES]
        numbers: list[Any] = [*times, *sides, table.machine.threads, table.machine.batch]
        if not table.sizes.keys() <= {*SIZES, *FORMS}:
            raise wrong
        for name in table.operations:
            parse_operation(name)
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
        raise wrong from None
    is_time = all(isinstance(value, (int, float)) and math.isfinite(value) and value >= 0 for value in numbers)
    if not is_time or not all(isinstance(value, int) and value >= 1 for value in numbers[len(times) :]):
        raise wrong
    return table


Stack = tuple[Genotype, int]
"""A cell and how many layers of it."""
Timed = dict[tuple[str, Stack], float]
"""Seconds of networks by what else they are (`_form`) and by their stack."""


def find_table(
    config: Config, classes: int, reporter: Reporter | None = None, timed: Timed | None = None
) -> LatencyTable:
    """Return the latency table of a recipe: the one that it names, or this machine's, which is measured once.

    Args:
        config: The recipe.
        classes: Classes that the head is measured with; it takes so little that a table serves any number.
        reporter: Where is said that a table is measured. None: nowhere.
        timed: Networks that were timed for other tables just now; those timed here are added. None: none were.

    Raises:
        UserError: The table that the recipe names is of other operations or sizes, or runs otherwise.
    """
    how = config.search.latency
    if how.table and Path(how.table).is_dir():
        return _of_folder(Path(how.table), config, classes, reporter or Reporter(quiet=True), timed)
    if how.table:
        table = read_table(Path(how.table))
        check_table(table, config)
        return table
    path = cached_at(config)
    if path in _HELD:
        return _HELD[path]
    if path.is_file():
        try:
            return read_table(path)
        except UserError as error:
            log.warning("%s It is measured anew.", error)
    return renew_table(config, classes, reporter or Reporter(quiet=True), timed)


def _of_folder(folder: Path, config: Config, classes: int, reporter: Reporter, timed: Timed | None) -> LatencyTable:
    """Return the table of a recipe's sizes from a folder of tables; to a run's own this machine's are added.

    Raises:
        UserError: It lacks one, and its tables are another machine's.
    """
    own = folder / file_name(sizes_of(config.model))
    paths = [own] if own.is_file() else sorted(folder.glob("*.json"))
    tables = [read_table(path) for path in paths]
    for table in tables:
        if _serves(table, config):
            return table
    machines = {str(table.machine): table.machine for table in tables}
    if any(machine != this_machine(config.search.latency) for machine in machines.values()):
        wanted = own.name.removesuffix(".json")
        raise UserError(
            f"no latency table in {folder} is of {wanted}, and they are of another machine ({next(iter(machines))}): "
            "measure one there with `dasvit latency --config RECIPE --out FILE` and put it beside the others, or list "
            "in space the sizes alone that have one."
        )
    table = find_table(with_table(config, ""), classes, reporter, timed)
    if folder.name == OWN_TABLES and (folder.parent / "config.yaml").is_file():  # a recipe's choice is only read
        write_whole(own, table.to_json().encode())
    return table


def _serves(table: LatencyTable, config: Config) -> bool:
    """Tell whether a table is of a recipe's sizes and has its operations."""
    operations = Space.from_config(config.space).operations
    return table.sizes == sizes_of(config.model) and set(operations) <= table.operations.keys()


def file_name(sizes: Mapping[str, int | str]) -> str:
    """Return the name of the file of a table of such sizes in a folder, as image64-patch4-width96-layers6-conv.json."""
    parts = [name.removesuffix("_size") * (name in SIZES) + str(value) for name, value in sizes.items()]
    return "-".join(parts) + ".json"


_HELD: dict[Path, LatencyTable] = {}
"""Tables that this process has measured, by where they are cached."""


def cached_at(config: Config) -> Path:
    """Return the file of this machine's own table, which need not be there yet.

    Its name depends on the processor, its threads, the runtime, the batch, the packages' versions, and on sizes and
    operations.
    """
    machine, space = asdict(this_machine(config.search.latency)), Space.from_config(config.space)
    facts = json.dumps([FORMAT, machine, sizes_of(config.model), space.operations], sort_keys=True)
    return cache_folder(config.data) / "latency" / f"{hashlib.sha256(facts.encode()).hexdigest()[:24]}.json"


def renew_table(config: Config, classes: int, reporter: Reporter, timed: Timed | None = None) -> LatencyTable:
    """Measure this machine's table, and put it into the cache (see `find_table`)."""
    path, table = cached_at(config), measure_table(config, classes, reporter, timed)
    _HELD[path] = table
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_whole(path, table.to_json().encode())
    except OSError as error:
        log.warning("cannot write the latency table %s (%s): it is kept in memory", path, error.strerror)
    return table


def sizes_of(model: ModelConfig) -> dict[str, int | str]:
    """Return the sizes that a table is for."""
    forms = {name: getattr(model, name) for name, usual in FORMS.items() if getattr(model, name) != usual}
    return {name: getattr(model, name) for name in SIZES} | forms


def own_table(config: Config, classes: int, run: RunFolder, reporter: Reporter) -> Config:
    """Return the recipe of a run with the run's own latency table: what is found once is what it goes on with.

    Args:
        config: The recipe.
        classes: Classes of the data.
        run: The run's folder, where the table is kept.
        reporter: Where is said whose table it is.

    Raises:
        UserError: As `find_table` does.
    """
    if not config.search.derive.max_latency:
        return config
    if has_sizes(config.space):
        return _own_tables(config, run)
    path = run.path / OWN
    if not path.is_file():
        run.write_text(OWN, find_table(config, classes, reporter).to_json())
    config = with_table(config, path)
    reporter.say(f"latency: by the table of {find_table(config, classes).machine}")
    return config


def _own_tables(config: Config, run: RunFolder) -> Config:
    """Return the recipe of a run over sizes with the run's own folder of tables, those that were given in it."""
    folder, given = run.path / OWN_TABLES, config.search.latency.table
    if not folder.is_dir():
        paths = (sorted(Path(given).glob("*.json")) if Path(given).is_dir() else [Path(given)]) if given else []
        texts = {file_name((table := read_table(path)).sizes): table.to_json() for path in paths}
        folder.mkdir(parents=True)
        for name, text in texts.items():
            run.write_text(f"{OWN_TABLES}/{name}", text)
    return with_table(config, folder)


def past_table(config: Config, run: Path, given: str = "") -> Config:
    """Return the recipe of a past run with the table that a derivation goes by.

    The one that is given; else the run's own, if it was given one or is this machine's; else this machine's.
    """
    own = run / OWN
    if given:
        return with_table(config, given)
    how = config.search.latency
    if (run / OWN_TABLES).is_dir():
        tables = [read_table(path) for path in sorted((run / OWN_TABLES).glob("*.json"))]
        is_ours = all(table.machine == this_machine(how) for table in tables)
        return with_table(config, run / OWN_TABLES) if how.table or is_ours else config
    if own.is_file() and (how.table or read_table(own).machine == this_machine(how)):
        return with_table(config, own)
    return config


def with_table(config: Config, path: str | Path) -> Config:
    """Return a recipe that names a latency table."""
    return replace(config, search=replace(config.search, latency=replace(config.search.latency, table=str(path))))


def check_table(table: LatencyTable, config: Config) -> None:
    """Check that a table is of a recipe's sizes and has its operations.

    Raises:
        UserError: It is not; the text has the way out.
    """
    path, way_out = config.search.latency.table, "measure one with `dasvit latency --config RECIPE --out FILE` there."
    wanted, found = {**FORMS, **sizes_of(config.model)}, {**FORMS, **table.sizes}
    others = [f"{name} {found[name]}, not {size}" for name, size in wanted.items() if found[name] != size]
    if others:
        raise UserError(f"the latency table {path} is of networks with {' and '.join(others)}: {way_out}")
    missing = [op for op in Space.from_config(config.space).operations if op not in table.operations]
    if missing:
        raise UserError(f"the latency table {path} lacks {', '.join(missing)}, which space has: {way_out}")


def measure_table(config: Config, classes: int, reporter: Reporter, timed: Timed | None = None) -> LatencyTable:
    """Measure the latency table of a recipe on this machine.

    Tables of networks that differ in depth or in what the head reads have most of their networks in common.

    Args:
        config: The recipe: its sizes, its space, and where networks run (`search.latency`).
        classes: Classes of the head.
        reporter: Where progress goes.
        timed: Networks that were timed for other tables just now; those timed here are added. None: none were.

    Raises:
        UserError: The runtime or the device is not there, or a network cannot be exported.
    """
    how, space = config.search.latency, Space.from_config(config.space)
    machine, stacks = this_machine(how), sample(space, config.model.layers)
    model, form, timed = config.model, _form(config.model), {} if timed is None else timed
    missing = [stack for stack in dict.fromkeys(stacks) if (form, stack) not in timed]
    if missing:
        sizes = f"width {model.width}, {model.layers} layers, patches of {model.patch_size}, stem {model.stem}"
        reporter.say(f"latency: {len(missing)} networks of {sizes} are measured once, on {machine}")
    for group in _groups(missing, model, classes):
        runs = [inference(make_network(cell, own, classes), own.image_size, how) for cell, own in group]
        latencies = in_turns(runs, machine)
        timed |= {(form, (cell, own.layers)): one.median for (cell, own), one in zip(group, latencies, strict=True)}
    times = [timed[form, stack] for stack in stacks]
    return fit_table(stacks, times, space.operations, machine, sizes_of(model))


def _form(model: ModelConfig) -> str:
    """Return what tells networks of one stack apart in latency: all sizes but the depth, and not what the head reads.

    To read the patches' mean in place of the class token takes microseconds.
    """
    return json.dumps({name: size for name, size in sizes_of(model).items() if name not in ("layers", "pool")})


def sample(space: Space, layers: int) -> list[Stack]:
    """Return the networks that a table is fitted to: each operation on every other edge, and about as many drawn.

    The last ones drawn have so many layers, the others DEPTHS.
    """
    names = [op for op in space.operations if op != "zero"]
    if space.plain:
        plain = [Genotype.from_ops(space.nodes, ["zero", op]) for op in names]
        return [(cell, depth) for depth in (*DEPTHS, layers, *DEPTHS) for cell in plain]
    edges, chance = range(len(space.edges)), random.Random(0)
    alone = [[op if edge % 2 == 0 else "identity" for edge in edges] for op in names]
    drawn = [[chance.choice((*names, "zero")) for _ in edges] for _ in range(len(names) + 3 + WHOLE)]
    cells = [Genotype.from_ops(space.nodes, ops) for ops in (*alone, *drawn)]
    stacks = [(cell, DEPTHS[place % 2]) for place, cell in enumerate(cells[:-WHOLE])]
    stacks += [(cell, layers) for cell in cells[-WHOLE:]]
    chance.shuffle(stacks)
    return stacks


def _groups(stacks: Sequence[Stack], model: ModelConfig, classes: int) -> Iterator[list[tuple[Genotype, ModelConfig]]]:
    """Yield cells and the sizes of their networks in groups whose weights are about ALIVE bytes at most."""
    group, size = list[tuple[Genotype, ModelConfig]](), 0
    for cell, layers in stacks:
        own = replace(model, layers=layers)
        weights = 4 * network_cost(cell, own, classes).params
        if group and size + weights > ALIVE:
            yield group
            group, size = [], 0
        group, size = [*group, (cell, own)], size + weights
    if group:
        yield group


def fit_table(
    stacks: Sequence[Stack],
    times: Sequence[float],
    operations: Sequence[str],
    machine: Machine,
    sizes: Mapping[str, int | str],
) -> LatencyTable:
    """Return the table that explains the times of networks best.

    min over x >= 0 of Σ_c (x_skeleton + L_c (x_layer + Σ_o n_co x_o) - t_c)² / t_c², where n_co live edges of the cell
    c hold o (least squares with no time below 0: Lawson and Hanson, 1974), over networks of DEPTHS; times the median of
    t_c over these sums for networks of the recipe's depth.

    Args:
        stacks: The networks' cells and layers L_c.
        times: What an inference of each takes, t_c, in seconds.
        operations: The space's.
        machine: Where it was measured.
        sizes: The networks' sizes.
    """
    names = [op for op in operations if op != "zero"]
    rows = [
        [1, layers, *(layers * [cell.ops[i] for i in live_edges(cell)].count(op) for op in names)]
        for cell, layers in stacks
    ]
    depths = np.array([layers for _, layers in stacks])
    shares = np.array(rows) / np.array(times)[:, None]
    shallow, whole = shares[np.isin(depths, DEPTHS)], shares[depths == sizes["layers"]]
    found, _ = nnls(shallow, np.ones(len(shallow)))
    found *= np.median(1 / (whole @ found))
    skeleton, layer, *parts = found.tolist()
    error = float(np.median(np.abs(whole @ found - 1)))
    return LatencyTable(machine, sizes, skeleton, layer, {"zero": 0.0, **dict(zip(names, parts, strict=True))}, error)
