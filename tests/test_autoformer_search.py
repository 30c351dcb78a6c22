"""The method autoformer: entangled weights against copied ones, uniform draws, the evolution, and whole runs."""

import itertools
import json
import random
from collections import Counter
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from scipy.stats import binomtest, chisquare
from torch import Tensor

from dasvit.cell.genotype import PUBLISHED
from dasvit.cell.subnet import FORMAT, Subnet, load_found, subnet_cost
from dasvit.config import AutoFormerConfig, Config, ModelConfig
from dasvit.config import recipe as recipes
from dasvit.config.methods import with_method
from dasvit.errors import UserError
from dasvit.models.autoformer import HEADS, RATIOS
from dasvit.models.cost import cost_of
from dasvit.models.subnet import make_subnet
from dasvit.runtime.progress import Reporter
from dasvit.runtime.saver import Saver
from dasvit.search.autoformer.evolution import Evolution
from dasvit.search.autoformer.loop import fits
from dasvit.search.autoformer.space import SPACES, SubnetSpace
from dasvit.search.autoformer.supernet import EntangledSupernet
from dasvit.search.pipeline import run_search
from helpers import SMALL, call_cli, cut_off, merge, untimed
from helpers import TINY_SEARCH as TINY
from runs import newest, same

SIZES = ModelConfig(image_size=8, patch_size=2)
SPACE = SubnetSpace(widths=(8, 12, 16), depths=(1, 2, 3), heads=(1, 2, 3), ratios=(0.5, 1.0, 1.25), head_width=4)
FEW = {"population": 6, "generations": 2, "parents": 3, "images": 50}
PUBLISHED_B = Subnet(576, 64, HEADS, RATIOS)


@pytest.fixture
def tiny(monkeypatch: pytest.MonkeyPatch) -> None:
    """A space whose networks train in a moment, under the name of the scaled one."""
    monkeypatch.setitem(SPACES, "scaled", SPACE)


def make(**changes: Any) -> Config:
    return with_method(recipes.from_dict(merge(merge(TINY, {"search": {"autoformer": FEW}}), changes)), "autoformer")


def supernet() -> EntangledSupernet:
    torch.manual_seed(0)
    network = EntangledSupernet(SPACE, SIZES, 5, seed=3)
    for parameter in network.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    return network.double()


def images() -> Tensor:
    return torch.randn(3, 3, 8, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(1))


# --- the space ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "widths", "qkv", "ratios", "depths"),
    [
        ("tiny", range(192, 241, 24), range(192, 257, 64), (3.5, 4), (12, 13, 14)),
        ("small", range(320, 449, 64), range(320, 449, 64), (3, 3.5, 4), (12, 13, 14)),
        ("base", range(528, 625, 48), range(512, 641, 64), (3, 3.5, 4), (14, 15, 16)),
    ],
)
def test_spaces_are_the_published_ones(
    name: str, widths: range, qkv: range, ratios: tuple[float, ...], depths: tuple[int, ...]
) -> None:
    space = SPACES[name]
    assert space.widths == tuple(widths) and space.ratios == ratios and space.depths == depths
    assert tuple(heads * space.head_width for heads in space.heads) == tuple(qkv)


def test_the_published_network_is_in_the_base_space_alone() -> None:
    assert [name for name, space in SPACES.items() if PUBLISHED_B in space] == ["base"]
    assert replace(PUBLISHED_B, width=575) not in SPACES["base"]
    assert replace(PUBLISHED_B, heads=(11, *HEADS[1:])) not in SPACES["base"]
    sizes = ModelConfig(image_size=224)
    assert subnet_cost(PUBLISHED_B, sizes, 1000) == cost_of("autoformer_b", sizes, 1000)


def test_the_vit_of_the_study_lies_within_the_scaled_space() -> None:
    """Its 48.3M multiply-adds are a budget that binds, but not the smallest network."""
    space, sizes = SPACES["scaled"], ModelConfig(image_size=32, patch_size=4)
    costs = [subnet_cost(subnet, sizes, 10).macs for subnet in (space.smallest, space.largest)]
    assert costs[0] < 48_290_000 < costs[1] / 2
    assert Subnet(96, 24, (4,) * 6, (4.0,) * 6) in space


def test_cost_in_closed_form_is_what_is_counted() -> None:
    chance = random.Random(0)
    for space, sizes in ((SPACE, SIZES), (SPACES["scaled"], ModelConfig(image_size=32, patch_size=4))):
        for subnet in (space.smallest, space.largest, *(space.draw(chance) for _ in range(4))):
            assert subnet_cost(subnet, sizes, 7) == cost_of(subnet, sizes, 7)


def test_draws_are_uniform() -> None:
    """Of 6000 steps: widths and depths, heads and ratios of a layer that all have, and their pairs."""
    network, counts = supernet(), Counter[tuple[object, ...]]()
    for step in range(6000):
        network.draw(step)
        drawn = network.subnet
        assert drawn in SPACE
        counts[drawn.width, drawn.depth] += 1
        counts[drawn.heads[0], drawn.ratios[0], "first"] += 1
        if drawn.depth == 3:
            counts[drawn.heads[2], drawn.ratios[2], "last"] += 1
    for kind, choices in (("", (SPACE.widths, SPACE.depths)), ("first", (SPACE.heads, SPACE.ratios))):
        pairs = itertools.product(*choices)
        assert chisquare([counts[(*pair, kind) if kind else pair] for pair in pairs]).pvalue > 0.01
    assert chisquare([counts[heads, ratio, "last"] for heads in SPACE.heads for ratio in SPACE.ratios]).pvalue > 0.01
    other = EntangledSupernet(SPACE, SIZES, 5, seed=3)
    other.draw(5999)
    assert other.subnet == network.subnet


# --- the supernet ---------------------------------------------------------------------------------------------------


def copied(network: EntangledSupernet, subnet: Subnet) -> torch.nn.Module:
    """Return a network of a subnet's size whose weights were copied entry by entry, block by block."""
    shared = {name: value.detach() for name, value in network.weights.named_parameters()}
    alone = make_subnet(subnet, SIZES, 5).double()
    width, full = subnet.width, SPACE.heads[-1] * SPACE.head_width
    with torch.no_grad():
        for name, value in alone.named_parameters():
            source = shared[name]
            if name.endswith("qkv.weight") or name.endswith("qkv.bias"):
                own = value.shape[0] // 3
                for part, row in itertools.product(range(3), range(own)):
                    entry = source[part * full + row]
                    value[part * own + row] = entry[:width] if entry.dim() else entry
            elif name.startswith("embed.") and "proj" not in name:
                value[0] = source[0, :, :width]
            else:
                for row in range(value.shape[0]):
                    entry = source[row]
                    value[row] = entry[: value.shape[1]] if entry.dim() else entry
    return alone


@pytest.mark.parametrize(
    "subnet",
    [
        SPACE.smallest,
        SPACE.largest,
        Subnet(12, 4, (2, 1), (1.25, 0.5)),
        Subnet(16, 4, (3, 1, 2), (0.5, 1.0, 1.25)),
        Subnet(8, 4, (1, 3, 3), (1.0, 1.25, 1.0)),
    ],
    ids=lambda subnet: f"{subnet.depth} layers of {subnet.width}",
)
def test_a_subnet_is_the_network_of_its_size_with_copied_weights(subnet: Subnet) -> None:
    network = supernet()
    network.subnet = subnet
    alone = copied(network, subnet)
    shared, own = network(images()), alone(images())
    torch.testing.assert_close(shared, own, rtol=1e-10, atol=1e-10)
    shared.square().sum().backward()
    own.square().sum().backward()
    gradients = {name: parameter.grad for name, parameter in network.weights.named_parameters()}
    for name, parameter in alone.named_parameters():
        gradient = gradients.pop(name)
        assert gradient is not None and parameter.grad is not None
        torch.testing.assert_close(gradient.square().sum(), parameter.grad.square().sum())  # and 0 everywhere else
    assert all(gradient is None for gradient in gradients.values())  # of layers that it does not have


def test_what_weight_decay_spares_are_parameters() -> None:
    network = supernet()
    assert network.no_weight_decay() < {name for name, _ in network.named_parameters()}


# --- the evolution --------------------------------------------------------------------------------------------------


def every_network(space: SubnetSpace) -> Iterable[Subnet]:
    for width, depth in itertools.product(space.widths, space.depths):
        for heads in itertools.product(space.heads, repeat=depth):
            for ratios in itertools.product(space.ratios, repeat=depth):
                yield Subnet(width, space.head_width, heads, ratios)


def evolution(space: SubnetSpace = SPACE, most: int = 0, seed: int = 0, **options: Any) -> Evolution:
    def is_cheap(subnet: Subnet) -> bool:
        return not most or subnet_cost(subnet, SIZES, 10).params <= most

    return Evolution(space, is_cheap, AutoFormerConfig(**options), random.Random(seed))


def test_the_evolution_finds_the_best_network_of_a_space_whose_scores_are_known() -> None:
    """It scores 420 of the networks within the budget, fewer than half of them, each once and no others."""
    smallest, largest = (subnet_cost(subnet, SIZES, 10).params for subnet in (SPACE.smallest, SPACE.largest))
    most = (smallest + 2 * largest) // 3

    def score(subnet: Subnet) -> float:
        scored.append(subnet)
        heads = sum(subnet.heads[::2]) - sum(subnet.heads[1::2])
        return subnet.width + 3.0 * sum(subnet.ratios) + heads

    scored: list[Subnet] = []
    within = [subnet for subnet in every_network(SPACE) if subnet_cost(subnet, SIZES, 10).params <= most]
    best = max(within, key=score)
    unlimited = max(every_network(SPACE), key=score)
    assert unlimited not in within and sum(score(subnet) == score(best) for subnet in within) == 1
    for seed in range(3):
        scored.clear()
        ended: list[int] = []
        search = evolution(most=most, seed=seed, population=20)
        assert search.run(score, ended.append) == best
        assert len(scored) == len(set(scored)) == 21 * 20 < len(within) / 2 and set(scored) <= set(within)
        assert ended == list(range(21))


def test_a_generation_is_half_mutations_and_half_crosses_of_the_best() -> None:
    search = evolution(SPACES["scaled"], population=50, parents=10)
    search.known = {SPACES["scaled"].draw(search.chance): float(place) for place in range(100)}
    parents = search.best(10)
    assert parents == list(search.known)[:-11:-1]
    children = search._next()
    assert len(children) == len(set(children)) == 50 and not set(children) & set(search.known)
    for child in children[25:]:
        alike = [parent for parent in parents if parent.depth == child.depth]
        assert child.width in {parent.width for parent in alike}
        for layer in range(child.depth):
            assert child.heads[layer] in {parent.heads[layer] for parent in alike}
            assert child.ratios[layer] in {parent.ratios[layer] for parent in alike}


def test_mutations_have_their_rates() -> None:
    """A size that is drawn anew stays what it was at times: by one in as many as it may be."""
    space, chance = SPACES["scaled"], random.Random(0)
    before = Subnet(96, 24, (4,) * 6, (2.0,) * 6)
    after = [space.mutate(before, 0.2, 0.4, chance) for _ in range(3000)]
    changed = {
        "depth": (sum(subnet.depth != 6 for subnet in after), 3000, 0.4 * 4 / 5),
        "width": (sum(subnet.width != 96 for subnet in after), 3000, 0.4 * 2 / 3),
        "heads": (sum(n != 4 for subnet in after for n in subnet.heads[:4]), 12000, 0.2 * 2 / 3),
        "ratio": (sum(n != 2.0 for subnet in after for n in subnet.ratios[:4]), 12000, 0.2 * 5 / 6),
    }
    for name, (count, of, rate) in changed.items():
        assert binomtest(count, of, rate).pvalue > 0.01, name
    assert all(subnet in space for subnet in after)


def test_a_space_that_is_used_up_ends_the_evolution_early() -> None:
    one = replace(SPACE, depths=(1,), widths=(8,), ratios=(1.0,))
    search = evolution(one, population=10, generations=3)
    assert search.run(lambda subnet: float(subnet.heads[0]), lambda generation: None).heads == (3,)
    assert len(search.known) == 3
    alone = evolution(SPACES["base"], population=10, generations=0)
    alone.fits = lambda subnet: subnet == SPACES["base"].smallest
    assert alone.run(lambda subnet: 1.0, lambda generation: None) == SPACES["base"].smallest


# --- whole runs -----------------------------------------------------------------------------------------------------


def test_the_budget_of_cells_holds_for_networks_that_have_none_of_their_own(tiny: None) -> None:
    assert make(search={"derive": {"max_macs": 5}}).search.autoformer.max_macs == 5
    own = make(search={"derive": {"max_macs": 5, "max_params": 7}, "autoformer": {"max_macs": 6}})
    assert (own.search.autoformer.max_macs, own.search.autoformer.max_params) == (6, 7)
    cost = subnet_cost(SPACE.smallest, own.model, 10)
    for limit, is_within in ((cost.macs, True), (cost.macs - 1, False)):
        assert fits(SPACE.smallest, make(search={"autoformer": {"max_macs": limit}}), 10) == is_within


def test_a_search_is_that_of_its_parts(tiny: None, tmp_path: Path) -> None:
    """The network is the best of all that were judged, and its score what the supernet of the checkpoint gives it."""
    limit = subnet_cost(replace(SPACE.largest, width=12), SIZES, 10).params
    config = make(search={"autoformer": {"max_params": limit}})
    result = run_search(config, str(tmp_path), Reporter(quiet=True))
    found, content = result.found, json.loads((tmp_path / "derivation.json").read_text())
    assert isinstance(found, Subnet) and load_found(tmp_path) == found == Subnet.from_dict(content["network"])
    assert content == result.to_dict() and content["judged"] == 18
    state = newest(tmp_path)
    judged = {Subnet.from_dict(json.loads(key)): top1 for key, top1 in state["scores"].items()}
    assert len(judged) == 18 and all(subnet_cost(subnet, SIZES, 10).params <= limit for subnet in judged)
    assert judged[found] == max(judged.values()) == content["val_top1"] and len(set(judged.values())) > 3
    lines = [json.loads(line) for line in (tmp_path / "evolution.jsonl").read_text().splitlines()]
    assert [line["judged"] for line in lines] == [6, 12, 18] and lines[-1]["network"] == content["network"]
    epochs = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert [row["epoch"] for row in epochs] == [1, 2, 3, 4]


@pytest.mark.parametrize("moment", ["an epoch's middle", "an epoch's end", "a generation's middle"])
def test_a_search_that_is_cut_off_ends_as_if_it_had_not_been(
    tiny: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, moment: str
) -> None:
    """With checkpoints at every step, and before every network that is judged."""
    monkeypatch.setattr(Saver, "_is_due", lambda self: True)
    config = make()

    def searched(name: str) -> dict[str, Any]:
        return run_search(config, str(tmp_path / name), Reporter(quiet=True)).to_dict()

    def interrupted(network: EntangledSupernet, step: int) -> None:
        draw(network, step)
        if step == 6:  # of four an epoch
            raise KeyboardInterrupt

    whole, draw = searched("whole"), EntangledSupernet.draw
    if moment == "an epoch's middle":
        with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
            patched.setattr(EntangledSupernet, "draw", interrupted)
            searched("cut")
    else:  # data, page, four epochs; a generation's line comes before the last network's score is in a checkpoint
        cut_off(monkeypatch, 4 if moment == "an epoch's end" else 8, lambda: searched("cut"))
    assert not (tmp_path / "cut" / "network.json").exists()
    torch.rand(5)
    assert searched("cut") == whole == searched("cut")
    for file in ("network.json", "derivation.json", "evolution.jsonl"):
        assert (tmp_path / "cut" / file).read_bytes() == (tmp_path / "whole" / file).read_bytes()
    assert untimed(tmp_path / "cut" / "metrics.jsonl") == untimed(tmp_path / "whole" / "metrics.jsonl")
    assert same(newest(tmp_path / "cut"), newest(tmp_path / "whole"))


def test_commands_take_what_was_found_as_they_take_a_cell(tiny: None, tmp_path: Path) -> None:
    run = tmp_path / "found"
    options = (*SMALL, *(f"--search.autoformer.{name}={value}" for name, value in FEW.items()))
    status, out, err = call_cli(
        "search", *options, "--method=autoformer", "--search.autoformer.max-params=3k", f"--run={run}", "--json"
    )
    assert status == 0, err
    found = json.loads(out)
    subnet = load_found(run)
    assert isinstance(subnet, Subnet) and subnet.to_dict() == found["network"] and found["params"] <= 3000
    assert found["macs"] == subnet_cost(subnet, replace(SIZES, image_size=8), 10).macs

    status, out, err = call_cli("train", f"--cell={run}", *SMALL, "--json")
    assert status == 0, err
    trained = json.loads(out)
    assert (trained["params"], trained["macs"]) == (found["params"], found["macs"])
    assert load_found(run / "train") == subnet

    status, out, err = call_cli("cost", run, "--json")
    assert status == 0 and json.loads(out)["macs"] == found["macs"], err
    named = tmp_path / "copy.json"
    named.write_text(subnet.to_json())
    status, out, err = call_cli("compare", run, named, run / "train", "vit", *SMALL, "--cost-only", "--json")
    assert status == 0, err
    rows = json.loads(out)["networks"]
    assert [row["macs"] == found["macs"] for row in rows] == [True, True, True, False]
    assert [row["design"] for row in rows] == ["Auto", "Auto", "Auto", "Manual"]

    status, out, err = call_cli("evaluate", run / "train", "--data.eval_limit=20", "--runtime.device=cpu", "--json")
    assert status == 0 and json.loads(out)["top1"] == trained["top1"], err
    status, out, err = call_cli("train", f"--init={run / 'train'}", *SMALL[:3], *SMALL[-5:], "--json")
    assert status == 0 and json.loads(out)["params"] == found["params"], err
    assert load_found(run / "train" / "finetune") == subnet
    for page in (run / "report.html", run / "train" / "report.html"):
        assert f"{subnet.depth} layers of width {subnet.width}" in page.read_text()

    status, _, err = call_cli("derive", run)
    assert status == 2 and "whose network is found, not derived" in err


def test_a_study_holds_networks_beside_cells(tiny: None, tmp_path: Path) -> None:
    options = (*SMALL, *(f"--search.autoformer.{name}={value}" for name, value in FEW.items()))
    status, _, err = call_cli(
        "study", *options, "--methods=darts,autoformer", "--searches=1", "--trainings=1", "--control=0", "--random=1",
        f"--run={tmp_path}", "--json",
    )  # fmt: skip
    assert status == 0, err
    study = json.loads((tmp_path / "study.json").read_text())
    (search,) = [search for search in study["searches"] if search["variant"] == "autoformer"]
    network = study["cells"][search["cell"]]
    assert load_found(tmp_path / f"cells/{search['cell']}.json") == Subnet.from_dict(network["network"])
    assert network["top1"] is not None and network["genotype"] is None
    assert search["images"] == 60  # two epochs of 30
    page = (tmp_path / "report.html").read_text()
    assert f"layers of width {network['network']['width']}; heads" in page


def test_python_takes_what_was_found(tiny: None, tmp_path: Path) -> None:
    import dasvit

    options: dict[str, Any] = {f"search.autoformer.{name}": value for name, value in FEW.items()}
    options |= {"data.limit": 60, "search.batch_size": 30, "search.stages": {"epochs": [1, 1, 1]}}
    options |= {"search.stages.weight_epochs": [0, 0, 0], "runtime.device": "cpu", "runtime.precision": "float32"}
    found = dasvit.search(recipe="digits", run=tmp_path, method="autoformer", options=options, quiet=True)
    assert isinstance(found.found, Subnet) and found._repr_svg_() is None and "heads" in str(found)
    assert dasvit.cost(found.found, recipe="digits") == dasvit.cost(found) == found.cost
    with pytest.raises(UserError, match="found a network, not a cell"):
        _ = found.cell
    with pytest.raises(UserError, match="found, not derived"):
        found.derive(max_macs="1M")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--search.autoformer.max_params=10",), "the smallest network of the space scaled has"),
        (("--search.autoformer.space=huge",), "search.autoformer.space"),
        (("--search.finals.cells=2",), "ends with one network"),
        (("--search.target-macs=1M",), "moves no alphas"),
        (("--search.autoformer.parents=0",), "search.autoformer.parents must be at least 1"),
    ],
)
def test_mistakes(tiny: None, tmp_path: Path, arguments: tuple[str, ...], words: str) -> None:
    status, _, err = call_cli("search", *SMALL, "--method=autoformer", *arguments, f"--run={tmp_path / 'run'}")
    assert status == 2 and words in err
    assert not (tmp_path / "run").exists()


# --- the file -------------------------------------------------------------------------------------------------------


def test_a_network_is_read_as_it_was_written(tmp_path: Path) -> None:
    for subnet in (PUBLISHED_B, Subnet(12, 4, (2, 1), (1.25, 0.5))):
        (tmp_path / "network.json").write_text(subnet.to_json())
        assert load_found(tmp_path) == load_found(tmp_path / "network.json") == subnet
        assert json.loads(subnet.to_json()) == subnet.to_dict()
    assert load_found("dasvit_cifar10") == PUBLISHED["dasvit_cifar10"]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"format": "dasvit-subnet/2"}, "of the format"),
        ({"depth": 3}, "of depth 3"),
        ({"more": 1}, "has the keys"),
        ({"width": 0}, "width must be a whole number"),
        ({"width": True}, "width must be a whole number"),
        ({"width": 12.0}, "width must be a whole number"),
        ({"heads": [2, 10**9]}, "heads must be a whole number"),
        ({"heads": [2, 30000]}, "are wider than"),
        ({"heads": 2}, "are lists"),
        ({"heads": [2]}, "2 ratios"),
        ({"heads": [], "ratios": [], "depth": 0}, "1 to 1,024 layers"),
        ({"ratios": [1, 65]}, "numbers of up to 64"),
        ({"ratios": [1, "1"]}, "numbers of up to 64"),
        ({"ratios": [1, 0.01]}, "numbers of up to 64"),
        ({"ratios": [1, float("nan")]}, "numbers of up to 64"),
    ],
)
def test_damaged_networks_are_refused_in_a_sentence(tmp_path: Path, change: dict[str, Any], words: str) -> None:
    path = tmp_path / "network.json"
    path.write_text(json.dumps({**Subnet(12, 4, (2, 1), (1.25, 0.5)).to_dict(), **change}))
    with pytest.raises(UserError, match=words) as error:
        load_found(tmp_path)
    assert str(path) in str(error.value) and FORMAT.startswith("dasvit-subnet/")
    path.write_text("{")
    with pytest.raises(UserError, match=r"network\.json"):
        load_found(tmp_path)
