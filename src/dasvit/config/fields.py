"""The fields of a recipe: typed dataclasses, each with its defaults and ranges.

`recipe.py` reads and writes them, `validation.py` says what holds between them.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Literal

from dasvit.config.limits import (
    MAX_IMAGE_SIDE,
    MAX_LAYERS,
    MAX_NODES,
    MAX_OPERATIONS,
    MAX_PRIORS,
    MAX_RATIO,
    MAX_RUNGS,
    MAX_SEED,
    MAX_SIZES,
    MAX_WIDTH,
    MAX_WORKERS,
    MIN_TEMPERATURE,
)
from dasvit.config.ranges import at_least, listed, within


@dataclass(kw_only=True)
class DataConfig:
    """Where the images come from.

    Attributes:
        name: digits, cifar10, cifar100, fashion_mnist, imagefolder, parquet, csv, webdataset or imagenet100.
        path: Folder of the data set (or its id on the hub, for parquet). Empty: not needed (digits).
        csv: CSV file that lists images, labels and, where there is one, the split of each. Names of files begin in
            path, or in the CSV file's folder.
        download: Fetch the data set into path when it is not there yet. A file that chooses path cannot ask for it.
        limit: Use at most this many training images, balanced over the classes by seed. 0: all.
        eval_limit: The same for the test images. 0: all.
        val_fraction: Share of images held out as test set where the source has no test set of its own.
        on_error: What a broken image does: stop the command and name the file, or skip it and count it.
        endings: Endings of the images in folders, as jpg or jpg,png. Empty: all that can be read.
        image_column: Column of the images in parquet files, or of their files in a CSV file. Empty: found by name and
            content.
        label_column: Column of the labels; of a CSV file with a column of 0 and 1 for each class, all of these, as
            a,b,c. Empty: found by name.
        label_separator: What parts several labels of an image in a CSV file, as ; or | or space; none: an image has
            one label. Empty: found (docs/data.md).
        groups: Pattern (a regular expression) in the paths of images below path, as patient_[0-9]+: images of the same
            text there (of its first bracket, where it has one) are held out together or not at all. Empty: none.
        group_column: Column of parquet files, or of a CSV file, with the same meaning. Empty: none.
        fit: How an image becomes a square: crop (its centre), pad (all of it, grey beside it) or squash (all of it, its
            sides scaled apart).
        window: Grey levels of images of more than 8 bits that become black and white, as 0,4095. auto: those that the
            training images use, where these are less than half of the type's range; full: the type's range.
        stream: Read images from their shards (parquet, or webdataset's tar files) whenever they are needed, in place of
            decoding all of them into the cache: for sets larger than the disk.
        shuffle_buffer: Images among which the order of streamed ones is shuffled, held encoded in memory.
        cache: Folder for decoded images. Empty: $DASVIT_CACHE, or dasvit/ in the user's cache folder. A file can name
            one that is a cache already.
    """

    name: str = "digits"
    path: str = ""
    csv: str = ""
    download: bool = False
    limit: int = at_least(0, default=0)
    eval_limit: int = at_least(0, default=0)
    val_fraction: float = 0.2
    on_error: Literal["stop", "skip"] = "stop"
    endings: str = ""
    image_column: str = ""
    label_column: str = ""
    label_separator: str = ""
    groups: str = ""
    group_column: str = ""
    fit: Literal["crop", "pad", "squash"] = "crop"
    window: str = "auto"
    stream: bool = False
    shuffle_buffer: int = at_least(1, default=10_000)
    cache: str = ""


Stem = Literal["patch", "conv", "cct"]
"""How an image becomes tokens."""
Pool = Literal["token", "avg"]
"""What the head reads."""


@dataclass(kw_only=True)
class ModelConfig:
    """The skeleton that the cell is stacked into (method, section 1); the defaults are ViT-B/16's.

    Attributes:
        image_size: Side of the square input image, in pixels.
        patch_size: Side of a patch, in pixels; it divides image_size.
        width: Embedding width D.
        layers: Encoder layers of the derived network.
        heads: Attention heads of the ViT baseline of the same width and depth.
        stem: How an image becomes tokens: patch, a linear layer of each patch; conv, 3 × 3 convolutions of stride 2
            until a patch is a pixel, each with norm and activation, and a 1 × 1 convolution; or cct, convolutions of
            stride 1, each with norm, activation and max pooling (docs/sizes.md).
        pool: What the head reads: token, the class token; or avg, the mean of the patches.
    """

    image_size: int = at_least(1, default=224, most=MAX_IMAGE_SIDE)
    patch_size: int = at_least(1, default=16)
    width: int = at_least(1, default=768, most=MAX_WIDTH)
    layers: int = at_least(1, default=12, most=MAX_LAYERS)
    heads: int = at_least(1, default=12)
    stem: Stem = "patch"
    pool: Pool = "token"


@dataclass(kw_only=True)
class SpaceConfig:
    """The cells that can be found (method, sections 2 and 3).

    Attributes:
        nodes: Intermediate nodes of the cell.
        heads: Head counts of the attention operations; each divides the width.
        ratios: Hidden width over D of the MLP operations.
        shifts: Hidden width over D of the MLPs whose hidden units come from neighbouring patches (not the paper's).
        convs: Hidden width over D of the MLPs with a 3 × 3 depthwise convolution before the GELU (not the paper's).
        extra: Names of further operations, of kinds that `dasvit.register_operation` made known (docs/extending.md).
        widths: Embedding widths that are searched beside the cell, as 96,128,192 (docs/sizes.md). Empty: model.width.
        depths: Numbers of layers, likewise. Empty: model.layers.
        patches: Sides of a patch, likewise; each divides model.image_size. Empty: model.patch_size.
        stems: Stems, likewise: patch, conv, cct. Empty: model.stem.
        pools: What the head reads, likewise: token, avg. Empty: model.pool.
        cell: vit to leave the cell a plain ViT's layer, and search its heads (of heads) and sizes alone: a tuned ViT.
            Empty: cells are searched.
    """

    nodes: int = at_least(1, default=2, most=MAX_NODES)
    heads: list[int] = field(default_factory=lambda: [4, 8, 12], metadata=listed(entries=MAX_OPERATIONS))
    ratios: list[float] = field(
        default_factory=lambda: [0.5, 1.0, 2.0], metadata=listed(most=MAX_RATIO, entries=MAX_OPERATIONS)
    )
    shifts: list[float] = field(default_factory=list, metadata=listed(most=MAX_RATIO, entries=MAX_OPERATIONS))
    convs: list[float] = field(default_factory=list, metadata=listed(most=MAX_RATIO, entries=MAX_OPERATIONS))
    extra: list[str] = field(default_factory=list, metadata=listed(entries=MAX_OPERATIONS))
    widths: list[int] = field(default_factory=list, metadata=listed(most=MAX_WIDTH, entries=MAX_SIZES))
    depths: list[int] = field(default_factory=list, metadata=listed(most=MAX_LAYERS, entries=MAX_SIZES))
    patches: list[int] = field(default_factory=list, metadata=listed(most=MAX_IMAGE_SIDE, entries=MAX_SIZES))
    stems: list[Stem] = field(default_factory=list)
    pools: list[Pool] = field(default_factory=list)
    cell: Literal["", "vit"] = ""


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
    mixup: float = at_least(0, default=0.0)
    cutmix: float = at_least(0, default=0.0)


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

    lr: float = at_least(0, default=1e-3)
    min_lr: float = at_least(0, default=1e-6)
    weight_decay: float = at_least(0, default=0.05)
    warmup_epochs: float = at_least(0, default=0.0)
    warmup_lr: float = at_least(0, default=1e-6)
    clip_grad: float = at_least(0, default=0.0)


@dataclass(kw_only=True)
class AlphaConfig:
    """Adam for the architecture parameters (as in DARTS).

    Attributes:
        lr: Learning rate, constant.
        betas: Adam's two decay rates.
        weight_decay: L2 penalty on alpha.
        init_std: Standard deviation of alpha at the start.
    """

    lr: float = at_least(0, default=3e-3)
    betas: tuple[float, float] = within("[0, 1)", default=(0.5, 0.999))
    weight_decay: float = at_least(0, default=1e-3)
    init_std: float = at_least(0, default=1e-3)


@dataclass(kw_only=True)
class TokensConfig:
    """Attention-based partial token selection (eq. 13 to 15).

    Attributes:
        ratio: Share rho of the patch tokens that is kept. 1: no selection.
        dim: Width of queries and keys of the score.
        norm: Score tokens that are normalised, as attention sees them. False: as they are.
    """

    ratio: float = within("(0, 1]", default=0.5)
    dim: int = at_least(1, default=64, most=MAX_WIDTH)
    norm: bool = False


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

    skip: float = at_least(0, default=1.0)
    types: float = at_least(0, default=1.0)
    lower: float = at_least(0, default=0.3)
    upper: float = at_least(0, default=0.5)
    under: float = at_least(0, default=1.0)
    over: float = at_least(0, default=1.0)


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

    layers: list[int] = field(default_factory=lambda: [2, 4, 6], metadata=listed(most=MAX_LAYERS))
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
        rule: darts (the strongest non-zero operation of the edges_per_node strongest edges into each node),
            strongest (the strongest operation of every edge, zero included), or perturbation (as darts, but strong is
            what the trained supernet's accuracy falls without).
        edges_per_node: Edges kept into each node, for the rules darts and perturbation.
        max_params: Budget of parameters of the whole network. 0: none.
        max_macs: Budget of multiply-adds of the whole network for one image. 0: none.
        max_latency: Budget of the time that an inference takes where search.latency says, as 8ms. Empty: none.
        max_skips: Most edges of the cell that may be identity. -1: no limit.
        images: Validation images that the rule perturbation judges by. 0: all.
    """

    rule: Literal["darts", "strongest", "perturbation"] = "darts"
    edges_per_node: int = at_least(1, default=2)
    max_params: int = at_least(0, default=0)
    max_macs: int = at_least(0, default=0)
    max_latency: str = ""
    max_skips: int = -1
    images: int = at_least(0, default=0)


@dataclass(kw_only=True)
class LatencyConfig:
    """Where and how networks are to run that latency is measured of (docs/latency.md); all in float32.

    Attributes:
        runtime: torch, or onnx for onnxruntime on the CPU, by the network's exported file.
        batch: Images of an inference.
        threads: Threads on the CPU. 0: as many as torch takes here.
        device: cpu, cuda, cuda:N, mps or auto.
        table: Latency table, as `dasvit latency --out` writes it. Empty: this machine's own, measured once.
    """

    runtime: Literal["torch", "onnx"] = "torch"
    batch: int = at_least(1, default=1)
    threads: int = at_least(0, default=0, most=MAX_WORKERS)
    device: str = "cpu"
    table: str = ""


@dataclass(kw_only=True)
class FinalsConfig:
    """Finals: trainings of candidate cells, in rungs of successive halving, decide among them (docs/method.md).

    Attributes:
        cells: Candidates. 0: no finals, the weights decide (16 under the method finals).
        rungs: Epochs after which candidates are compared, rising, as [0.5, 1, 4]. A candidate's training is as long as
            the last, a whole number; it pauses at each, on the images for the weights.
        keep: Share of a rung's candidates that goes on to the next one.
        images: Validation images that a rung looks at, as even over the classes as they can be. 0: all.
        learn: Draw candidates by what earlier ones reached. false: evenly.
        prior: What cells reached on other data, by which the first candidates are drawn: `shipped`, what the package
            knows; run folders of searches; files. Empty: nothing, the first candidates are drawn evenly.
        min_share: Drawn candidates use at least this share of the tightest limit of search.derive, where there is one:
            short trainings flatter small networks.
        shipped: The cell that the package ships, dasvit_shift, is a candidate where it is of the space and fits the
            budget, and it is trained to the last rung.
    """

    cells: int = at_least(0, default=0)
    rungs: list[float] = field(default_factory=lambda: [1.0], metadata=listed(entries=MAX_RUNGS))
    keep: float = within("(0, 1]", default=0.5)
    images: int = at_least(0, default=0)
    learn: bool = True
    prior: list[str] = field(default_factory=list, metadata=listed(entries=MAX_PRIORS))
    min_share: float = within("[0, 1)", default=0.0)
    shipped: bool = True

    def sizes(self) -> list[int]:
        """Return how many candidates reach each rung."""
        counts = [self.cells]
        for _ in self.rungs[1:]:
            counts.append(max(1, int(counts[-1] * self.keep)))
        return counts if self.cells else [0] * len(self.rungs)

    def trained_epochs(self) -> float:
        """Return the epochs of all candidates together."""
        before = [0.0, *self.rungs]
        return sum(size * (rung - last) for size, rung, last in zip(self.sizes(), self.rungs, before, strict=False))


@dataclass(kw_only=True)
class PcDartsConfig:
    """What the method pc-darts adds.

    Attributes:
        channels: K: the first D/K channels alone pass through the operations.
    """

    channels: int = at_least(1, default=4)


@dataclass(kw_only=True)
class PDartsConfig:
    """What the method p-darts adds.

    Attributes:
        dropout: Rate at which skips drop out at the start of each stage (the last entry serves further stages).
    """

    dropout: list[float] = field(default_factory=lambda: [0.0, 0.4, 0.7])


@dataclass(kw_only=True)
class DartsPlusConfig:
    """When the method darts+ stops.

    Attributes:
        skips: At so many skips in the cell that would be derived.
        patience: Once the operations' order has been the same on every edge for so many epochs. 0: never for that.
    """

    skips: int = at_least(1, default=2)
    patience: int = at_least(0, default=10)


@dataclass(kw_only=True)
class FairDartsConfig:
    """What the method fair-darts adds.

    Attributes:
        weight: Weight of the zero-one loss.
    """

    weight: float = at_least(0, default=10.0)


@dataclass(kw_only=True)
class BetaDartsConfig:
    """What the method beta-darts adds.

    Attributes:
        weight: Weight of the log-sum-exp of the alphas at the search's end; it rises linearly from 0.
    """

    weight: float = at_least(0, default=50.0)


@dataclass(kw_only=True)
class RandomConfig:
    """Which cells the method random draws from, beside the limits of `derive`.

    Attributes:
        reference: A cell (name, file or run folder) whose multiply-adds the drawn one shall have. Empty: none.
        tolerance: The share of these that it may have more or less.
    """

    reference: str = ""
    tolerance: float = at_least(0, default=0.05)


@dataclass(kw_only=True)
class EvolutionConfig:
    """The method evolution's search over the cells of the trained supernet.

    Attributes:
        population: Cells of a generation.
        generations: Generations behind the first, which is drawn.
        parents: The best cells so far, from which a generation comes.
        mutation: Rate at which a mutation draws an edge's operation anew.
        images: Validation images that a cell is judged by. 0: all.
    """

    population: int = at_least(1, default=50)
    generations: int = at_least(0, default=20)
    parents: int = at_least(1, default=10)
    mutation: float = within("(0, 1]", default=0.2)
    images: int = at_least(0, default=0)


@dataclass(kw_only=True)
class AutoFormerConfig:
    """The method autoformer's search over whole networks (docs/methods.md).

    Attributes:
        space: Which networks: AutoFormer's tiny, small or base; or scaled, around a ViT of width 96 and 6 layers.
        population: Networks of a generation.
        generations: Generations behind the first, which is drawn.
        parents: The best networks so far, from which a generation comes.
        mutation: Rate at which a mutation draws a layer's heads, or its MLP's ratio, anew.
        depth_mutation: Rate at which it draws the depth anew, or the width.
        images: Validation images that a network is judged by. 0: all.
        max_params: Budget of parameters of the network. 0: search.derive.max_params.
        max_macs: Budget of multiply-adds of the network for one image. 0: search.derive.max_macs.
    """

    space: Literal["tiny", "small", "base", "scaled"] = "scaled"
    population: int = at_least(1, default=50)
    generations: int = at_least(0, default=20)
    parents: int = at_least(1, default=10)
    mutation: float = within("(0, 1]", default=0.2)
    depth_mutation: float = within("(0, 1]", default=0.4)
    images: int = at_least(0, default=0)
    max_params: int = at_least(0, default=0)
    max_macs: int = at_least(0, default=0)


@dataclass(kw_only=True)
class SearchConfig:
    """The bilevel search (section 7) and its parts.

    Attributes:
        method: dasvit, or a rival on the same space with none of DASViT's parts: darts, pc-darts, p-darts, darts+,
            darts-, fair-darts, beta-darts, gdas, evolution, random, finals; or autoformer, on a space of networks
            (docs/methods.md).
        width: Embedding width of the supernet. 0: the model's.
        batch_size: Images of one weight step, and of one alpha step.
        val_fraction: Share of the training set that alpha is trained on.
        order: 1, or 2 for the unrolled second order of DARTS.
        relaxation: softmax, sigmoid or gumbel_softmax.
        temperature: Temperature of the relaxation at the start.
        final_temperature: Temperature at the end of the search.
        annealing: How the temperature gets there, epoch by epoch: geometric or linear.
        schedule: Whether the cosine of the weights' learning rate begins anew in each stage, or is one over the search.
        smoothing: Label smoothing of the training loss.
        metric: What candidates, and cells of an evolution, are ranked by on the validation images: loss, top1,
            balanced_accuracy or macro_f1, of several labels an image loss, map or macro_f1; or auto: loss for
            candidates; for an evolution top-1, and loss where classes are unbalanced (docs/tasks.md).
        target_params: Parameters of the derived network that the alphas shall keep within, as 5M. 0: no target.
        target_macs: Its multiply-adds for one image, likewise, as 300M (--search.target-macs will do, too).
        cost_weight: Weight of max(0, log(expected / target)) in the alphas' loss.
        monitor: Validation images on which every epoch's end judges the mixture and the cell that would be derived;
            each stage's supernet is kept as well (docs/study.md). 0: nothing of this.
    """

    method: str = "dasvit"
    width: int = at_least(0, default=0, most=MAX_WIDTH)
    batch_size: int = at_least(1, default=64)
    val_fraction: float = 0.5
    order: Literal[1, 2] = 1
    relaxation: str = "softmax"
    temperature: float = 1.0
    final_temperature: float = 1.0
    annealing: Literal["geometric", "linear"] = "geometric"
    schedule: Literal["stage", "search"] = "stage"
    smoothing: float = within("[0, 1)", default=0.0)
    metric: Literal["auto", "loss", "top1", "balanced_accuracy", "macro_f1", "map"] = "auto"
    target_params: int = at_least(0, default=0)
    target_macs: int = at_least(0, default=0)
    cost_weight: float = at_least(0, default=1.0)
    monitor: int = at_least(0, default=0)
    tokens: TokensConfig = field(default_factory=TokensConfig)
    fairness: FairnessConfig = field(default_factory=FairnessConfig)
    stages: StagesConfig = field(default_factory=StagesConfig)
    weights: OptimConfig = field(default_factory=OptimConfig)
    alphas: AlphaConfig = field(default_factory=AlphaConfig)
    augment: AugmentConfig = field(default_factory=AugmentConfig)
    derive: DeriveConfig = field(default_factory=DeriveConfig)
    latency: LatencyConfig = field(default_factory=LatencyConfig)
    finals: FinalsConfig = field(default_factory=FinalsConfig)
    pc_darts: PcDartsConfig = field(default_factory=PcDartsConfig)
    p_darts: PDartsConfig = field(default_factory=PDartsConfig)
    darts_plus: DartsPlusConfig = field(default_factory=DartsPlusConfig)
    fair_darts: FairDartsConfig = field(default_factory=FairDartsConfig)
    beta_darts: BetaDartsConfig = field(default_factory=BetaDartsConfig)
    random: RandomConfig = field(default_factory=RandomConfig)
    evolution: EvolutionConfig = field(default_factory=EvolutionConfig)
    autoformer: AutoFormerConfig = field(default_factory=AutoFormerConfig)


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
        balance: How unbalanced classes are weighed: none; sampler draws images so that all classes are as likely;
            weights multiplies losses so that all classes count alike; of several labels an image, so that images
            with a class count like those without it (docs/tasks.md).
        val_fraction: Share of the training images that is held out, to choose the epoch that is kept and to fit the
            temperature. 0: none, or a tenth where monitor asks for one.
        monitor: Which epoch's weights are kept: the last one's, or those of the best top1, macro_f1, balanced_accuracy
            or loss on the images held out; map, macro_f1 or loss where images have several labels.
        patience: Stop after so many epochs in which what is monitored did not improve. 0: never.
        teacher: A trained network whose answers are learnt beside the labels: a run folder, a model folder, the name
            of a model that comes with dasvit, or one of timm's whose weights are on this disk (docs/distillation.md).
            Empty: none.
        teacher_mode: What is learnt of it: hard, the class that it names; or soft, its probabilities.
        teacher_weight: Share of the loss that this is; the labels' loss is the rest.
        teacher_temperature: What the logits of both are divided by for soft.
        teacher_token: Learn it with a token and a head of its own, where the network is a cell's, vit or vit_shift.
    """

    epochs: int = at_least(1, default=100)
    batch_size: int = at_least(1, default=128)
    smoothing: float = within("[0, 1)", default=0.1)
    drop_path: float = within("[0, 1)", default=0.0)
    ema: float = within("[0, 1)", default=0.0)
    eval_every: int = at_least(1, default=1)
    balance: Literal["none", "sampler", "weights"] = "none"
    val_fraction: float = within("[0, 1)", default=0.0)
    monitor: Literal["last", "top1", "macro_f1", "balanced_accuracy", "map", "loss"] = "last"
    patience: int = at_least(0, default=0)
    teacher: str = ""
    teacher_mode: Literal["hard", "soft"] = "hard"
    teacher_weight: float = at_least(0, default=0.5, most=1)
    teacher_temperature: float = at_least(MIN_TEMPERATURE, default=3.0)
    teacher_token: bool = True
    optim: OptimConfig = field(default_factory=OptimConfig)
    augment: AugmentConfig = field(default_factory=AugmentConfig)

    @property
    def adds_token(self) -> bool:
        """Whether networks that can have one get a distillation token."""
        return bool(self.teacher) and self.teacher_token

    @property
    def held_out(self) -> float:
        """The share of the training images that is held out."""
        return self.val_fraction or (0.1 if self.monitor != "last" else 0.0)


@dataclass(kw_only=True)
class RuntimeConfig:
    """Where and how the arithmetic is done.

    Attributes:
        seed: Fixes weights, splits, order of images and augmentation.
        device: auto, cpu, cuda, cuda:N or mps.
        precision: float32, bfloat16, or auto: both are timed at the start, the faster one is kept.
        workers: Processes that load images. 0: the main one.
        shard: Of several processes (torchrun), each keeps only its share of the weights, of their moments and of their
            average: for a network that one device does not hold (docs/scale.md). Training and evaluation alone.
    """

    seed: int = at_least(0, default=0, most=MAX_SEED)
    device: str = "auto"
    precision: Literal["auto", "float32", "bfloat16"] = "auto"
    workers: int = at_least(0, default=0, most=MAX_WORKERS)
    shard: bool = False


@dataclass(kw_only=True)
class Config:
    """A recipe: everything that a search and a training need to know."""

    data: DataConfig = field(default_factory=DataConfig)
    model: ModelConfig = field(default_factory=ModelConfig)
    space: SpaceConfig = field(default_factory=SpaceConfig)
    search: SearchConfig = field(default_factory=SearchConfig)
    train: TrainConfig = field(default_factory=TrainConfig)
    runtime: RuntimeConfig = field(default_factory=RuntimeConfig)
