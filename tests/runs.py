"""Small runs of the commands, and how the end of one is held against another's."""

from pathlib import Path
from typing import Any

import torch

from dasvit.runtime.checkpoint import read_checkpoint
from helpers import untimed

OPTIONS = [
    "--config=digits",
    "--data.limit=200",
    "--data.eval_limit=100",
    "--model.image_size=8",
    "--model.patch_size=2",
    "--model.width=16",
    "--model.layers=2",
    "--model.heads=2",
    "--space.heads=[2,4]",
    "--space.ratios=[0.5]",
    "--space.shifts=[1]",
    "--search.batch_size=25",
    "--search.tokens.dim=4",
    "--search.relaxation=gumbel_softmax",
    "--search.augment.erasing=0.5",
    '--search.stages={"layers":[1,2],"keep":[0,3],"epochs":[2,2],"weight_epochs":[1,0],"inherit":"weights"}',
    "--search.finals.cells=2",
    "--train.batch_size=50",
    "--train.epochs=3",
    "--train.ema=0.9",
    "--train.drop_path=0.2",
    '--train.augment={"crop_padding":1,"mixup":0.5,"cutmix":0.5,"erasing":0.5}',
    "--runtime.device=cpu",
    "--runtime.precision=float32",
]
COMMANDS: dict[str, list[str]] = {
    "search": ["search", *OPTIONS],
    "train": ["train", "--cell=dasvit_cifar10", *OPTIONS],
}


def newest(run: Path) -> dict[str, Any]:
    return read_checkpoint(max((run / "checkpoints").glob("*.pt")))


def difference(one: Any, other: Any) -> float:
    """Return the largest difference between the numbers of two states, relative to numbers above 1."""
    if isinstance(one, torch.Tensor):
        one, other = one.double(), other.double()
        return float(((one - other).abs() / other.abs().clamp(min=1)).max()) if one.numel() else 0.0
    if isinstance(one, dict):
        assert one.keys() == other.keys()
        return max((difference(one[key], other[key]) for key in one if key != "seconds"), default=0.0)
    if isinstance(one, list):
        return max((difference(*pair) for pair in zip(one, other, strict=True)), default=0.0)
    assert isinstance(one, float) or one == other
    return abs(one - other) if isinstance(one, float) else 0.0


def same(one: Any, other: Any) -> bool:
    """Tell whether two states are equal to the bit, but for times."""
    if isinstance(one, torch.Tensor):
        return torch.equal(one, other)
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(same(one[key], other[key]) for key in one if key != "seconds")
    if isinstance(one, list):
        return len(one) == len(other) and all(map(same, one, other))
    return bool(one == other)


def assert_same_end(run: Path, undisturbed: Path) -> None:
    """Hold every file against the undisturbed run's, to the byte where no time and no name of the run stands in it."""
    names = {str(path.relative_to(undisturbed)) for path in undisturbed.rglob("*")}
    assert {str(path.relative_to(run)) for path in run.rglob("*")} == names, "a file is missing, or left over"
    exact = {"genotype.json", "architecture.jsonl", "tokens.jsonl", "derivation.json", "model/model.safetensors"}
    for name in names & exact:
        assert (run / name).read_bytes() == (undisturbed / name).read_bytes(), name
    assert untimed(run / "metrics.jsonl") == untimed(undisturbed / "metrics.jsonl")
    assert same(newest(run), newest(undisturbed))
