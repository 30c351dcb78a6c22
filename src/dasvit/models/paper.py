"""Table I of the DASViT paper: its networks under our names, and the paper's own figures for them."""

from dataclasses import dataclass


@dataclass(frozen=True)
class PaperRow:
    """A row of the table.

    Attributes:
        label: The paper's name of the network.
        name: Ours: a cell's, or a model's that timm knows.
        small: The name of the network that two cores can train (`dasvit compare --scale small`).
        design: Manual or Auto, as the paper has it.
        classes: Classes of the head that the paper counted parameters with: 100 for the CNNs, 10 for the transformers.
        params: The paper's parameters, in millions.
        flops: The paper's FLOPs, in G; `dasvit.models.paper_flops` says what they are.
        source: Where the network comes from.
        accuracy: Data set -> (top-1, top-5) in percent.
    """

    label: str
    name: str
    small: str
    design: str
    classes: int
    params: float
    flops: float
    source: str
    accuracy: dict[str, tuple[float, float]]


DATASETS = ("cifar10", "cifar100", "imagenet100")
"""The data sets of the table, as `data.name` calls them."""


def _accuracy(*percent: float) -> dict[str, tuple[float, float]]:
    return dict(zip(DATASETS, zip(percent[::2], percent[1::2], strict=True), strict=True))


_DASVIT = _accuracy(80.1, 98.4, 54.4, 78.5, 46.8, 72.3)

PAPER = (
    PaperRow(
        "VGG-16", "vgg16", "vgg16_small", "Manual", 100, 134.7, 15.5, "arXiv:1409.1556",
        _accuracy(72.5, 97.1, 37.0, 61.5, 32.0, 55.7),
    ),
    PaperRow(
        "VGG-19", "vgg19", "vgg19_small", "Manual", 100, 140.0, 19.7, "arXiv:1409.1556",
        _accuracy(73.1, 97.3, 37.2, 62.0, 30.3, 54.3),
    ),
    PaperRow(
        "ResNet-50", "resnet50", "resnet50_small", "Manual", 100, 23.7, 4.1, "arXiv:1512.03385",
        _accuracy(81.5, 98.7, 52.4, 80.7, 59.8, 83.2),
    ),
    PaperRow(
        "ResNet-152", "resnet152", "resnet152_small", "Manual", 100, 58.4, 11.6, "arXiv:1512.03385",
        _accuracy(80.2, 98.6, 53.3, 80.7, 57.8, 82.9),
    ),
    PaperRow(
        "EfficientNet-B7", "efficientnet_b7", "efficientnet_b7_small", "Auto", 100, 64.0, 5.2, "arXiv:1905.11946",
        _accuracy(84.4, 98.8, 56.7, 81.9, 53.4, 77.6),
    ),
    PaperRow(
        "RegNetY-12GF", "regnety_120", "regnety_120_small", "Auto", 100, 49.8, 12.1, "arXiv:2003.13678",
        _accuracy(82.3, 99.0, 54.4, 81.8, 57.9, 82.7),
    ),
    PaperRow(
        "RegNetY-16GF", "regnety_160", "regnety_160_small", "Auto", 100, 80.7, 15.9, "arXiv:2003.13678",
        _accuracy(82.6, 98.8, 54.4, 81.6, 58.7, 83.2),
    ),
    PaperRow(
        "ViT-B/16", "vit_base_patch16_224", "vit", "Manual", 10, 85.8, 12.0, "arXiv:2010.11929",
        _accuracy(78.8, 97.9, 45.7, 72.0, 39.7, 66.1),
    ),
    PaperRow(
        "TNT-B", "tnt_b_patch16_224", "tnt_b_small", "Manual", 10, 64.8, 13.5, "arXiv:2103.00112",
        _accuracy(76.1, 94.2, 48.0, 75.1, 45.6, 68.6),
    ),
    PaperRow(
        "CaiT-S36", "cait_s36_384", "cait_s36_small", "Manual", 10, 67.9, 12.9, "arXiv:2103.17239",
        _accuracy(78.6, 97.5, 46.6, 72.7, 39.3, 64.6),
    ),
    PaperRow(
        "AutoFormer-B", "autoformer_b", "autoformer_b_small", "Auto", 10, 52.5, 11.6, "arXiv:2107.00651",
        _accuracy(79.2, 97.8, 47.1, 73.4, 41.2, 66.9),
    ),
    PaperRow(
        "DASViT (CIFAR-10 cell)", "dasvit_cifar10", "dasvit_cifar10", "Auto", 10, 50.4, 9.9, "the paper",
        {name: _DASVIT[name] for name in ("cifar10", "cifar100")},
    ),
    PaperRow(
        "DASViT (ImageNet-100 cell)", "dasvit_imagenet100", "dasvit_imagenet100", "Auto", 10, 50.4, 9.9, "the paper",
        {"imagenet100": _DASVIT["imagenet100"]},
    ),
)  # fmt: skip
"""The paper's thirteen networks; the two cells share one row there, whose columns are split between them here."""
