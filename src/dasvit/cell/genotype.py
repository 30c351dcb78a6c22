"""The genotype: a cell as data, strict to read, with no torch in sight.

A cell is a directed acyclic graph. `prev2` and `prev1` are the outputs of the two layers before;
`x1 … xn` are its own nodes; every earlier node has an edge into every later one of its own, and the
cell's output is the sum of its own nodes (method, section 2; eq. 10 to 12).
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from dasvit.cell.sizes import Sizes
from dasvit.config import ModelConfig
from dasvit.config.limits import MAX_NODES
from dasvit.errors import UserError, unknown

FORMAT = "dasvit-genotype/1"
"""A cell alone: its network has the recipe's sizes."""
SIZED = "dasvit-genotype/2"
"""A cell and the sizes of its network."""
INPUTS = ("prev2", "prev1")
SKIPS = ("identity",)
"""Operations without parameters that pass their input on: the skips of eq. 16."""
_OPERATION = re.compile(r"(?P<kind>[a-z][a-z0-9]*)_(?P<number>\d+(\.\d+)?)")


@dataclass(frozen=True)
class Kind:
    """What is known of a kind of operation before any is built.

    Attributes:
        number: What the number behind its name means, in capitals.
        whole: Whether the number must be whole.
        attends: Whether every token sees all others through it: a cell without such an operation is not viable.
    """

    number: str
    whole: bool = False
    attends: bool = False


NUMBERED = {
    "msa": Kind("HEADS", whole=True, attends=True),
    "mlp": Kind("RATIO"),
    "shift": Kind("RATIO"),
    "conv": Kind("RATIO"),
}
"""Kinds of operation with a number behind their name; `dasvit.cell.ops.register_operation` adds others."""
OURS = ("zero", "identity", *NUMBERED)
"""The kinds of this package that a space names by fields of their own."""
BLOCK = "vit"
"""The kind that is a whole layer of a ViT: `space.cell` and `space.extra` name it, as vit_4."""
NUMBERED[BLOCK] = Kind("HEADS", whole=True, attends=True)


def edge_list(nodes: int) -> list[tuple[str, str]]:
    """Return every (source, target) of a cell with that many own nodes, in the order of computation.

    n = 2 gives 5 edges, n = 3 gives 9, n = 4 gives 14.
    """
    names = [*INPUTS, *(f"x{i + 1}" for i in range(nodes))]
    return [(source, names[i]) for i in range(2, len(names)) for source in names[:i]]


@dataclass(frozen=True)
class Operation:
    """An operation's name, taken apart.

    Attributes:
        kind: zero, identity, msa, mlp or a registered kind.
        number: Heads of an msa, hidden width over D of an mlp; 0 of zero and identity.
    """

    kind: str
    number: float = 0.0

    @property
    def name(self) -> str:
        """The name it is written with, as msa_4 or mlp_0.5."""
        return self.kind if self.kind in ("zero", "identity") else f"{self.kind}_{self.number:g}"


def parse_operation(name: str) -> Operation:
    """Take an operation's name apart.

    Raises:
        UserError: The name is none of zero, identity, msa_HEADS, mlp_RATIO and those of registered kinds.
    """
    if name in ("zero", "identity"):
        return Operation(name)
    match = _OPERATION.fullmatch(name) if isinstance(name, str) else None
    operation = Operation(match["kind"], float(match["number"])) if match and match["kind"] in NUMBERED else None
    if operation is None or operation.name != name or operation.number == 0:
        raise unknown(
            "operation", name, ["zero", "identity", *(f"{name}_{kind.number}" for name, kind in NUMBERED.items())]
        )
    kind = NUMBERED[operation.kind]
    if kind.whole and operation.number != int(operation.number):
        raise UserError(f"operation {name!r}: the number of {kind.number.lower()} must be whole.")
    return operation


def attends(operation: str) -> bool:
    """Tell whether every token sees all others through the operation of that name, as in attention."""
    kind = NUMBERED.get(operation.partition("_")[0])
    return kind is not None and kind.attends


@dataclass(frozen=True)
class Edge:
    """One edge of a genotype and the operation it chose."""

    source: str
    target: str
    op: str


@dataclass(frozen=True)
class Genotype:
    """A discrete cell: every edge of the graph once, in the order of `edge_list`.

    Attributes:
        nodes: The cell's own nodes.
        edges: Its edges.
        sizes: Those of its network. None: the recipe's.
    """

    nodes: int
    edges: tuple[Edge, ...]
    sizes: Sizes | None = None

    def __post_init__(self) -> None:
        """Check that the edges are exactly those of the graph, each with a known operation."""
        if isinstance(self.nodes, bool) or not isinstance(self.nodes, int) or not 1 <= self.nodes <= MAX_NODES:
            raise UserError(f"a cell has 1 to {MAX_NODES} nodes of its own, not {self.nodes!r}.")
        wanted = edge_list(self.nodes)
        found = [(edge.source, edge.target) for edge in self.edges]
        for pair in found:
            if pair not in wanted:
                raise UserError(
                    f"the edge {pair[0]}→{pair[1]} is not in a cell of {self.nodes} nodes (or runs backward)."
                )
            if found.count(pair) > 1:
                raise UserError(f"the edge {pair[0]}→{pair[1]} is there twice.")
        for pair in wanted:
            if pair not in found:
                raise UserError(f"the edge {pair[0]}→{pair[1]} is missing: write its operation, or zero.")
        for edge in self.edges:
            parse_operation(edge.op)
        ordered = tuple(sorted(self.edges, key=lambda edge: wanted.index((edge.source, edge.target))))
        object.__setattr__(self, "edges", ordered)

    @classmethod
    def from_ops(cls, nodes: int, ops: list[str] | tuple[str, ...]) -> Genotype:
        """Build a genotype from its operations in the order of `edge_list(nodes)`."""
        pairs = edge_list(nodes)
        assert len(pairs) == len(ops), f"{len(ops)} operations for {len(pairs)} edges"
        return cls(nodes, tuple(Edge(s, t, op) for (s, t), op in zip(pairs, ops, strict=True)))

    @property
    def ops(self) -> tuple[str, ...]:
        """The operations in the order of `edge_list`."""
        return tuple(edge.op for edge in self.edges)

    @property
    def alone(self) -> Genotype:
        """The cell without its sizes."""
        return self.sized(None)

    def sized(self, sizes: Sizes | None) -> Genotype:
        """Return the same cell with other sizes, or with none."""
        return self if sizes == self.sizes else replace(self, sizes=sizes)

    def at(self, model: ModelConfig) -> ModelConfig:
        """Return a recipe's section model with the sizes that the cell's network has: its own, or the recipe's."""
        return self.sizes.within(model) if self.sizes else model

    def to_dict(self) -> dict[str, Any]:
        """Return the dictionary that `genotype.json` holds."""
        edges = [{"source": e.source, "target": e.target, "op": e.op} for e in self.edges]
        if self.sizes:
            return {"format": SIZED, "sizes": self.sizes.to_dict(), "nodes": self.nodes, "edges": edges}
        return {"format": FORMAT, "nodes": self.nodes, "edges": edges}

    def to_json(self) -> str:
        """Return the text of `genotype.json`, an edge a line."""
        content = self.to_dict()
        edges = ",\n".join("    " + json.dumps(edge) for edge in content.pop("edges"))
        rest = "".join(f"  {json.dumps(name)}: {json.dumps(value)},\n" for name, value in content.items())
        return f'{{\n{rest}  "edges": [\n{edges}\n  ]\n}}\n'

    @classmethod
    def from_dict(cls, content: Any) -> Genotype:
        """Read what `to_dict` wrote, strictly.

        Raises:
            UserError: Another format, unknown or missing keys, or edges that are not a cell's.
        """
        if not isinstance(content, dict):
            raise UserError(f"a genotype is a JSON object, not a {type(content).__name__}.")
        kind = content.get("format")
        if kind not in (FORMAT, SIZED):
            raise UserError(f"genotype of format {kind!r}: this version reads {FORMAT!r} and {SIZED!r}.")
        if kind == FORMAT and set(content) != {"format", "nodes", "edges"}:
            raise UserError(f"a genotype has the keys format, nodes and edges, not {', '.join(map(str, content))}.")
        if kind == SIZED and set(content) != {"format", "sizes", "nodes", "edges"}:
            raise UserError(
                f"a sized genotype has the keys format, sizes, nodes and edges, not {', '.join(map(str, content))}."
            )
        if not isinstance(content["edges"], list):
            raise UserError("a genotype's edges are a list of objects.")
        edges = []
        for entry in content["edges"]:
            if not isinstance(entry, dict) or set(entry) != {"source", "target", "op"}:
                raise UserError(f"an edge has the keys source, target and op, but this one reads {entry!r}.")
            if not all(isinstance(value, str) for value in entry.values()):
                raise UserError(f"an edge's source, target and op are strings, but this one reads {entry!r}.")
            edges.append(Edge(**entry))
        return cls(content["nodes"], tuple(edges), Sizes.from_dict(content["sizes"]) if kind == SIZED else None)

    @classmethod
    def from_json(cls, text: str) -> Genotype:
        """Read the text of a `genotype.json`; raises UserError as `from_dict` does."""
        try:
            content = json.loads(text)
        except (ValueError, RecursionError) as error:
            raise UserError(f"a genotype must be JSON: {error}") from None
        return cls.from_dict(content)

    def __str__(self) -> str:
        """Draw the cell as text, a node a block."""
        width = max(len(edge.op) for edge in self.edges)
        lines = []
        for target in dict.fromkeys(edge.target for edge in self.edges):
            edges = [edge for edge in self.edges if edge.target == target and edge.op != "zero"]
            for i, edge in enumerate(edges):
                joint = "─" if len(edges) == 1 else "┬" if i == 0 else "┘" if i == len(edges) - 1 else "┤"
                arrow = f"──▶ {target}" if i == 0 else ""
                lines.append(f"  {edge.source:>5} ──{edge.op:─^{width + 2}}──{joint}{arrow}")
            if not edges:
                lines.append(f"  {'':>5}   {'(nothing)':^{width + 2}}      {target}")
        total = " + ".join(dict.fromkeys(edge.target for edge in self.edges))
        sizes = [f"  {self.sizes}"] if self.sizes else []
        return "\n".join([*lines, f"  output = {total}", *sizes])


def is_viable(genotype: Genotype) -> bool:
    """Tell whether some path from an input to the output holds an attention (section 9).

    Without one the class token never sees the image. Such a path also makes the output depend on the input.
    """
    seen: dict[str, int] = {name: 1 for name in INPUTS}  # 1: depends on the input; 2: through an attention
    for edge in genotype.edges:
        state = 0 if edge.op == "zero" else seen.get(edge.source, 0)
        if state and attends(edge.op):
            state = 2
        seen[edge.target] = max(seen.get(edge.target, 0), state)
    return any(seen[f"x{i + 1}"] == 2 for i in range(genotype.nodes))


PUBLISHED = {
    f"dasvit_{dataset}": Genotype.from_ops(2, ["mlp_0.5", "mlp_0.5", "zero", "mlp_0.5", f"msa_{heads}"])
    for dataset, heads in {"cifar10": 8, "imagenet100": 12}.items()
}
"""The paper's cells (section 11), found on CIFAR-10 and ImageNet-100."""
FOUND = {"dasvit_shift": Genotype.from_ops(2, ["mlp_0.5", "shift_2", "msa_4", "mlp_1", "zero"])}
"""Cells that this package's own searches found (docs/results.md)."""
NAMED = {**PUBLISHED, **FOUND}
"""All cells with a name."""


def load_genotype(name: str | Path) -> Genotype:
    """Return a cell by name, from a JSON file, or from a run folder that holds a `genotype.json`.

    Raises:
        UserError: There is no such cell, or its file is not a genotype (the message names the file).
    """
    if str(name) in NAMED:
        return NAMED[str(name)]
    path = Path(name)
    if path.is_dir():
        if not (path / "genotype.json").exists():
            raise UserError(f"{path} holds no genotype.json: has its search ended? Run `dasvit derive {path}`.")
        path = path / "genotype.json"
    if not path.exists():
        if path.suffix == ".json" or len(path.parts) > 1:
            raise UserError(f"there is no file or run folder {path}.")
        raise unknown("cell", str(name), [*NAMED, "a genotype's JSON file", "a run folder"])
    try:
        return Genotype.from_json(path.read_text(encoding="utf-8"))
    except (UserError, OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: {error}") from None
