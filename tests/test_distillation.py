"""A training with a teacher: the loss against its formulas, what each head learns, and runs from end to end."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import timm
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.nn import functional as F

import dasvit
from dasvit.cell.genotype import PUBLISHED, load_genotype
from dasvit.cell.sizes import Sizes
from dasvit.compare.networks import Entry, costed
from dasvit.config import Config, ModelConfig, RuntimeConfig, TrainConfig
from dasvit.config import recipe as recipes
from dasvit.data import Preprocess
from dasvit.errors import UserError
from dasvit.models.baselines import make_model, make_network
from dasvit.models.distilled import make_distilled, takes_token
from dasvit.models.folder import save_model
from dasvit.runtime.distributed import Runtime
from dasvit.runtime.progress import Reporter
from dasvit.search.candidates import short_training
from dasvit.session import load_session
from dasvit.training import distillation
from dasvit.training.distillation import Distillation, Teacher, distillation_loss, find_teacher
from dasvit.training.estimate import measure_pace
from dasvit.training.multilabel import check_training
from dasvit.training.steps import BatchLoss, Steps
from helpers import TINY_TRAINING, ForkServer, call_cli, interrupt_after_an_epoch, merge, untimed
from runs import COMMANDS, difference, newest

CELL = PUBLISHED["dasvit_cifar10"]
CLASSES = tuple(map(str, range(10)))
HALF = (0.5, 0.5, 0.5)
OPTIONS = COMMANDS["train"]
BASELINE = ["train", "--model=test_resnet", *OPTIONS[2:], "--train.drop_path=0"]
"""The same training of a convolution."""


def config_of(**changes: Any) -> Config:
    return recipes.from_dict(merge(TINY_TRAINING, changes), searching=False)


def logits(seed: int, rows: int = 5) -> Tensor:
    return 3 * torch.randn(rows, 7, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def probabilities(x: Tensor) -> np.ndarray:
    powers = np.exp(x.numpy())
    return np.asarray(powers / powers.sum(axis=1, keepdims=True))


# --- the loss ---------------------------------------------------------------------------------------------------------


def test_hard_is_the_cross_entropy_with_the_class_that_the_teacher_names() -> None:
    student, teacher = logits(0), logits(1)
    named = teacher.numpy().argmax(axis=1)
    expected = -np.log(probabilities(student)[np.arange(5), named]).mean()
    assert float(distillation_loss(student, teacher, "hard")) == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("temperature", [0.5, 1.0, 3.0])
def test_soft_is_the_divergence_at_a_temperature(temperature: float) -> None:
    student, teacher = logits(0), logits(1)
    p, q = probabilities(teacher / temperature), probabilities(student / temperature)
    expected = temperature**2 * (p * np.log(p / q)).sum(axis=1).mean()
    found = distillation_loss(student, teacher, "soft", temperature)
    assert float(found) == pytest.approx(expected, rel=1e-12)
    assert float(distillation_loss(teacher, teacher, "soft", temperature)) == pytest.approx(0, abs=1e-12)


@pytest.mark.parametrize("mode", ["hard", "soft"])
def test_parts_of_a_batch_add_up_to_its_loss(mode: Any) -> None:
    student, teacher = logits(0, 6), logits(1, 6)
    whole = distillation_loss(student, teacher, mode, 2.0)
    parts = [
        distillation_loss(student[a:b], teacher[a:b], mode, 2.0) * (b - a) / 6 for a, b in ((0, 1), (1, 4), (4, 6))
    ]
    assert float(whole) == pytest.approx(float(torch.stack(parts).sum()), rel=1e-12)


def test_a_batch_that_is_cut_has_the_gradient_of_the_whole() -> None:
    """What happens when the memory does not hold it, with the steps that do it."""
    torch.manual_seed(0)
    model: Any = make_distilled(CELL, config_of().model, 10).double().train()
    model.set_distilled_training(True)
    images, labels = torch.randn(6, 3, 8, 8, dtype=torch.float64), torch.arange(6)
    told = nn.Sequential(nn.Flatten(), nn.Linear(192, 10)).double()
    of = Distillation(Teacher(told, Preprocess(8), Preprocess(8)), "soft", 0.4, 2.0)

    def loss(rows: slice) -> tuple[Tensor, dict[str, Tensor]]:
        found = of(model(images[rows]), images[rows], labels[rows], F.cross_entropy)
        return found, {"loss": found}

    found = []
    for parts in (1, 4):
        steps = Steps(Runtime(RuntimeConfig(device="cpu")), Reporter(quiet=True))
        steps.micro_batches = parts
        model.zero_grad()
        batch = BatchLoss(6, 6, loss)
        steps.backward(batch, list(model.parameters()))
        found.append([batch.means["loss"], *(p.grad.clone() for p in model.parameters())])
    torch.testing.assert_close(found[0], found[1], rtol=1e-10, atol=1e-12)


class Table(nn.Module):
    """Says the same, whatever it sees."""

    def __init__(self, said: Tensor) -> None:
        super().__init__()
        self.said = nn.Parameter(said)

    def forward(self, images: Tensor) -> Tensor:
        return self.said[: len(images)]


@pytest.mark.parametrize("mode", ["hard", "soft"])
def test_both_losses_are_weighed_and_the_teacher_learns_nothing(mode: Any) -> None:
    network, labels, images = Table(logits(1)), torch.arange(5), torch.zeros(5, 3, 4, 4)
    same = Preprocess(4)
    teacher = Teacher(network, same, same).train()
    assert not network.training and not teacher.training
    of = Distillation(teacher, mode, 0.3, 2.0)
    one, two = logits(2).requires_grad_(), logits(3).requires_grad_()
    loss = of((one, two), images, labels, F.cross_entropy)
    expected = 0.7 * F.cross_entropy(one, labels) + 0.3 * distillation_loss(two, network.said, mode, 2.0)
    assert loss.item() == pytest.approx(expected.item(), rel=1e-12)
    loss.backward()
    assert network.said.grad is None and not network.said.requires_grad
    # each pair of logits has its own loss's gradient alone
    alone = torch.autograd.grad(0.7 * F.cross_entropy(one, labels), one)[0]
    torch.testing.assert_close(one.grad, alone)
    alone = torch.autograd.grad(0.3 * distillation_loss(two, network.said, mode, 2.0), two)[0]
    torch.testing.assert_close(two.grad, alone)
    both = of(one, images, labels, F.cross_entropy)  # a network without the token learns both with the same logits
    expected = 0.7 * F.cross_entropy(one, labels) + 0.3 * distillation_loss(one, network.said, mode, 2.0)
    assert both.item() == pytest.approx(expected.item(), rel=1e-12)


@pytest.mark.parametrize("side", [8, 20])
def test_the_teacher_sees_the_students_image_in_its_own_size_and_normalisation(side: int) -> None:
    """As if it had prepared the pixels itself."""
    seen: list[Tensor] = []

    class Looks(nn.Module):
        def forward(self, images: Tensor) -> Tensor:
            seen.append(images)
            return images.mean(dim=(2, 3))

    own, shown = Preprocess(side, (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)), Preprocess(8)
    pixels = torch.randint(0, 256, (2, 3, 8, 8), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    Teacher(Looks(), own, shown)(shown(pixels))
    torch.testing.assert_close(seen[0], own(pixels), rtol=1e-5, atol=1e-5)
    images = shown(pixels)
    Teacher(Looks(), shown, shown)(images)
    assert seen[1] is images


# --- the token --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["cell", "vit", "vit_shift"])
def test_each_head_learns_its_own_loss_and_both_are_averaged(name: str) -> None:
    torch.manual_seed(0)
    config = config_of().model
    model: Any = make_distilled(CELL if name == "cell" else name, config, 10).double()
    images, labels = torch.randn(4, 3, 8, 8, dtype=torch.float64), torch.arange(4)
    model.train()
    averaged = model(images)
    model.set_distilled_training(True)
    first, second = model(images)
    torch.testing.assert_close((first + second) / 2, averaged)
    model.eval()
    torch.testing.assert_close(model(images), averaged)  # no dropout here
    model.train()
    teacher = Teacher(Table(torch.randn(4, 10, dtype=torch.float64)), Preprocess(8), Preprocess(8))
    for weight, idle, busy in ((0.0, model.head_dist, model.head), (1.0, model.head, model.head_dist)):
        model.zero_grad()
        Distillation(teacher, "hard", weight, 1.0)(model(images), images, labels, F.cross_entropy).backward()
        assert float(idle.weight.grad.abs().max()) == 0 < float(busy.weight.grad.abs().max())
        token = model.embed if name == "cell" else model
        assert token.dist_token.grad.abs().max() > 0 and token.cls_token.grad.abs().max() > 0  # tokens see one another
    assert model.no_weight_decay() >= {key for key, _ in model.named_parameters() if key.endswith("dist_token")}


def test_a_shift_moves_patches_alone() -> None:
    """The same units come from the same patches, whether one token stands in front of them or two."""
    from dasvit.cell.ops import shift

    h = torch.randn(2, 14, 18, dtype=torch.float64)
    moved, without = shift(h, (3, 4)), shift(h[:, 1:], (3, 4))
    assert torch.equal(moved[:, 1:], without) and torch.equal(moved[:, :2], h[:, :2])
    square = torch.randn(2, 18, 18, dtype=torch.float64)
    assert torch.equal(shift(square, None), shift(square, (4, 4)))
    with pytest.raises(RuntimeError, match="shape"):
        shift(torch.randn(2, 15, 18), (3, 4))


def test_positions_are_resampled_and_heads_renewed(tmp_path: Path) -> None:
    from dasvit.models.finetune import load_start, subject_of

    for name in ("cell", "vit", "vit_shift"):
        subject = CELL if name == "cell" else name
        model: Any = make_distilled(subject, config_of().model, 3)
        folder = tmp_path / name
        save_model(model, folder, class_names=["a", "b", "c"], input_size=(3, 8, 8), mean=HALF, std=HALF)
        assert subject_of(model, folder) == subject
        again: Any = load_start(folder, 16, 5)
        assert again.eval()(torch.zeros(2, 3, 16, 16)).shape == (2, 5)
        old, new = (m.embed.pos_embed if name == "cell" else m.pos_embed for m in (model, again))
        assert new.shape[1] == 2 + 64 and torch.equal(old[:, :2], new[:, :2])
        kept: Any = load_start(folder, 8, 3, keep_head=True)
        for key, value in model.state_dict().items():
            assert torch.equal(kept.state_dict()[key], value), key
    cell: Any = make_distilled(CELL, config_of().model, 3)
    with pytest.raises(UserError, match="two tokens"):
        cell.reset_classifier(3, "avg")


def test_timm_alone_loads_it_and_pictures_show_what_it_attends_to(tmp_path: Path) -> None:
    import timm

    from dasvit.models.attention import class_attention

    model: Any = make_distilled(CELL, config_of().model, 3).eval()
    save_model(model, tmp_path / "m", class_names=["a", "b", "c"], input_size=(3, 8, 8), mean=HALF, std=HALF)
    images = torch.randn(2, 3, 8, 8)
    loaded = timm.create_model(f"local-dir:{tmp_path / 'm'}", pretrained=True).eval()
    assert torch.equal(loaded(images), model(images))
    _, maps = class_attention(model, images)
    assert maps is not None and maps.shape == (2, 4, 4)
    torch.testing.assert_close(maps.sum(dim=(1, 2)), torch.ones(2))


def test_a_comparison_counts_the_token() -> None:
    plain, taught = config_of(), config_of(train={"teacher": "somebody"})
    extra = {}
    for name, subject in (("cell", CELL), ("vit", "vit"), ("test_resnet", "test_resnet")):
        rows = [costed(Entry(name, name, subject, 10), config, 10, True) for config in (plain, taught)]
        extra[name] = rows[1]["params"] - rows[0]["params"]
    width = plain.model.width
    token = width + width + width * 10 + 10  # the token, its position, its head
    assert extra == {"cell": token, "vit": token, "test_resnet": 0}


def test_candidates_have_no_teacher() -> None:
    assert short_training(TrainConfig(teacher="somebody"), 1).teacher == ""


# --- runs -------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def teacher(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A trained convolution; not to be changed."""
    run = tmp_path_factory.mktemp("teachers") / "resnet"
    status, _, err = call_cli(*BASELINE, "--train.epochs=1", "--run", run)
    assert status == 0, err
    return run


def weights(run: Path) -> dict[str, Tensor]:
    return load_file(run / "model" / "model.safetensors")


@pytest.mark.parametrize("mode", ["hard", "soft"])
def test_cut_off_and_resumed_it_ends_as_if_it_had_not(
    mode: str, teacher: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    options = [*OPTIONS, "--train.teacher", teacher, f"--train.teacher_mode={mode}"]
    monkeypatch.setattr("dasvit.runtime.saver.Saver._is_due", lambda self: True)
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    status, _, err = call_cli(*options, "--run", whole)
    assert status == 0 and "which reaches a top-1 of" in err and "(augmented, smoothed, distilled)" in err, err
    with monkeypatch.context() as patched:
        interrupt_after_an_epoch(patched)
        assert call_cli(*options, "--run", cut)[0] == 130
    status, _, err = call_cli(*options, "--run", cut, "--resume")
    assert status == 0, err
    assert all(torch.equal(weights(whole)[name], value) for name, value in weights(cut).items())
    assert untimed(whole / "metrics.jsonl") == untimed(cut / "metrics.jsonl")
    state = newest(cut)
    assert not any("teacher" in key for part in state.values() if isinstance(part, dict) for key in part)
    # What the run says of it.
    noted = json.loads((cut / "environment.json").read_text())["teacher"]
    reached = json.loads((teacher / "result.json").read_text())
    assert noted["model"] == str(teacher / "model") and noted["architecture"] == "test_resnet"
    assert noted["top1"] == pytest.approx(reached["top1"]) and noted["params"] == reached["params"]
    assert f"{teacher / 'model'} (test_resnet), top-1" in (cut / "report.html").read_text()


def test_what_a_student_is_afterwards(teacher: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    assert call_cli(*OPTIONS, "--train.teacher", teacher, "--train.epochs=1", "--run", run)[0] == 0
    result = json.loads((run / "result.json").read_text())
    status, out, err = call_cli("evaluate", run, "--json")
    assert status == 0 and json.loads(out)["top1"] == pytest.approx(result["top1"]), err
    assert result["params"] == sum(value.numel() for value in weights(run).values())
    model = dasvit.TrainedModel(run)
    status, out, err = call_cli("cost", run, "--json")
    assert status == 0 and json.loads(out)["params"] == result["params"], err
    for target in ("torch", "onnx", "hub"):
        if target == "onnx":
            pytest.importorskip("onnxscript")
        exported = model.export(target)
        assert exported.difference < 1e-5
    card = (run / "export" / "hub" / "README.md").read_text()
    assert "what a teacher says: test\\_resnet, top-1" in card and str(teacher) not in card
    # It is begun with, without the teacher and with one: the token stays.
    more = ["--train.epochs=1", "--data.limit=100", "--train.batch_size=50"]
    for number, teaching in enumerate(([], ["--train.teacher", teacher])):
        place = tmp_path / f"finetune{number}"
        status, _, err = call_cli("train", "--init", run, *more, "--train.teacher=", *teaching, "--run", place)
        assert status == 0, err
        assert weights(place).keys() == weights(run).keys()


def test_a_network_without_a_token_learns_with_its_plain_logits(teacher: Path, tmp_path: Path) -> None:
    for name in ("test_resnet", "vit"):
        options = ["--train.teacher", str(teacher), "--train.epochs=1", "--train.drop_path=0"]
        model = dasvit.train(
            name, recipe=Config(), run=tmp_path / name, quiet=True, options=_options([*OPTIONS[2:], *options])
        )
        names = load_file(model.folder / "model.safetensors").keys()
        assert any(key.startswith("head_dist") for key in names) == (name == "vit")
    assert call_cli(*OPTIONS, *options, "--train.teacher_token=false", "--run", tmp_path / "cell")[0] == 0
    assert "head_dist.weight" not in weights(tmp_path / "cell")


def _options(arguments: list[str]) -> dict[str, Any]:
    """Return options of a command line as those of Python."""
    import yaml

    flat = [part for argument in arguments if not argument.startswith("--config") for part in argument.split("=", 1)]
    return {name.removeprefix("--"): yaml.safe_load(value) for name, value in zip(flat[::2], flat[1::2], strict=True)}


def test_the_teacher_disturbs_nothing(teacher: Path, tmp_path: Path) -> None:
    """With a weight of 0, and no token, a training is to the bit what it is without a teacher."""
    assert call_cli(*OPTIONS, "--run", tmp_path / "without")[0] == 0
    ignored = ["--train.teacher", teacher, "--train.teacher_weight=0", "--train.teacher_token=false"]
    assert call_cli(*OPTIONS, *ignored, "--run", tmp_path / "with")[0] == 0
    one, two = weights(tmp_path / "without"), weights(tmp_path / "with")
    assert one.keys() == two.keys() and all(torch.equal(one[name], two[name]) for name in one)
    assert untimed(tmp_path / "without/metrics.jsonl") == untimed(tmp_path / "with/metrics.jsonl")


def test_two_processes_end_where_one_does(forks: ForkServer, teacher: Path, tmp_path: Path) -> None:
    alike = ['--train.augment={"crop_padding":1,"mixup":0,"cutmix":0,"erasing":0}', "--train.drop_path=0"]
    options = [*OPTIONS, *alike, "--train.batch_size=25", "--train.epochs=1", "--train.teacher", teacher]
    for processes in (1, 2):
        run = tmp_path / str(processes)
        assert forks.run(*options, "--run", run, float64=True, processes=processes) == 0, forks.said()
    assert difference(newest(tmp_path / "2"), newest(tmp_path / "1")) < 1e-9
    noted = [json.loads((tmp_path / n / "environment.json").read_text())["teacher"] for n in "12"]
    assert noted[0] == noted[1]


def test_a_changed_teacher_is_refused(teacher: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    other = tmp_path / "teacher"
    shutil.copytree(teacher, other)
    options = [*OPTIONS, "--run", tmp_path / "run"]
    with monkeypatch.context() as patched:
        patched.chdir(tmp_path)
        interrupt_after_an_epoch(patched)
        assert call_cli(*options, "--train.teacher=teacher")[0] == 130
    assert recipes.load(tmp_path / "run" / "config.yaml").train.teacher == str(other)
    status, _, err = call_cli(*options, "--train.teacher", teacher)
    assert status == 2 and "already holds another run" in err and "train.teacher" in err
    changed = {name: value + 1 for name, value in weights(other).items() if value.is_floating_point()}
    save_file({**weights(other), **changed}, other / "model" / "model.safetensors", metadata={"format": "pt"})
    status, _, err = call_cli(*options, "--train.teacher", other)
    assert status == 2 and "has other weights now than when the run" in err


@pytest.mark.parametrize(
    "name, sentence",
    [
        ("nowhere/at/all", "there is no teacher nowhere/at/all"),
        ("resnet_of_nobody", "there is no teacher resnet_of_nobody"),
        ("resnet18", "are not on this disk, and nothing is fetched for it: train it on these images first"),
        ("resnet50_small", "there are no published weights for the teacher resnet50_small"),
        ("CLASSES", "knows the 3 classes a, b, c, but the data have the 10 classes"),
        ("ORDER", "in another order"),
    ],
)
def test_teachers_that_cannot_teach(name: str, sentence: str, tmp_path: Path) -> None:
    names = {"CLASSES": ("a", "b", "c"), "ORDER": CLASSES[::-1]}.get(name)
    if names:
        model, name = make_model("test_resnet", config_of().model, len(names)), str(tmp_path / "teacher")
        save_model(model, name, class_names=names, input_size=(3, 8, 8), mean=HALF, std=HALF)
    for command in (OPTIONS, ["compare", "vit", *OPTIONS[2:]], ["search", *OPTIONS[2:]]):
        status, _, err = call_cli(*command, "--train.teacher", name, "--run", tmp_path / "run")
        assert status == 2 and sentence in " ".join(err.split()), err
        assert not (tmp_path / "run").exists()


def test_several_labels_are_refused(tmp_path: Path) -> None:
    labels = np.array([[1, 0], [1, 1]])
    check_training(TrainConfig(), labels)
    with pytest.raises(UserError, match=r"train.teacher is for one label an image"):
        check_training(TrainConfig(teacher="somebody"), labels)
    model = make_model("test_resnet", config_of().model, 2)
    sizes: dict[str, Any] = {"input_size": (3, 8, 8), "mean": HALF, "std": HALF}
    save_model(model, tmp_path / "m", class_names=("a", "b"), **sizes, extra={"multilabel": True})
    with pytest.raises(UserError, match="was trained on images of several labels"):
        find_teacher(str(tmp_path / "m"))


def test_a_searchs_training_teaches_and_a_student_goes_on_to_other_classes_without(
    small_run: Path, tmp_path: Path
) -> None:
    small = find_teacher(str(small_run))
    assert small.name == str(small_run / "train" / "model") and small.classes == CLASSES
    run, photos = tmp_path / "run", tmp_path / "photos"
    assert call_cli("train", "--cell", small_run, "--train.teacher", small_run, "--run", run)[0] == 0
    rng = np.random.default_rng(0)
    for name in ("ant", "bee"):
        for part, count in (("train", 20), ("val", 4)):
            (photos / part / name).mkdir(parents=True)
            for i in range(count):
                Image.fromarray(rng.integers(0, 256, (9, 9, 3), dtype=np.uint8)).save(photos / part / name / f"{i}.png")
    options = ["train", "--init", run, "--data.path", photos]
    status, _, err = call_cli(*options, "--run", tmp_path / "finetuned")
    assert status == 0 and "teacher:" not in err, err
    assert weights(tmp_path / "finetuned")["head_dist.weight"].shape[0] == 2
    dasvit.train(dasvit.TrainedModel(run), photos, run=tmp_path / "again", quiet=True)
    status, _, err = call_cli(*options, "--train.teacher", small_run, "--run", tmp_path / "other")
    assert status == 2 and "but the data have the 2 classes ant and bee" in err.replace("ant, bee", "ant and bee")


def test_a_name_of_timms_whose_weights_are_here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its classes are ImageNet's; of the weights, safetensors in the hub's cache are read, and nothing is fetched."""
    import timm

    model = timm.create_model("test_resnet").eval()
    save_file(dict(model.state_dict()), tmp_path / "model.safetensors", metadata={"format": "pt"})
    monkeypatch.setattr(distillation, "find_weights", lambda _: tmp_path / "model.safetensors")
    source = find_teacher("test_resnet")
    assert len(source.classes) == 1000 and source.classes[0] == "n01440764"
    images = torch.randn(1, 3, 160, 160)
    assert torch.equal(source.load().eval()(images), model(images))
    status, _, err = call_cli(*OPTIONS, "--train.teacher=test_resnet", "--run", tmp_path / "run")
    assert status == 2 and "test_resnet knows the 1,000 classes n01440764" in err


def test_an_estimates_steps_are_those_with_the_teacher(
    teacher: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = config_of(train={"teacher": str(teacher)})
    session = load_session(config, str(tmp_path / "run"), "train", Reporter(quiet=True))
    asked: list[int] = []
    forward = Teacher.forward

    def counted(self: Teacher, images: Tensor) -> Tensor:
        asked.append(len(images))
        return forward(self, images)

    monkeypatch.setattr(Teacher, "forward", counted)
    measure_pace(lambda: make_network(CELL, config.model, 10), session)
    assert len(asked) >= 3 and set(asked) == {50}
    asked.clear()
    without = replace(session, config=replace(config, train=replace(config.train, teacher="")))
    measure_pace(lambda: make_network(CELL, config.model, 10), without)
    assert not asked


def test_a_network_that_reads_the_patches_mean_takes_no_token() -> None:
    cell = load_genotype("dasvit_shift")
    model = ModelConfig(image_size=16, patch_size=4, width=16, layers=1, heads=2)
    assert takes_token(cell, model) and takes_token("vit", model) and not takes_token("resnet18", model)
    assert not takes_token(cell, replace(model, pool="avg")) and not takes_token("vit", replace(model, stem="conv"))
    sized = replace(cell, sizes=Sizes(width=24, layers=2, patch_size=4, image_size=16))
    built: Any = timm.create_model("dasvit_tiny_distilled_patch16_224", cell=sized.to_dict(), num_classes=3)
    assert built.embed_dim == 24 and built(torch.zeros(1, 3, 16, 16)).shape == (1, 3)
