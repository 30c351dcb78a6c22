"""The derived network, against a forward pass written out by hand, and its beginnings."""

import json
import math
import random

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from dasvit.cell.genotype import PUBLISHED, Genotype, edge_list, is_viable
from dasvit.cell.graph import live_edges
from dasvit.errors import UserError
from dasvit.models.dasvit import DasViT
from dasvit.models.skeleton import TokenEmbedding

OPS = ["zero", "identity", "msa_2", "msa_4", "mlp_0.5", "mlp_1"]
CIFAR = PUBLISHED["dasvit_cifar10"]


def small(cell: Genotype = CIFAR, **kwargs: object) -> DasViT:
    torch.manual_seed(0)
    args: dict[str, object] = {
        "cell": cell,
        "img_size": 16,
        "patch_size": 4,
        "num_classes": 5,
        "embed_dim": 16,
        "depth": 4,
    }
    return DasViT(**(args | kwargs))  # type: ignore[arg-type]


def random_genotypes(count: int, nodes: int = 2) -> list[Genotype]:
    """Viable cells in which every layer reaches the output: some edge reads prev1."""
    draw, found = random.Random(3), list[Genotype]()
    while len(found) < count:
        cell = Genotype.from_ops(nodes, [draw.choice(OPS) for _ in edge_list(nodes)])
        reads = {cell.edges[i].source for i in live_edges(cell)}
        if is_viable(cell) and "prev1" in reads:
            found.append(cell)
    return found


def by_hand(state: dict[str, Tensor], images: Tensor, heads: int, depth: int) -> Tensor:
    """The published cell's network from the paper's equations, sharing no code with the package."""

    def norm(x: Tensor, name: str) -> Tensor:
        centred = x - x.mean(-1, keepdim=True)
        scaled = centred / (centred.pow(2).mean(-1, keepdim=True) + 1e-6).sqrt()
        return scaled * state[f"{name}.weight"] + state[f"{name}.bias"]

    def linear(x: Tensor, name: str) -> Tensor:
        return x @ state[f"{name}.weight"].T + state[f"{name}.bias"]

    def mlp(x: Tensor, name: str) -> Tensor:
        h = linear(norm(x, f"{name}.norm"), f"{name}.inner")
        return linear(h * 0.5 * (1 + torch.erf(h / math.sqrt(2))), f"{name}.outer")

    def msa(x: Tensor, name: str) -> Tensor:
        q, k, v = linear(norm(x, f"{name}.norm"), f"{name}.inner").chunk(3, dim=-1)
        size = q.shape[-1] // heads
        mixed = []
        for h in range(heads):
            part = slice(h * size, (h + 1) * size)
            weights = (q[..., part] @ k[..., part].transpose(1, 2) / math.sqrt(size)).softmax(-1)
            mixed.append(weights @ v[..., part])
        return linear(torch.cat(mixed, -1), f"{name}.outer")

    kernel = state["embed.patch_embed.proj.weight"]
    side = kernel.shape[-1]
    patches = [
        (images[:, None, :, i : i + side, j : j + side] * kernel).sum((2, 3, 4))
        for i in range(0, images.shape[2], side)
        for j in range(0, images.shape[3], side)
    ]
    tokens = torch.stack(patches, 1) + state["embed.patch_embed.proj.bias"]
    tokens = torch.cat([state["embed.cls_token"].expand(len(images), -1, -1), tokens], 1)
    prev2 = prev1 = tokens + state["embed.pos_embed"]
    for i in range(depth):
        cell = f"blocks.{i}"
        x1 = mlp(prev1, f"{cell}.prev1_x1") + mlp(prev2, f"{cell}.prev2_x1")
        x2 = msa(x1, f"{cell}.x1_x2") + mlp(prev1, f"{cell}.prev1_x2")
        prev2, prev1 = prev1, x1 + x2
    return linear(norm(prev1, "norm")[:, 0], "head")


def test_published_cell_equals_a_forward_pass_by_hand() -> None:
    model = small().double()
    for parameter in model.parameters():
        nn.init.normal_(parameter, std=0.3)
    images = torch.randn(3, 3, 16, 16, dtype=torch.float64)
    expected = by_hand(model.state_dict(), images, heads=8, depth=4)
    torch.testing.assert_close(model(images), expected, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("cell", [*random_genotypes(12), *random_genotypes(4, nodes=3)], ids=lambda c: "/".join(c.ops))
def test_every_parameter_receives_a_gradient(cell: Genotype) -> None:
    model = small(cell)
    model(torch.randn(2, 3, 16, 16)).square().mean().backward()
    without = [name for name, p in model.named_parameters() if p.grad is None]
    assert without == []


def test_an_edge_out_of_a_node_that_nothing_feeds_is_not_built() -> None:
    cell = Genotype.from_ops(2, ["zero", "zero", "identity", "msa_4", "mlp_1"])
    assert live_edges(cell) == [2, 3]
    assert not any("x1_x2" in name for name, _ in small(cell).named_parameters())


def test_a_cell_blind_to_prev1_leaves_every_other_layer_without_gradient() -> None:
    # Its odd and even layers are two networks, of which one reaches the head: known, and why search
    # should prefer cells that read prev1.
    model = small(Genotype.from_ops(2, ["msa_4", "zero", "mlp_1", "zero", "zero"]))
    model(torch.randn(2, 3, 16, 16)).sum().backward()
    trained = {name.split(".")[1] for name, p in model.named_parameters() if "blocks" in name and p.grad is not None}
    assert trained == {"1", "3"}


def test_initialisation_keeps_the_signal_through_twelve_layers() -> None:
    model = small(embed_dim=96, depth=12).eval()
    with torch.no_grad():
        _, layers = model.forward_intermediates(torch.randn(8, 3, 16, 16), output_fmt="NLC")
    spread = [layer.std().item() for layer in layers]
    assert all(0.3 < value < 3 for value in spread), spread
    assert 0.5 < spread[-1] / spread[1] < 2, spread


def test_stochastic_depth_rises_linearly_and_rests_in_evaluation() -> None:
    model = small(depth=3, drop_path_rate=0.5)
    drops = [block.get_submodule("drop_path") for block in model.blocks]
    assert [vars(drop).get("p", 0.0) for drop in drops] == [0.0, 0.25, 0.5]
    images = torch.randn(4, 3, 16, 16)
    assert not torch.equal(model(images), model(images))
    model.eval()
    assert torch.equal(model(images), model(images))


def test_cell_by_name_dictionary_and_file_are_the_same(tmp_path: object) -> None:
    file = f"{tmp_path}/genotype.json"
    with open(file, "w", encoding="utf-8") as stream:
        stream.write(CIFAR.to_json())
    cells = [small(cell=cell).genotype for cell in ("dasvit_cifar10", CIFAR.to_dict(), file)]  # type: ignore[arg-type]
    assert cells == [CIFAR] * 3


def test_model_args_build_the_network_again() -> None:
    model = small(global_pool="avg")
    model.reset_classifier(9)
    args = json.loads(json.dumps(model.model_args))
    again = DasViT(**args)
    again.load_state_dict(model.state_dict())
    images = torch.randn(2, 3, 16, 16)
    assert torch.equal(again(images), model(images))


def test_dynamic_size_agrees_with_set_input_size() -> None:
    fixed, dynamic = small().eval(), small(dynamic_img_size=True).eval()
    dynamic.load_state_dict(fixed.state_dict())
    images = torch.randn(2, 3, 24, 32)
    fixed.set_input_size((24, 32))
    assert fixed.model_args["img_size"] == [24, 32]
    torch.testing.assert_close(fixed(images), dynamic(images))
    maps = dynamic.forward_intermediates(images, indices=1, intermediates_only=True)
    assert maps[0].shape == (2, 16, 6, 8)


def test_set_input_size_changes_the_patches() -> None:
    model = small()
    model.set_input_size(patch_size=8)
    assert model(torch.randn(2, 3, 16, 16)).shape == (2, 5)
    assert model.feature_info[0]["reduction"] == 8


def test_embedding_puts_the_class_token_first() -> None:
    embedding = TokenEmbedding((8, 12), 4, 1, 6)
    nn.init.zeros_(embedding.pos_embed)
    images = torch.randn(2, 1, 8, 12)
    tokens = embedding(images)
    assert tokens.shape == (2, 7, 6)
    torch.testing.assert_close(tokens[:, :1], embedding.cls_token.expand(2, -1, -1))
    projected = F.linear(images[:, :, :4, 4:8].flatten(1), embedding.patch_embed.proj.weight.flatten(1))
    torch.testing.assert_close(tokens[:, 2], projected)


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"img_size": 30}, "choose a patch size"),
        ({"patch_size": 32}, "choose a patch size"),
        ({"embed_dim": 20}, "not divisible by 8"),
        ({"cell": "dasvit_cifar"}, "dasvit_cifar10"),
        ({"global_pool": "max"}, "avg"),
    ],
)
def test_mistakes_are_answered_in_a_sentence(change: dict[str, object], text: str) -> None:
    with pytest.raises(UserError, match=text):
        small(**change)  # type: ignore[arg-type]


def test_a_size_that_patches_do_not_cover_is_refused_later_too() -> None:
    with pytest.raises(UserError, match="choose a patch size"):
        small().set_input_size(18)
