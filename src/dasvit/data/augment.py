"""Augmentation of training batches, each image driven by a random number of its own.

A transform takes uint8 [B, h, w, 3] and a uint64 number for each image [B], and returns uint8 [B, 3, H, W].
The numbers are all of its randomness: a batch depends neither on who makes it nor on what was made before.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, ImageOps

from dasvit.config import AugmentConfig
from dasvit.errors import UserError

Transform = Callable[[NDArray[np.uint8], NDArray[np.uint64]], NDArray[np.uint8]]


def train_transform(config: AugmentConfig, image_size: int, native_size: int) -> Transform | None:
    """Build the augmentation of training images, at their own size or the network's, whichever is smaller.

    Random erasing is left to `Preprocess`; mixup and cutmix to the training step.

    Args:
        config: Which augmentation, and how strong.
        image_size: Side S of the network's input.
        native_size: Side of the images in the set, `ImageSet.size`.

    Returns:
        A transform; None where there is nothing to do.

    Raises:
        UserError: A value of the configuration cannot work.
    """
    _check(config)
    size = min(image_size, native_size)
    if not (config.randaugment or config.color_jitter or config.crop_scale < 1):
        if not (config.crop_padding or config.flip):
            return None
        return CropFlip(size if config.crop_padding else native_size, config.crop_padding, config.flip)
    return EachImage(_pil_transforms(config, size))


def _check(config: AugmentConfig) -> None:
    if not 0 < config.crop_scale <= 1:
        raise UserError(f"augment.crop_scale must lie in (0, 1], not {config.crop_scale}.")
    for name, value in {"flip": config.flip, "erasing": config.erasing}.items():
        if not 0 <= value <= 1:
            raise UserError(f"augment.{name} is a probability and must lie in [0, 1], not {value}.")
    if config.crop_padding < 0 or config.color_jitter < 0:
        raise UserError("augment.crop_padding and augment.color_jitter must not be negative.")
    if config.crop_padding and config.crop_scale < 1:
        raise UserError("augment.crop_padding and augment.crop_scale both crop: set crop_padding 0 or crop_scale 1.")


def _pil_transforms(config: AugmentConfig, size: int) -> list[Callable[[Image.Image], Image.Image]]:
    # timm takes a second to import, which neither evaluation nor the plain crop should wait for.
    from timm.data.transforms import RandomResizedCropAndInterpolation as ResizedCrop
    from torchvision.transforms import ColorJitter, RandomCrop, RandomHorizontalFlip

    steps: list[Callable[[Image.Image], Image.Image]] = []
    if config.crop_padding:
        steps.append(RandomCrop(size, padding=config.crop_padding))
    if config.crop_scale < 1:
        resized_crop: Any = ResizedCrop
        steps.append(resized_crop(size, (config.crop_scale, 1.0), interpolation="bicubic"))
    if config.flip:
        steps.append(RandomHorizontalFlip(config.flip))
    if config.randaugment:
        steps.append(_rand_augment(config.randaugment, size))
    if config.color_jitter:
        steps.append(ColorJitter(*[config.color_jitter] * 3))
    return steps


def _rand_augment(text: str, size: int) -> Any:
    from timm.data.auto_augment import rand_augment_transform

    # As timm's own training does: shifts up to 45 % of the side, holes filled with grey.
    try:
        built = rand_augment_transform(text, {"translate_const": int(size * 0.45), "img_mean": (128, 128, 128)})
    except (AssertionError, ValueError, KeyError):
        raise UserError(
            f"augment.randaugment {text!r} is not one of timm's strings, such as rand-m9-mstd0.5-inc1."
        ) from None
    for operation in built.ops:
        if operation.name.startswith("Posterize"):
            operation.aug_fn = _posterize
    return built


def _posterize(image: Image.Image, bits: int, **unused: Any) -> Image.Image:
    """Posterize to one bit at least: timm's strongest level asks for none, which newer PIL refuses."""
    return image if bits >= 8 else ImageOps.posterize(image, max(1, bits))


@dataclass(frozen=True)
class CropFlip:
    """Random crop after padding with black, and horizontal flip, of a whole batch at once.

    Attributes:
        size: Side of the crop.
        padding: Pixels added on each side.
        flip: Probability of the flip.
    """

    size: int
    padding: int
    flip: float

    def __call__(self, images: NDArray[np.uint8], numbers: NDArray[np.uint64]) -> NDArray[np.uint8]:
        """Transform a batch; see the module."""
        p, s = self.padding, self.size
        flipped = (numbers >> np.uint64(40)) < self.flip * 2**24
        images = np.where(flipped[:, None, None, None], images[:, :, ::-1], images) if self.flip else images
        if not p:
            return np.ascontiguousarray(images.transpose(0, 3, 1, 2))
        padded = np.pad(images, ((0, 0), (p, p), (p, p), (0, 0)))
        windows = np.lib.stride_tricks.sliding_window_view(padded, (s, s), axis=(1, 2))
        # 20 bits each for the offsets, 24 for the flip: unrelated parts of one number.
        choices = np.uint64(padded.shape[1] - s + 1)
        y = (numbers & np.uint64(0xFFFFF)) % choices
        x = (numbers >> np.uint64(20) & np.uint64(0xFFFFF)) % choices
        return np.ascontiguousarray(windows[np.arange(len(images)), y.astype(int), x.astype(int)])


@dataclass(frozen=True)
class EachImage:
    """Transforms of PIL images, one image after the other.

    Attributes:
        steps: Functions from RGB to RGB, which draw from the global random generators.
    """

    steps: list[Callable[[Image.Image], Image.Image]]

    def __call__(self, images: NDArray[np.uint8], numbers: NDArray[np.uint64]) -> NDArray[np.uint8]:
        """Transform a batch; see the module."""
        done = []
        with borrowed_generators() as reseed:
            for pixels, number in zip(images, numbers.tolist(), strict=True):
                reseed(number)
                image = Image.fromarray(pixels)
                for step in self.steps:
                    image = step(image)
                done.append(np.asarray(image))
        if not done:
            return np.empty((0, 3, *images.shape[1:3]), dtype=np.uint8)
        return np.ascontiguousarray(np.stack(done).transpose(0, 3, 1, 2))


@contextmanager
def borrowed_generators() -> Iterator[Callable[[int], None]]:
    """Lend the global generators of python, numpy and torch (CPU), and give them back as they were.

    timm and torchvision draw from these and take no other. Yields a function that seeds all three.
    """
    states = random.getstate(), np.random.get_state(), torch.default_generator.get_state()
    try:
        yield _reseed
    finally:
        random.setstate(states[0])
        np.random.set_state(states[1])
        torch.default_generator.set_state(states[2])


def _reseed(number: int) -> None:
    random.seed(number)
    np.random.seed(number & 0xFFFFFFFF)
    torch.default_generator.manual_seed(number >> 1)  # it takes 63 bits
