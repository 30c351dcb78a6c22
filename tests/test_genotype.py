import copy
import json
from pathlib import Path
from typing import Any

import pytest

from dasvit.cell.genotype import (
    PUBLISHED,
    Genotype,
    edge_list,
    is_viable,
    load_genotype,
    parse_operation,
)
from dasvit.errors import UserError

CELL = PUBLISHED["dasvit_cifar10"]


@pytest.mark.parametrize(("nodes", "edges"), [(1, 2), (2, 5), (3, 9), (4, 14)])
def test_number_of_edges(nodes: int, edges: int) -> None:
    assert len(edge_list(nodes)) == edges


def test_published_cells_are_those_of_section_11() -> None:
    assert {(e.source, e.target): e.op for e in CELL.edges} == {
        ("prev1", "x1"): "mlp_0.5",
        ("prev2", "x1"): "mlp_0.5",
        ("prev2", "x2"): "zero",
        ("prev1", "x2"): "mlp_0.5",
        ("x1", "x2"): "msa_8",
    }
    assert PUBLISHED["dasvit_imagenet100"].ops[-1] == "msa_12"


def test_json_round_trip_and_format() -> None:
    content = json.loads(CELL.to_json())
    assert content["format"] == "dasvit-genotype/1"
    assert content["nodes"] == 2
    assert content["edges"][0] == {"source": "prev2", "target": "x1", "op": "mlp_0.5"}
    assert Genotype.from_json(CELL.to_json()) == CELL


def test_order_of_edges_in_a_file_does_not_matter() -> None:
    content = CELL.to_dict()
    content["edges"].reverse()
    assert Genotype.from_dict(content) == CELL


def change(**edits: Any) -> dict[str, Any]:
    content = copy.deepcopy(CELL.to_dict())
    content.update(edits)
    return content


def without_edge() -> dict[str, Any]:
    return change(edges=CELL.to_dict()["edges"][1:])


def with_edge(**edge: str) -> dict[str, Any]:
    return change(edges=[*CELL.to_dict()["edges"][1:], edge])


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ([], "JSON object"),
        (change(format="dasvit-genotype/3"), "this version reads"),
        (change(extra=1), "keys format, nodes and edges"),
        (change(nodes=0), "1 to 16 nodes"),
        (change(nodes=True), "1 to 16 nodes"),
        (change(nodes="2"), "1 to 16 nodes"),
        (change(nodes=3), "missing"),
        (change(edges={}), "list"),
        (change(edges=[1]), "keys source, target and op"),
        (without_edge(), "prev2→x1 is missing"),
        (with_edge(source="x2", target="x1", op="zero"), "backward"),
        (with_edge(source="prev1", target="x1", op="zero"), "twice"),
        (with_edge(source="prev2", target="x1", op="fold_3"), "unknown operation"),
        (with_edge(source="prev2", target="x1", op="msa_08"), "unknown operation"),
        (with_edge(source="prev2", target="x1", op="msa_0"), "unknown operation"),
        (with_edge(source="prev2", target="x1", op="msa_2.5"), "whole"),
    ],
)
def test_wrong_genotypes_are_refused_in_words(content: Any, words: str) -> None:
    with pytest.raises(UserError, match=words):
        Genotype.from_dict(content)


def test_text_that_is_no_json() -> None:
    with pytest.raises(UserError, match="must be JSON"):
        Genotype.from_json("{")


def test_operation_names() -> None:
    assert parse_operation("mlp_0.5").number == 0.5
    assert parse_operation("msa_12").name == "msa_12"


@pytest.mark.parametrize(
    ("ops", "viable"),
    [
        (["zero", "msa_2", "zero", "zero", "zero"], True),
        (["zero", "identity", "zero", "zero", "msa_2"], True),
        (["identity", "mlp_1", "mlp_1", "zero", "mlp_2"], False),
        # x1 sees nothing, so the attention behind it does not either
        (["zero", "zero", "mlp_1", "zero", "msa_2"], False),
        (["zero", "zero", "zero", "zero", "zero"], False),
    ],
)
def test_viable(ops: list[str], viable: bool) -> None:
    assert is_viable(Genotype.from_ops(2, ops)) is viable


def test_drawing_names_every_operation_and_node() -> None:
    text = str(CELL)
    assert text.count("mlp_0.5") == 3
    assert "msa_8" in text and "x1" in text and "x1 + x2" in text


def test_loading_by_name_file_and_run_folder(tmp_path: Path) -> None:
    (tmp_path / "genotype.json").write_text(CELL.to_json())
    assert load_genotype("dasvit_cifar10") == CELL
    assert load_genotype(tmp_path) == CELL
    assert load_genotype(tmp_path / "genotype.json") == CELL


def test_loading_what_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="Did you mean 'dasvit_cifar10'"):
        load_genotype("dasvit_cifar")
    with pytest.raises(UserError, match="there is no file"):
        load_genotype(tmp_path / "x.json")
    with pytest.raises(UserError, match="holds no genotype"):
        load_genotype(tmp_path)
    (tmp_path / "x.json").write_text("[]")
    with pytest.raises(UserError, match=r"x\.json.*JSON object"):
        load_genotype(tmp_path / "x.json")
