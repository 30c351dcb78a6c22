"""A subnet: a vision transformer as the method autoformer finds it, as data, strict to read, with no torch in sight.

AutoFormer: Searching Transformers for Visual Recognition (Chen, Peng, Fu, Ling; 2021; arXiv:2107.00651).
"""

from __future__ import annotations

import hashlib
import json
import math
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from dasvit.cell.cost import Cost, skeleton_cost, token_count
from dasvit.cell.genotype import Genotype, load_genotype
from dasvit.config import ModelConfig
from dasvit.config.limits import MAX_LAYERS, MAX_RATIO, MAX_WIDTH
from dasvit.errors import UserError

FORMAT = "dasvit-subnet/1"
FILE = "network.json"
"""The file of a run folder that holds a subnet, as `genotype.json` holds a cell."""
KEYS = ("format", "depth", "width", "head_width", "heads", "ratios")
REACH = 14
"""Distance in patches beyond which relative positions are one, AutoFormer's."""


@dataclass(frozen=True)
class Subnet:
    """A vision transformer whose layers differ in heads and MLP; its depth is the number of these.

    Attributes:
        width: Embedding width D.
        head_width: Width d of a head; a layer's queries, keys and values are heads · d wide.
        heads: Attention heads of every layer.
        ratios: Hidden width over D of every layer's MLP.

    Raises:
        UserError: Sizes that no such network has.
    """

    width: int
    head_width: int
    heads: tuple[int, ...]
    ratios: tuple[float, ...]

    def __post_init__(self) -> None:
        """Check the sizes."""
        if len(self.heads) != len(self.ratios) or not 1 <= self.depth <= MAX_LAYERS:
            raise UserError(
                f"a network has 1 to {MAX_LAYERS:,} layers, each with its heads and its ratio, not {len(self.heads)} "
                f"head counts and {len(self.ratios)} ratios."
            )
        for name, number in (
            ("width", self.width),
            ("head_width", self.head_width),
            *(("heads", n) for n in self.heads),
        ):
            if type(number) is not int or not 1 <= number <= MAX_WIDTH:
                raise UserError(f"a network's {name} must be a whole number of 1 to {MAX_WIDTH:,}, not {number!r}.")
        if max(self.heads) * self.head_width > MAX_WIDTH:
            raise UserError(f"{max(self.heads)} heads of {self.head_width} are wider than {MAX_WIDTH:,}.")
        for ratio in self.ratios:
            is_number = type(ratio) in (int, float) and math.isfinite(ratio) and ratio <= MAX_RATIO
            if not is_number or self.width * ratio < 1:
                raise UserError(f"a network's ratios must be numbers of up to {MAX_RATIO:g}, not {ratio!r}.")

    @property
    def depth(self) -> int:
        """Encoder layers."""
        return len(self.heads)

    def to_dict(self) -> dict[str, Any]:
        """Return the dictionary that `network.json` holds."""
        sizes = {"depth": self.depth, "width": self.width, "head_width": self.head_width}
        return {"format": FORMAT, **sizes, "heads": list(self.heads), "ratios": list(self.ratios)}

    def to_json(self) -> str:
        """Return the text of `network.json`, a field a line."""
        fields = ",\n".join(f"  {json.dumps(name)}: {json.dumps(value)}" for name, value in self.to_dict().items())
        return f"{{\n{fields}\n}}\n"

    @classmethod
    def from_dict(cls, content: Any) -> Subnet:
        """Read what `to_dict` wrote, strictly.

        Raises:
            UserError: Another format, unknown or missing keys, or sizes that no such network has.
        """
        if not isinstance(content, dict) or content.get("format") != FORMAT:
            raise UserError(f"a network is a JSON object of the format {FORMAT!r}.")
        if set(content) != set(KEYS):
            raise UserError(f"a network has the keys {', '.join(KEYS)}, not {', '.join(map(str, content))}.")
        if not isinstance(content["heads"], list) or not isinstance(content["ratios"], list):
            raise UserError("a network's heads and ratios are lists, an entry a layer.")
        subnet = cls(content["width"], content["head_width"], tuple(content["heads"]), tuple(content["ratios"]))
        if content["depth"] != subnet.depth:
            raise UserError(f"a network of depth {content['depth']!r} has so many heads, not {subnet.depth}.")
        return subnet

    def __str__(self) -> str:
        """Write the network as text, a layer a line."""
        lines = [f"  {self.depth} layers of width {self.width}, heads of {self.head_width}"]
        layers = enumerate(zip(self.heads, self.ratios, strict=True), start=1)
        return "\n".join([*lines, *(f"  layer {i:>2}: {heads} heads, MLP {ratio:g}" for i, (heads, ratio) in layers)])


Found = Genotype | Subnet
"""What a search finds: a cell, or with the method autoformer a network."""


def subnet_cost(subnet: Subnet, config: ModelConfig, num_classes: int) -> Cost:
    """Return the cost of a subnet in closed form: what `dasvit.models.cost.cost_of` counts, without building it.

    Args:
        subnet: The network.
        config: Image and patch size; width and depth are the subnet's.
        num_classes: Classes of the head.
    """
    tokens, dim, head = token_count(config), subnet.width, subnet.head_width
    total = skeleton_cost(replace(config, width=dim), num_classes)
    for heads, ratio in zip(subnet.heads, subnet.ratios, strict=True):
        inner, hidden = heads * head, int(dim * ratio)
        linear = tokens * (4 * dim * inner + 2 * dim * hidden)
        tables = 4 * (2 * REACH + 2) * head  # rows and columns, for keys and values
        weights = 4 * dim * inner + 3 * inner + dim + 2 * dim * hidden + hidden + dim
        products = 4 * tokens**2 * inner  # scores and mixtures, each of tokens and of relative positions
        total += Cost(4 * dim + weights + tables, linear + products, linear)
    return total


def cell_key(cell: Found) -> str:
    """Return the folder of a cell's, or network's, trainings: the same, found twice, is trained once for each seed."""
    return f"{cell_kind(cell)}-{hashlib.sha256(cell.to_json().encode()).hexdigest()[:10]}"


def cell_kind(cell: Found) -> str:
    """Return what a search found in a word: cell or network."""
    return "network" if isinstance(cell, Subnet) else "cell"


def load_found(name: str | Path) -> Found:
    """Return a cell or network: a cell by name, either from a JSON file or from a run folder that holds one.

    Raises:
        UserError: There is no such cell or network, or its file is damaged (the message names the file).
    """
    path = Path(name)
    path = path / FILE if (path / FILE).is_file() else path
    content = _object(path)
    if path.name != FILE and not str(content.get("format")).startswith("dasvit-subnet/"):
        return load_genotype(name)
    try:
        return Subnet.from_dict(content)
    except UserError as error:
        raise UserError(f"{path}: {error}") from None


def _object(path: Path) -> dict[str, Any]:
    """Return the object of a JSON file, an empty one where there is none."""
    try:
        content = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    except (ValueError, OSError, RecursionError):
        content = {}
    return content if isinstance(content, dict) else {}
