"""AutoFormer-B: known figures, and relative positions against loops."""

from pathlib import Path

import pytest
import timm
import torch

from dasvit.config import ModelConfig
from dasvit.errors import UserError
from dasvit.models.autoformer import HEADS, RATIOS, AutoFormer, RelativeAttention, relative_index
from dasvit.models.baselines import make_model
from dasvit.models.cost import cost_of, make_on_meta
from dasvit.models.folder import load_model, save_model

SIZES = ModelConfig(image_size=224)


def tiny(**kwargs: object) -> AutoFormer:
    torch.manual_seed(0)
    sizes = {"img_size": 16, "patch_size": 4, "embed_dim": 12, "head_dim": 4, "heads": (2, 3), "ratios": (3, 3.5)}
    return AutoFormer(**{**sizes, "num_classes": 5, **kwargs})  # type: ignore[arg-type]


def images() -> torch.Tensor:
    return torch.randn(2, 3, 16, 16, generator=torch.Generator().manual_seed(1))


def test_published_figures() -> None:
    ten, thousand = cost_of("autoformer_b", SIZES, 10), cost_of("autoformer_b", SIZES, 1000)
    assert round(ten.params / 1e6, 3) == 53.120
    assert round(thousand.params / 1e6, 3) == 53.692
    assert round(ten.macs / 1e9, 2) == 11.69


def test_what_the_paper_counts_of_it() -> None:
    """52.5M: the blocks, norm and head alone."""
    parameters = dict(make_on_meta("autoformer_b", SIZES, 10).named_parameters())
    counts = {"without positions": 0, "without embedding": 0}
    for name, parameter in parameters.items():
        counts["without positions"] += parameter.numel() * ("_positions." not in name)
        counts["without embedding"] += parameter.numel() * (not name.startswith("embed."))
    assert round(counts["without positions"] / 1e6, 3) == 53.013
    assert counts["without embedding"] / 1e6 == pytest.approx(52.5, abs=0.1)


def test_layers_are_those_of_the_published_subnet() -> None:
    assert [len(HEADS), len(RATIOS), sum(HEADS), sum(RATIOS)] == [14, 14, 130, 50]
    model = make_on_meta("autoformer_b", SIZES, 10)
    for block, heads, ratio in zip(model.get_submodule("blocks").children(), HEADS, RATIOS, strict=True):
        shapes = {name: tuple(parameter.shape) for name, parameter in block.named_parameters()}
        assert shapes["attn.qkv.weight"] == (3 * 64 * heads, 576) and shapes["attn.proj.weight"] == (576, 64 * heads)
        assert shapes["mlp.fc1.weight"] == (int(576 * ratio), 576)
        assert shapes["attn.key_positions.vertical"] == shapes["attn.value_positions.horizontal"] == (30, 64)


def entry(query: int, key: int, columns: int, reach: int) -> tuple[int, int]:
    """The two table entries between two tokens, told step by step."""
    if query == 0 or key == 0:
        return 0, 0
    (row, column), (other_row, other_column) = divmod(query - 1, columns), divmod(key - 1, columns)
    down = max(-reach, min(reach, other_row - row))
    right = max(-reach, min(reach, other_column - column))
    return down + reach + 1, right + reach + 1


@pytest.mark.parametrize(("rows", "columns", "reach"), [(4, 4, 2), (2, 5, 14), (14, 14, 14)])
def test_which_entry_stands_between_two_tokens(rows: int, columns: int, reach: int) -> None:
    vertical, horizontal = relative_index(rows, columns, reach)
    tokens = rows * columns + 1
    for query in range(tokens):
        for key in range(0, tokens, 1 if tokens < 20 else 7):
            expected = entry(query, key, columns, reach)
            assert (int(vertical[query, key]), int(horizontal[query, key])) == expected


def test_attention_against_loops() -> None:
    torch.manual_seed(0)
    dim, heads, width, reach, grid = 6, 2, 5, 1, (2, 3)
    attention = RelativeAttention(dim, heads, width, reach).double()
    for table in (*attention.key_positions.parameters(), *attention.value_positions.parameters()):
        torch.nn.init.normal_(table)  # as large as everything else
    x = torch.randn(2, 7, dim, dtype=torch.float64)
    qkv = attention.qkv(x).reshape(2, 7, 3, heads, width)

    def between(positions: torch.nn.Module, query: int, key: int) -> torch.Tensor:
        down, right = entry(query, key, grid[1], reach)
        vector: torch.Tensor = positions.vertical[down] + positions.horizontal[right]  # type: ignore[index]
        return vector

    expected = torch.empty(2, 7, heads, width, dtype=torch.float64)
    for image in range(2):
        for head in range(heads):
            q, k, v = (qkv[image, :, part, head] for part in range(3))
            for query in range(7):
                scores = [q[query] @ (k[key] + between(attention.key_positions, query, key)) for key in range(7)]
                weights = (torch.stack(scores) / width**0.5).softmax(dim=0)
                values = [v[key] + between(attention.value_positions, query, key) for key in range(7)]
                expected[image, query, head] = weights @ torch.stack(values)
    output = attention(x, *relative_index(*grid, reach))
    torch.testing.assert_close(output, attention.proj(expected.flatten(2)))


def test_what_the_head_reads() -> None:
    model = tiny().eval()
    features = model.forward_features(images())
    assert features.shape == (2, 17, 12)
    torch.testing.assert_close(model(images()), model.head(features[:, 1:].mean(dim=1)))
    hidden = model.forward_head(features, pre_logits=True)
    model.reset_classifier(0)
    torch.testing.assert_close(model(images()), hidden)
    model.reset_classifier(3)
    assert model(images()).shape == (2, 3) and model.get_classifier() is model.head


def test_backward_reaches_every_parameter() -> None:
    model = tiny(drop_path_rate=0.1).train()
    model(images()).square().mean().backward()
    assert [name for name, parameter in model.named_parameters() if parameter.grad is None] == []
    spared = model.no_weight_decay()
    assert spared == {name for name, _ in model.named_parameters() if "token" in name or "pos" in name}


def test_grad_checkpointing_changes_nothing() -> None:
    plain, checkpointed = tiny(), tiny()
    checkpointed.set_grad_checkpointing()
    for model in (plain, checkpointed):
        model.train()(images()).square().mean().backward()
    for one, other in zip(plain.parameters(), checkpointed.parameters(), strict=True):
        torch.testing.assert_close(one.grad, other.grad)


def test_it_comes_back_from_a_folder(tmp_path: Path) -> None:
    config = ModelConfig(image_size=32, patch_size=4)
    model = make_model("autoformer_b_small", config, 3).eval()
    names = ["a", "b", "c"]
    save_model(model, tmp_path, class_names=names, input_size=(3, 32, 32), mean=[0.5] * 3, std=[0.5] * 3)
    loaded = load_model(tmp_path).eval()
    image = torch.randn(1, 3, 32, 32)
    torch.testing.assert_close(loaded(image), model(image))


def test_one_ratio_a_layer() -> None:
    with pytest.raises(UserError, match="give one of each a layer"):
        tiny(heads=(2, 2, 2))


def test_timm_knows_it() -> None:
    assert {"autoformer_b", "autoformer_b_small"} <= set(timm.list_models("autoformer*"))
