"""Order and augmentation of batches, and the last step on the device."""

from __future__ import annotations

import random
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from dasvit.config import AugmentConfig, DataConfig
from dasvit.data import (
    CropFlip,
    ImageSet,
    Loader,
    Preprocess,
    Transform,
    load_data,
    predict_transform,
    train_transform,
)
from dasvit.data.image_set import EncodedFiles, HeldPixels, LazyPixels
from dasvit.errors import UserError

STRONG = AugmentConfig(crop_scale=0.3, flip=0.5, randaugment="rand-m9-mstd0.5-inc1", color_jitter=0.3)
PLAIN = AugmentConfig(crop_padding=1, flip=0.5)


def image_set(images: int = 23, side: int = 8) -> ImageSet:
    pixels = np.random.default_rng(0).integers(256, size=(images, side, side, 3), dtype=np.uint8)
    return ImageSet(HeldPixels(pixels), np.arange(images, dtype=np.int64))


def loader_of(
    transform: Transform | None = None,
    *,
    images: ImageSet | None = None,
    seed: int = 0,
    shuffle: bool = True,
    drop_last: bool = False,
    workers: int = 0,
    rank: int = 0,
    world: int = 1,
) -> Loader:
    return Loader(
        image_set() if images is None else images,
        None,
        batch_size=5,
        transform=transform,
        seed=seed,
        shuffle=shuffle,
        drop_last=drop_last,
        workers=workers,
        rank=rank,
        world=world,
    )


def epoch(loader: Loader, number: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    """Return an epoch's images and labels, joined."""
    loader.set_epoch(number)
    images, labels = zip(*loader, strict=True)
    return torch.cat(images), torch.cat(labels)


def same(one: tuple[torch.Tensor, torch.Tensor], other: tuple[torch.Tensor, torch.Tensor]) -> bool:
    return torch.equal(one[0], other[0]) and torch.equal(one[1], other[1])


def test_plain_batches_hold_the_images_in_order() -> None:
    images = image_set()
    loader = loader_of(images=images, shuffle=False)
    pixels, labels = epoch(loader)
    assert len(loader) == 5 and pixels.dtype == torch.uint8 and labels.tolist() == list(range(23))
    assert torch.equal(pixels, torch.from_numpy(images.images[labels.numpy()]).permute(0, 3, 1, 2))
    assert len(loader_of(drop_last=True)) == len(list(loader_of(drop_last=True))) == 4
    some = Loader(images, np.array([4, 2]), batch_size=2, transform=None, seed=0, shuffle=False, drop_last=True)
    assert next(iter(some))[1].tolist() == [4, 2]


@pytest.mark.parametrize("config", [PLAIN, STRONG])
def test_epochs_differ_and_repeat(config: AugmentConfig) -> None:
    transform = train_transform(config, 8, 8)
    first = epoch(loader_of(transform))
    assert sorted(first[1].tolist()) == list(range(23)) and first[0].shape == (23, 3, 8, 8)
    assert same(first, epoch(loader_of(transform)))
    assert not torch.equal(first[1], epoch(loader_of(transform), 1)[1])
    assert not torch.equal(first[1], epoch(loader_of(transform, seed=1))[1])
    still = loader_of(transform, shuffle=False)
    assert not torch.equal(epoch(still, 0)[0], epoch(still, 1)[0])


@pytest.mark.parametrize("config", [PLAIN, STRONG])
def test_skipping_resumes_an_epoch(config: AugmentConfig) -> None:
    loader = loader_of(train_transform(config, 8, 8))
    loader.set_epoch(3)
    whole = list(loader)
    loader.skip(2)
    rest = list(loader)
    assert len(rest) == 3 and all(same(a, b) for a, b in zip(rest, whole[2:], strict=True))
    assert len(list(loader)) == 5


def test_global_generators_neither_matter_nor_move() -> None:
    transform = train_transform(STRONG, 8, 8)
    expected = epoch(loader_of(transform))
    random.seed(5), np.random.seed(5), torch.manual_seed(5)
    after = random.random(), np.random.rand(), torch.rand(1)
    random.seed(5), np.random.seed(5), torch.manual_seed(5)
    assert same(epoch(loader_of(transform)), expected)
    assert (random.random(), np.random.rand(), torch.rand(1)) == after


@pytest.mark.filterwarnings("ignore:This DataLoader will create")  # on a machine of one core
def test_workers_change_nothing(tmp_path: Path) -> None:
    transform = train_transform(STRONG, 8, 8)
    data = load_data(DataConfig(cache=str(tmp_path), limit=23), 8, seed=0)
    alone, helped = (
        loader_of(transform, images=data.train),
        loader_of(transform, images=data.train, workers=2),
    )
    state = torch.get_rng_state()
    assert same(epoch(helped, 1), epoch(alone, 1))
    assert torch.equal(torch.get_rng_state(), state)
    next(iter(helped))  # an epoch that is given up half way
    helped.skip(1)
    alone.skip(1)
    assert same(epoch(helped, 2), epoch(alone, 2))


@pytest.mark.parametrize("workers", [0, 1])
def test_a_broken_image_is_named_by_workers_too(tmp_path: Path, workers: int) -> None:
    (tmp_path / "a.png").write_bytes(b"")
    images = ImageSet(LazyPixels(EncodedFiles.of([str(tmp_path / "a.png")]), 8), np.zeros(1, dtype=np.int64))
    with pytest.raises(UserError, match=r"^cannot read the image [^\n]*a.png[^\n]*$"):
        list(loader_of(images=images, workers=workers))


@pytest.mark.parametrize("config", [PLAIN, STRONG])
def test_shards_make_up_the_batch(config: AugmentConfig) -> None:
    transform = train_transform(config, 8, 8)
    shards = [list(loader_of(transform, rank=rank, world=2)) for rank in range(2)]
    for number, (images, labels) in enumerate(loader_of(transform)):
        for rank in range(2):
            assert same(shards[rank][number], (images[rank::2], labels[rank::2]))


def test_too_large_a_batch_is_refused() -> None:
    with pytest.raises(UserError, match="batch_size is 5, but there are 3 images: lower batch_size"):
        loader_of(images=image_set(3), drop_last=True)
    assert len(loader_of(images=image_set(3))) == 1


def test_crop_and_flip_match_a_plain_loop() -> None:
    images = image_set(200).images[np.arange(200)]
    numbers = np.random.default_rng(1).integers(2**64, size=200, dtype=np.uint64)
    done = CropFlip(8, 2, 0.5)(images, numbers)
    seen = set()
    padded = np.pad(images, ((0, 0), (2, 2), (2, 2), (0, 0)))
    choices = [(flip, y, x) for flip in (1, -1) for y in range(5) for x in range(5)]
    for image, out in zip(padded, done.transpose(0, 2, 3, 1), strict=True):
        # A flip before the padding is a flip of the padded image.
        cuts = {(flip, y, x): image[:, ::flip][y : y + 8, x : x + 8] for flip, y, x in choices}
        seen.add(next(choice for choice, cut in cuts.items() if np.array_equal(cut, out)))
    assert len(seen) > 45  # of 50; 200 draws leave out one on average
    flips = CropFlip(8, 0, 0.25)(images, numbers) != images.transpose(0, 3, 1, 2)
    assert 30 < flips.any(axis=(1, 2, 3)).sum() < 70


@pytest.mark.parametrize("flip", [0.0, 1.0])
def test_certain_flips(flip: float) -> None:
    images = image_set().images[np.arange(23)]
    numbers = np.array([0, 2**64 - 1] * 11 + [7], dtype=np.uint64)
    expected = images[:, :, ::-1] if flip else images
    assert np.array_equal(CropFlip(8, 0, flip)(images, numbers), expected.transpose(0, 3, 1, 2))


@pytest.mark.parametrize(
    ("config", "image_size", "side"),
    [
        (AugmentConfig(crop_padding=2), 6, 6),
        (AugmentConfig(crop_padding=2), 16, 8),
        (AugmentConfig(crop_scale=0.5), 6, 6),
        (AugmentConfig(crop_scale=0.5), 16, 8),
        (AugmentConfig(crop_padding=2, color_jitter=0.2), 6, 6),
        (AugmentConfig(flip=0.5), 6, 8),
    ],
)
def test_crops_have_the_smaller_size(config: AugmentConfig, image_size: int, side: int) -> None:
    images, _ = epoch(loader_of(train_transform(config, image_size, 8)))
    assert images.shape == (23, 3, side, side)
    assert Preprocess(image_size)(images).shape == (23, 3, image_size, image_size)


def test_every_level_of_randaugment_works() -> None:
    transform = train_transform(AugmentConfig(randaugment="rand-m10-n4-mstd0-p1-inc1"), 8, 8)
    assert epoch(loader_of(transform, images=image_set(100)))[0].shape == (100, 3, 8, 8)


def test_augmentation_that_cannot_work_is_refused() -> None:
    assert train_transform(AugmentConfig(), 8, 8) is None
    for config, message in [
        (AugmentConfig(randaugment="rand-x9"), "augment.randaugment 'rand-x9' is not one of timm's"),
        (AugmentConfig(randaugment="auto"), "augment.randaugment 'auto'"),
        (AugmentConfig(crop_scale=0.0), "augment.crop_scale"),
        (AugmentConfig(flip=1.5), "augment.flip"),
        (AugmentConfig(erasing=-0.1), "augment.erasing"),
        (AugmentConfig(crop_padding=-1), "must not be negative"),
        (AugmentConfig(crop_padding=1, crop_scale=0.5), "both crop"),
    ]:
        with pytest.raises(UserError, match=message):
            train_transform(config, 8, 8)


def test_preprocess_scales_crops_and_enlarges() -> None:
    ramp = torch.arange(64, dtype=torch.uint8).view(1, 1, 8, 8).expand(2, 3, 8, 8)
    normal = Preprocess(8)(ramp)
    assert normal.dtype == torch.float32
    torch.testing.assert_close(normal, (ramp.float() / 255 - 0.5) / 0.5)
    torch.testing.assert_close(Preprocess(4)(ramp), normal[..., 2:6, 2:6])
    assert Preprocess(16)(ramp).shape == (2, 3, 16, 16)
    flat = torch.full((1, 3, 4, 4), 51, dtype=torch.uint8)
    other = Preprocess(8, mean=(0.1, 0.2, 0.3), std=(0.1, 0.2, 0.4))(flat)
    torch.testing.assert_close(other[0, :, 3, 3], torch.tensor([1.0, 0.0, -0.25]))
    assert not Preprocess(8).state_dict()


def test_erasing_is_for_training_alone() -> None:
    images = torch.full((16, 3, 16, 16), 255, dtype=torch.uint8)
    preprocess = Preprocess(16, erasing=1.0)
    erased = (preprocess(images) != 1).any(dim=1).flatten(1).float().mean(dim=1)
    assert (erased > 0).all() and (erased < 0.5).all()
    assert (preprocess.eval()(images) == 1).all()


@pytest.mark.parametrize(("source", "image_size"), [(8, 8), (8, 7), (8, 16), (8, 6), (40, 28)])
def test_prediction_sees_what_evaluation_sees(tmp_path: Path, source: int, image_size: int) -> None:
    small = np.random.default_rng(0).integers(256, size=(3, 3, 3), dtype=np.uint8)
    image = Image.fromarray(small).resize((source, source), Image.Resampling.BICUBIC)
    for part in ("train", "test"):
        for name in ("a", "b"):
            (tmp_path / part / name).mkdir(parents=True)
            image.save(tmp_path / part / name / "0.png")
    config = DataConfig(name="imagefolder", path=str(tmp_path), cache=str(tmp_path / "cache"))
    data = load_data(config, image_size, seed=0)
    preprocess = Preprocess(image_size).eval()
    evaluated = preprocess(epoch(loader_of(images=data.test))[0])
    predicted = preprocess(predict_transform(image_size, data.crop_pct)(image)[None])
    assert predicted.shape == (1, 3, image_size, image_size)
    assert (predicted - evaluated).abs().max() <= 1.01 * 2 / 255
