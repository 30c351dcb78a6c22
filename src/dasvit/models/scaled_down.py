"""Networks for images of 32 pixels that two cores can train: rows of the paper's Table I, and CNNs people would take.

Importing this module registers them with timm, as `vgg16_small`. Each keeps what makes its family (blocks, proportions
of depth and width): the rows of Table I at about 30 to 75 million multiply-adds an image, `resnet18_small`,
`convnext_atto_small` and `mobilenetv4_small` below the 48.3 million of the study's ViT. The CNNs leave out their first
halving of the image, or the first two, which would leave nothing of 32 pixels (VGG has none to spare and needs none);
the transformers cut it into patches of four, and start from the cells' initialisation (`docs/lab-notes.md`), as the
baseline `vit` does.

The ViT of this scale is the baseline `vit`, of the cells' own width and depth.
"""

import copy
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from timm.models import build_model_with_cfg, generate_default_cfgs, register_model
from timm.models._efficientnet_builder import decode_arch_def, round_channels
from timm.models.cait import Cait
from timm.models.convnext import ConvNeXt
from timm.models.efficientnet import EfficientNet
from timm.models.mobilenetv3 import MobileNetV3
from timm.models.regnet import RegNet, RegNetCfg
from timm.models.resnet import BasicBlock, Bottleneck, ResNet
from timm.models.tnt import TNT
from timm.models.vgg import VGG
from torch import nn

from dasvit.cell.ops import init_weights
from dasvit.models.autoformer import AutoFormer


@dataclass(frozen=True)
class Shrunk:
    """A shrunken network.

    Attributes:
        build: Its class.
        args: What the class is called with.
        finish: What is changed in it then, without touching its weights.
    """

    build: Callable[..., nn.Module]
    args: dict[str, Any]
    finish: Callable[[nn.Module], None] = field(default=lambda model: None)


class _ConvNeXt(ConvNeXt):
    """A ConvNeXt whose first stage does not halve: behind a stem of stride 2 timm's does."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.stages.get_submodule("0").downsample = nn.Identity()


def _full_resolution(stem: str) -> Callable[[nn.Module], None]:
    """Return what sets the stride of a stem's convolution to 1."""

    def change(model: nn.Module) -> None:
        convolution = model.get_submodule(stem)
        assert isinstance(convolution, nn.Conv2d)
        convolution.stride = (1, 1)

    return change


def _without_pool(model: nn.Module) -> None:
    model.maxpool = nn.Identity()


def _vgg(repeats: tuple[int, ...]) -> Shrunk:
    channels: list[Any] = []
    for width, count in zip((24, 48, 96, 192, 192), repeats, strict=True):
        channels += [width] * count + ["M"]
    # Without the norms its loss stays at ln 10 under a learning rate at which everything else trains.
    return Shrunk(VGG, {"cfg": channels, "mlp_ratio": 0.0625, "norm_layer": nn.BatchNorm2d})


def _resnet(layers: tuple[int, ...], width: int) -> Shrunk:
    channels = tuple(width * 2**stage for stage in range(4))
    return Shrunk(ResNet, {"block": Bottleneck, "layers": layers, "channels": channels}, _without_pool)


def _resnet18(width: int) -> Shrunk:
    channels = tuple(width * 2**stage for stage in range(4))
    args = {"block": BasicBlock, "layers": (2, 2, 2, 2), "channels": channels}

    def change(model: nn.Module) -> None:
        _full_resolution("conv1.0")(model)
        _without_pool(model)

    # Three convolutions of 3 × 3 (ResNet-C) in place of one of 7 × 7, which would cost a fifth of the network here.
    return Shrunk(ResNet, {**args, "stem_type": "deep", "stem_width": width // 2}, change)


def _convnext(width: int) -> Shrunk:
    dims = tuple(width * 2**stage for stage in range(4))
    return Shrunk(_ConvNeXt, {"depths": (2, 2, 6, 2), "dims": dims, "patch_size": 2})


def _mobilenetv4(width: float) -> Shrunk:
    # MobileNetV4-Conv-S (Qin et al. 2024, arXiv:2404.10518), its first two halvings left out.
    stages = [
        ["cn_r1_k3_s1_e1_c32", "cn_r1_k1_s1_e1_c32"],
        ["cn_r1_k3_s2_e1_c96", "cn_r1_k1_s1_e1_c64"],
        ["uir_r1_a5_k5_s2_e3_c96", "uir_r4_a0_k3_s1_e2_c96", "uir_r1_a3_k0_s1_e4_c96"],
        [
            *("uir_r1_a3_k3_s2_e6_c128", "uir_r1_a5_k5_s1_e4_c128", "uir_r1_a0_k5_s1_e4_c128"),
            *("uir_r1_a0_k5_s1_e3_c128", "uir_r2_a0_k3_s1_e4_c128"),
        ],
        ["cn_r1_k1_s1_c960"],
    ]
    args = {
        "block_args": decode_arch_def(stages),
        "stem_size": 32,
        "num_features": 1280,
        "head_bias": False,
        "head_norm": True,
        "round_chs_fn": partial(round_channels, multiplier=width),
        "act_layer": nn.ReLU,
    }
    return Shrunk(MobileNetV3, args, _full_resolution("conv_stem"))


def _regnet(**args: Any) -> Shrunk:
    return Shrunk(RegNet, {"cfg": RegNetCfg(se_ratio=0.25, **args)}, _full_resolution("stem.conv"))


def _efficientnet(width: float, depth: float) -> Shrunk:
    stages = [
        ["ds_r1_k3_s1_e1_c16_se0.25"],
        ["ir_r2_k3_s2_e6_c24_se0.25"],
        ["ir_r2_k5_s2_e6_c40_se0.25"],
        ["ir_r3_k3_s2_e6_c80_se0.25"],
        ["ir_r3_k5_s1_e6_c112_se0.25"],
        ["ir_r4_k5_s2_e6_c192_se0.25"],
        ["ir_r1_k3_s1_e6_c320_se0.25"],
    ]
    channels = partial(round_channels, multiplier=width)
    args = {
        "block_args": decode_arch_def(stages, depth),
        "num_features": channels(1280),
        "round_chs_fn": channels,
        "act_layer": nn.SiLU,
    }
    return Shrunk(EfficientNet, args, _full_resolution("conv_stem"))


def _transformer(build: Callable[..., nn.Module], **args: Any) -> Shrunk:
    return Shrunk(build, {"img_size": 32, "patch_size": 4, **args})


CONTROLS = {
    "resnet18": _resnet18(18),
    "convnext_atto": _convnext(40),
    "mobilenetv4": _mobilenetv4(0.85),
}
"""CNNs within the cost of the study's ViT, which no row of Table I is."""

SMALL = {
    "vgg16": _vgg((2, 2, 3, 3, 3)),
    "vgg19": _vgg((2, 2, 4, 4, 4)),
    "resnet50": _resnet((3, 4, 6, 3), 24),
    "resnet152": _resnet((3, 8, 36, 3), 16),
    "efficientnet_b7": _efficientnet(0.8, 1.24),
    "regnety_120": _regnet(depth=19, w0=32, wa=14.67, wm=2.37, group_size=16),
    "regnety_160": _regnet(depth=18, w0=40, wa=21.25, wm=2.48, group_size=16),
    "tnt_b": _transformer(
        TNT, embed_dim=96, inner_dim=12, depth=6, num_heads_inner=2, num_heads_outer=6, first_stride=1
    ),
    "cait_s36": _transformer(Cait, embed_dim=72, depth=12, num_heads=4, init_values=0.1),
    "autoformer_b": _transformer(
        AutoFormer, embed_dim=96, head_dim=10, heads=(9, 9, 9, 10, 9, 10), ratios=(3.5, 4, 3.5, 3, 4, 3.5)
    ),
    **CONTROLS,
}
"""Networks by the stem of their name; `_small` comes behind it."""

TRANSFORMERS = (TNT, Cait, AutoFormer)

default_cfgs = generate_default_cfgs(
    {
        f"{name}_small": {
            "num_classes": 1000,
            "input_size": (3, 32, 32),
            "fixed_input_size": shrunk.build in TRANSFORMERS,
            "interpolation": "bicubic",
        }
        for name, shrunk in SMALL.items()
    }
)


def _entrypoint(name: str) -> Callable[..., nn.Module]:
    """Return the function that timm calls to build a shrunken network; its name is what is registered."""
    shrunk = SMALL[name]

    def build(pretrained: bool = False, **kwargs: Any) -> nn.Module:
        args = copy.deepcopy(shrunk.args) | kwargs  # timm takes some of them apart
        model: nn.Module = build_model_with_cfg(shrunk.build, f"{name}_small", pretrained, **args)
        shrunk.finish(model)
        if shrunk.build in TRANSFORMERS and not pretrained:
            model.apply(init_weights)
        return model

    build.__name__ = build.__qualname__ = f"{name}_small"
    build.__doc__ = f"Build {name}, shrunk."
    return build


for _name in SMALL:
    register_model(_entrypoint(_name))
