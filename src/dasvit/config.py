"""Recipes: YAML files plus typed overrides become dataclasses, and go back to a file.

Imports neither torch nor timm, so that `--help` and a typo are answered at once.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from importlib import resources
from pathlib import Path
from typing import Any, Literal

import yaml

from dasvit.errors import UserError, unknown


@dataclass(kw_only=True)
class DataConfig:
    """Where the images come from.

    Attributes:
        name: digits, cifar10, cifar100, fashion_mnist, imagefolder, parquet or imagenet100.
        path: Folder of the data set (or its id on the hub, for parquet). Empty: not needed (digits).
        download: Fetch the data set into path when it is not there yet.
        limit: Use at most this many training images, balanced over the classes by seed. 0: all.
        eval_limit: The same for the test images. 0: all.
        val_fraction: Share of images held out as test set where the source has no test set of its own.
        on_error: What a broken image does: stop the command and name the file, or skip it and count it.
        cache: Folder for decoded images. Empty: $DASVIT_CACHE, or dasvit/ in the user's cache folder.
    """

    name: str = "digits"
    path: str = ""
    download: bool = False
    limit: int = 0
    eval_limit: int = 0
    val_fraction: float = 0.2
    on_error: Literal["stop", "skip"] = "stop"
    cache: str = ""


@dataclass(kw_only=True)
class ModelConfig:
    """The skeleton that the cell is stacked into (method, section 1); the defaults are ViT-B/16's.

    Attributes:
        image_size: Side of the square input image, in pixels.
        patch_size: Side of a patch, in pixels; it divides image_size.
        width: Embedding width D.
        layers: Encoder layers of the derived network.
        heads: Attention heads of the ViT baseline of the same width and depth.
    """

    image_size: int = 224
    patch_size: int = 16
    width: int = 768
    layers: int = 12
    heads: int = 12


@dataclass(kw_only=True)
class SpaceConfig:
    """The cells that can be found (method, sections 2 and 3).

    Attributes:
        nodes: Intermediate nodes of the cell.
        heads: Head counts of the attention operations; each divides the width.
        ratios: Hidden width over D of the MLP operations.
    """

    nodes: int = 2
    heads: list[int] = field(default_factory=lambda: [4, 8, 12])
    ratios: list[float] = field(default_factory=lambda: [0.5, 1.0, 2.0])


@dataclass(kw_only=True)
class AugmentConfig:
    """Augmentation of training images, all of it timm's.

    Attributes:
        crop_padding: Random crop after padding by this many pixels, at the images' own size. 0: none.
        crop_scale: Smallest share of the area in a random resized crop. 1: no resized crop.
        flip: Probability of a horizontal flip.
        randaugment: timm's string for RandAugment, as rand-m9-mstd0.5-inc1. Empty: none.
        color_jitter: Strength of the colour jitter. 0: none.
        erasing: Probability of random erasing.
        mixup: Alpha of mixup. 0: none.
        cutmix: Alpha of cutmix. 0: none.
    """

    crop_padding: int = 0
    crop_scale: float = 1.0
    flip: float = 0.0
    randaugment: str = ""
    color_jitter: float = 0.0
    erasing: float = 0.0
    mixup: float = 0.0
    cutmix: float = 0.0


@dataclass(kw_only=True)
class OptimConfig:
    """AdamW for weights, with a cosine schedule.

    Attributes:
        lr: Peak learning rate.
        min_lr: Learning rate at the end of the cosine.
        weight_decay: Decoupled weight decay; biases, norms, class token and positions are spared.
        warmup_epochs: Epochs of linear warm-up from warmup_lr.
        warmup_lr: Learning rate at the start of the warm-up.
        clip_grad: Largest norm of the gradient. 0: no clipping.
    """

    lr: float = 1e-3
    min_lr: float = 1e-6
    weight_decay: float = 0.05
    warmup_epochs: float = 0.0
    warmup_lr: float = 1e-6
    clip_grad: float = 0.0


@dataclass(kw_only=True)
class AlphaConfig:
    """Adam for the architecture parameters (as in DARTS).

    Attributes:
        lr: Learning rate, constant.
        betas: Adam's two decay rates.
        weight_decay: L2 penalty on alpha.
        init_std: Standard deviation of alpha at the start.
    """

    lr: float = 3e-3
    betas: tuple[float, float] = (0.5, 0.999)
    weight_decay: float = 1e-3
    init_std: float = 1e-3


@dataclass(kw_only=True)
class TokensConfig:
    """Attention-based partial token selection (eq. 13 to 15).

    Attributes:
        ratio: Share rho of the patch tokens that is kept. 1: no selection.
        dim: Width of queries and keys of the score.
    """

    ratio: float = 0.5
    dim: int = 64


@dataclass(kw_only=True)
class FairnessConfig:
    """Operation fairness regularisation (eq. 16 to 19).

    Attributes:
        skip: lambda_1, the weight of the skip term. 0: off.
        types: lambda_2, the weight of the term on operation types. 0: off.
        lower: l, the total weight under which a type is helped.
        upper: u, the total weight over which a type is held back.
        under: lambda_under, the slope below lower.
        over: lambda_over, the slope above upper.
    """

    skip: float = 1.0
    types: float = 1.0
    lower: float = 0.3
    upper: float = 0.5
    under: float = 1.0
    over: float = 1.0


@dataclass(kw_only=True)
class StagesConfig:
    """Progressive stages (section 8): four lists of equal length, an entry a stage.

    Attributes:
        layers: Depth of the supernet.
        keep: Operations kept on every edge, the strongest by weight. 0: all.
        epochs: Epochs of the stage.
        weight_epochs: The first of these epochs, which train weights alone.
        inherit: What a stage takes over from the one before it: nothing, alphas, weights or both.
    """

    layers: list[int] = field(default_factory=lambda: [2, 4, 6])
    keep: list[int] = field(default_factory=lambda: [0, 5, 3])
    epochs: list[int] = field(default_factory=lambda: [30, 30, 30])
    weight_epochs: list[int] = field(default_factory=lambda: [5, 5, 5])
    inherit: Literal["none", "alphas", "weights", "both"] = "none"

    def __iter__(self) -> Iterator[Stage]:
        """Yield the stages in order."""
        columns = zip(self.layers, self.keep, self.epochs, self.weight_epochs, strict=True)
        return (Stage(*column) for column in columns)


@dataclass(frozen=True)
class Stage:
    """One progressive stage: see StagesConfig."""

    layers: int
    keep: int
    epochs: int
    weight_epochs: int


@dataclass(kw_only=True)
class DeriveConfig:
    """How weights become a cell (section 9).

    Attributes:
        rule: darts (the strongest non-zero operation of the edges_per_node strongest edges into each node)
            or strongest (the strongest operation of every edge, zero included).
        edges_per_node: Edges kept into each node, for the rule darts.
        max_params: Budget of parameters of the whole network. 0: none.
        max_macs: Budget of multiply-adds of the whole network for one image. 0: none.
    """

    rule: Literal["darts", "strongest"] = "darts"
    edges_per_node: int = 2
    max_params: int = 0
    max_macs: int = 0


@dataclass(kw_only=True)
class SearchConfig:
    """The bilevel search (section 7) and its parts.

    Attributes:
        method: dasvit, or darts: the same space with none of DASViT's parts (one stage, all tokens,
            no fairness), at the depth of the first stage.
        width: Embedding width of the supernet. 0: the model's.
        batch_size: Images of one weight step, and of one alpha step.
        val_fraction: Share of the training set that alpha is trained on.
        order: 1, or 2 for the unrolled second order of DARTS.
        relaxation: softmax, sigmoid or gumbel_softmax.
        temperature: Temperature of the relaxation at the start.
        final_temperature: Temperature at the end of the search (annealed geometrically).
        smoothing: Label smoothing of the training loss.
    """

    method: str = "dasvit"
    width: int = 0
    batch_size: int = 64
    val_fraction: float = 0.5
    order: Literal[1, 2] = 1
    relaxation: str = "softmax"
    temperature: float = 1.0
    final_temperature: float = 1.0
    smoothing: float = 0.0
    tokens: TokensConfig = field(default_factory=TokensConfig)
    fairness: FairnessConfig = field(default_factory=FairnessConfig)
    stages: StagesConfig = field(default_factory=StagesConfig)
    weights: OptimConfig = field(default_factory=OptimConfig)
    alphas: AlphaConfig = field(default_factory=AlphaConfig)
    augment: AugmentConfig = field(default_factory=AugmentConfig)
    derive: DeriveConfig = field(default_factory=DeriveConfig)


@dataclass(kw_only=True)
class TrainConfig:
    """Training of a fixed network from scratch (section 10).

    Attributes:
        epochs: Epochs.
        batch_size: Images of a step.
        smoothing: Label smoothing.
        drop_path: Rate of stochastic depth at the last layer (rising from 0 at the first).
        ema: Decay of the weights' moving average, which is then what is evaluated. 0: off.
        eval_every: Epochs between two evaluations on the test set; the last epoch always has one.
    """

    epochs: int = 100
    batch_size: int = 128
    smoothing: float = 0.1
    drop_path: float = 0.0
    ema: float = 0.0
    eval_every: int = 1
    optim: OptimConfig = field(default_factory=OptimConfig)
    augment: AugmentConfig = field(default_factory=AugmentConfig)


@dataclass(kw_only=True)
class RuntimeConfig:
    """Where and how the arithmetic is done.

    Attributes:
        seed: Fixes weights, splits, order of images and augmentation.
        device: auto, cpu, cuda, cuda:N or mps.
        precision: float32, bfloat16, or auto: both are timed at the start, the faster one is kept.
        workers: Processes that load images. 0: the main one.
    """

    seed: int = 0
    device: str = "auto"
    precision: Literal["auto", "float32", "bfloat16"] = "auto"
    workers: int = 0


@dataclass(kw_only=True)
class Config:
    """A recipe: everything that a search and a training need to know."""

    data: DataConfig = field(default_factory=DataConfig)
    model: ModelConfig = field(default_factory=ModelConfig)
    space: SpaceConfig = field(default_factory=SpaceConfig)
    search: SearchConfig = field(default_factory=SearchConfig)
    train: TrainConfig = field(default_factory=TrainConfig)
    runtime: RuntimeConfig = field(default_factory=RuntimeConfig)


SECTIONS: dict[str, type] = {
    "data": DataConfig,
    "model": ModelConfig,
    "space": SpaceConfig,
    "search": SearchConfig,
    "train": TrainConfig,
    "runtime": RuntimeConfig,
}


def _dasvit(search: SearchConfig) -> SearchConfig:
    return search


def _plain_darts(search: SearchConfig) -> SearchConfig:
    stages = search.stages
    one = dataclasses.replace(
        stages,
        layers=stages.layers[:1],
        keep=[0],
        epochs=[sum(stages.epochs)],
        weight_epochs=stages.weight_epochs[:1],
    )
    tokens = dataclasses.replace(search.tokens, ratio=1.0)
    fairness = dataclasses.replace(search.fairness, skip=0.0, types=0.0)
    return dataclasses.replace(search, tokens=tokens, fairness=fairness, stages=one)


METHODS = {"dasvit": _dasvit, "darts": _plain_darts}
"""What each search method makes of a recipe's section search."""


def with_method(config: Config, method: str) -> Config:
    """Return the configuration under a search method; doing it twice changes nothing more.

    Raises:
        UserError: Unknown method.
    """
    if method not in METHODS:
        raise unknown("search method", method, METHODS)
    return dataclasses.replace(
        config, search=METHODS[method](dataclasses.replace(config.search, method=method))
    )


def recipe_names() -> list[str]:
    """Return the names of the recipes that come with the package."""
    folder = resources.files("dasvit") / "recipes"
    return sorted(
        entry.name.removesuffix(".yaml") for entry in folder.iterdir() if entry.name.endswith(".yaml")
    )


def read_recipe(name: str) -> dict[str, Any]:
    """Read a recipe by its name, or a YAML file by its path, as a checked nested dictionary.

    Args:
        name: A name of `recipe_names()`, or the path of a YAML file (a run folder's `config.yaml`, say).

    Raises:
        UserError: Unknown recipe, unreadable file, or a field that does not exist.
    """
    if name in recipe_names():
        text = (resources.files("dasvit") / "recipes" / f"{name}.yaml").read_text(encoding="utf-8")
    elif name.endswith((".yaml", ".yml")) or "/" in name:
        try:
            text = Path(name).read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise UserError(f"cannot read the configuration {name}: {error}") from None
    else:
        raise unknown("recipe", name, recipe_names())
    try:
        content = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise UserError(f"{name} is no valid YAML: {' '.join(str(error).split())}") from None
    if content is None:
        content = {}
    if not isinstance(content, dict):
        raise UserError(f"{name} must hold sections ({', '.join(SECTIONS)}), not a {type(content).__name__}.")
    check_fields(content, Config, name)
    return content


def check_fields(content: Mapping[str, Any], cls: type, where: str, prefix: str = "") -> None:
    """Raise a UserError that names the first field of content that cls does not have.

    Args:
        content: The nested dictionary to check.
        cls: The dataclass whose fields are valid.
        where: The file that content came from, for the message.
        prefix: Where in the file we are, as "search.".
    """
    fields = {f.name: f for f in dataclasses.fields(cls)}
    hints = _field_types(cls)
    for key, value in content.items():
        if key not in fields:
            raise UserError(f"{where}: {unknown('field', f'{prefix}{key}', [prefix + n for n in fields])}")
        if dataclasses.is_dataclass(hints[key]):
            if not isinstance(value, Mapping):
                raise UserError(f"{where}: {prefix}{key} must be a section with fields, not {value!r}.")
            check_fields(value, hints[key], where, f"{prefix}{key}.")


def field_names(cls: type = Config, prefix: str = "") -> list[str]:
    """Return every nested field of a dataclass as a dotted name, as "search.tokens.ratio"."""
    hints = _field_types(cls)
    names: list[str] = []
    for name, hint in hints.items():
        if dataclasses.is_dataclass(hint):
            names += field_names(hint, f"{prefix}{name}.")
        else:
            names.append(prefix + name)
    return names


def _field_types(cls: type) -> dict[str, Any]:
    from typing import get_type_hints

    return get_type_hints(cls)


def merge(base: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    """Return base with the entries of over in place of its own, nested dictionaries merged."""
    merged = dict(base)
    for key, value in over.items():
        both = isinstance(value, Mapping) and isinstance(merged.get(key), Mapping)
        merged[key] = merge(merged[key], value) if both else value
    return merged


def from_dict(content: Mapping[str, Any], where: str = "the configuration") -> Config:
    """Build a checked Config from a nested dictionary, every field typed.

    Raises:
        UserError: A field that does not exist, a value of the wrong type, or values that do not go together.
    """
    from jsonargparse import ArgumentError, ArgumentParser

    check_fields(content, Config, where)
    parser = ArgumentParser(exit_on_error=False)
    parser.add_class_arguments(Config)
    try:
        parsed = parser.parse_object(merge({}, content))
    except ArgumentError as error:
        raise UserError(f"{where}: {one_line(str(error))}") from None
    config: Config = Config(**vars(parser.instantiate(parsed)))
    validate(config)
    return config


def one_line(message: str) -> str:
    """Fold a parser's message into one line, and its words for a wrong value into ours."""
    text = " ".join(message.split())
    match = re.fullmatch(
        r"Parser key \"(?P<key>[\w.]+)\": Expected an? (?P<kind>.+?)\. Got value: (?P<value>.*)", text
    )
    if not match:
        return text
    kind = re.sub(r"<class '(\w+)'>", r"\1", match["kind"]).removeprefix("typing.")
    return f"{match['key']} takes {kind}, not {match['value']!r}."


def load(path: str | Path) -> Config:
    """Read a resolved configuration, as a run folder's `config.yaml`."""
    return from_dict(read_recipe(str(path)), str(path))


def to_dict(config: Config) -> dict[str, Any]:
    """Return the nested dictionary of a Config, of YAML's own types alone."""
    plain: dict[str, Any] = _without_tuples(dataclasses.asdict(config))
    return plain


def to_yaml(config: Config, sections: Sequence[str] = tuple(SECTIONS)) -> str:
    """Return a Config, or some of its sections, as the text of a YAML file that `load` reads back."""
    content = {name: value for name, value in to_dict(config).items() if name in sections}
    return yaml.safe_dump(content, sort_keys=False, default_flow_style=None)


def _without_tuples(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _without_tuples(item) for key, item in value.items()}
    return [_without_tuples(item) for item in value] if isinstance(value, (list, tuple)) else value


def validate(config: Config, searching: bool = True) -> None:
    """Raise a UserError where fields have values that cannot work, alone or together.

    Args:
        config: What to check.
        searching: Whether a search is to come; a training of a given cell is free in its width.
    """
    model, space, search, train = config.model, config.space, config.search, config.train
    if search.method not in METHODS:
        raise unknown("search method", search.method, METHODS)
    for name, value in {
        "model.image_size": model.image_size,
        "model.patch_size": model.patch_size,
        "model.width": model.width,
        "model.layers": model.layers,
        "model.heads": model.heads,
        "space.nodes": space.nodes,
        "search.batch_size": search.batch_size,
        "search.tokens.dim": search.tokens.dim,
        "search.derive.edges_per_node": search.derive.edges_per_node,
        "train.epochs": train.epochs,
        "train.batch_size": train.batch_size,
        "train.eval_every": train.eval_every,
    }.items():
        if value < 1:
            raise UserError(f"{name} must be at least 1, not {value}.")
    for name, value in {
        "data.limit": config.data.limit,
        "data.eval_limit": config.data.eval_limit,
        "search.width": search.width,
        "search.derive.max_params": search.derive.max_params,
        "search.derive.max_macs": search.derive.max_macs,
        "runtime.workers": config.runtime.workers,
        "runtime.seed": config.runtime.seed,
    }.items():
        if value < 0:
            raise UserError(f"{name} must not be negative, but is {value}.")
    if model.image_size % model.patch_size:
        raise UserError(
            f"an image of {model.image_size} pixels is not divisible into patches of {model.patch_size}: "
            "change model.image_size or model.patch_size."
        )
    if not space.heads and not space.ratios:
        raise UserError(
            "space.heads and space.ratios are both empty: the search would have nothing to choose."
        )
    if not space.heads:
        raise UserError("space.heads is empty: without attention the class token never sees the image.")
    if searching:
        _check_width("model.width", model.width, space.heads)
        _check_width("search.width", search.width or model.width, space.heads)
    if any(not ratio > 0 for ratio in space.ratios):
        raise UserError(f"space.ratios must all be positive, not {space.ratios}.")
    for name, values in {"space.heads": space.heads, "space.ratios": space.ratios}.items():
        if len(set(values)) != len(values):
            raise UserError(f"{name} names an operation twice: {values}.")
    if not 0 < search.tokens.ratio <= 1:
        raise UserError(f"search.tokens.ratio must lie in (0, 1], not {search.tokens.ratio}.")
    if not 0 < search.val_fraction < 1 or not 0 < config.data.val_fraction < 1:
        raise UserError("search.val_fraction and data.val_fraction must lie between 0 and 1.")
    if not (search.temperature > 0 and search.final_temperature > 0):
        raise UserError("search.temperature and search.final_temperature must be positive.")
    _check_stages(search.stages)


def _check_width(name: str, width: int, heads: list[int]) -> None:
    for count in heads:
        if count < 1 or width % count:
            raise UserError(
                f"{name} {width} is not divisible by {count} attention heads: change {name} or space.heads."
            )


def _check_stages(stages: StagesConfig) -> None:
    columns = (stages.layers, stages.keep, stages.epochs, stages.weight_epochs)
    if len({len(column) for column in columns}) > 1 or not stages.layers:
        raise UserError(
            "search.stages.layers, keep, epochs and weight_epochs need an entry a stage each, but have "
            f"{', '.join(str(len(column)) for column in columns)}."
        )
    for number, stage in enumerate(stages, start=1):
        if stage.layers < 1 or stage.epochs < 1 or stage.keep < 0 or stage.weight_epochs < 0:
            raise UserError(f"stage {number} of search.stages has a value that is too small: {stage}.")
    if all(stage.weight_epochs >= stage.epochs for stage in stages):
        raise UserError("search.stages trains weights alone in every epoch: alpha would never move.")
