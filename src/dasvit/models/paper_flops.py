"""The FLOPs column of the paper's Table I: what the tool ptflops counts.

Its `pytorch` backend adds up the modules it knows and sees no product of activations with activations, so the attention
products of TNT, CaiT and our cells go uncounted. timm's ViT it treats otherwise: its attention is one module to
ptflops, which counts the products and drops the qkv and projection layers inside: 12.0 G for ViT-B/16, which has 17.6.
So its rows are not comparable with each other; ours (`dasvit.models.cost`) are.
"""

import importlib.util

import torch
from torch import nn

from dasvit.config.validation import ImageSize, size_pair
from dasvit.errors import UserError

WAY_OUT = "pip install 'dasvit[ptflops]' adds the column of FLOPs as the paper counts them."


def has_ptflops() -> bool:
    """Tell whether ptflops is installed."""
    return importlib.util.find_spec("ptflops") is not None


def count_paper_flops(network: nn.Module, image_size: ImageSize) -> int:
    """Count a network on one image as the paper did, in ptflops's unit (a multiply-add is one).

    Counted are modules alone. ptflops would count calls of functions too (activations and poolings: at most 0.04 G of
    the paper's networks), but on the meta device, where nothing is computed and no weights are held, it takes PyTorch's
    own inner calls for the network's.

    Args:
        network: On the meta device (see `dasvit.models.cost.make_on_meta`); set to evaluation.
        image_size: Height and width of the image.

    Raises:
        UserError: ptflops is not installed.
    """
    if not has_ptflops():
        raise UserError(f"ptflops is not installed: {WAY_OUT}")
    from ptflops import get_model_complexity_info

    with torch.no_grad():
        flops, _ = get_model_complexity_info(
            network.eval(),
            (3, *size_pair(image_size)),
            as_strings=False,
            print_per_layer_stat=False,
            backend="pytorch",
            backend_specific_config={"count_functional": False},
        )
    assert isinstance(flops, int), "ptflops ended without a count"
    return flops
