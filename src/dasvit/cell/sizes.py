"""Sizes of a network around its cell: width, depth, patches, stem and pooling, with no torch in sight."""

from __future__ import annotations

from dataclasses import asdict, dataclass, fields, replace
from typing import Any, get_args

from dasvit.config import ModelConfig
from dasvit.config.fields import Pool, Stem
from dasvit.config.limits import MAX_IMAGE_SIDE, MAX_LAYERS, MAX_WIDTH
from dasvit.config.validation import check_patches, check_stem
from dasvit.errors import UserError

MOST = {"width": MAX_WIDTH, "layers": MAX_LAYERS, "patch_size": MAX_IMAGE_SIDE, "image_size": MAX_IMAGE_SIDE}
"""The largest value of every whole number."""


@dataclass(frozen=True, order=True)
class Sizes:
    """What a network is beside its cell. The names are those of a recipe's section model.

    Attributes:
        width: Embedding width D.
        layers: Encoder layers.
        patch_size: Side of a patch, in pixels.
        stem: patch, conv or cct (see `ModelConfig`).
        pool: token or avg.
        image_size: Side of the image, in pixels. 0: the recipe's.

    Raises:
        UserError: Sizes that no network has.
    """

    width: int
    layers: int
    patch_size: int
    stem: Stem = "patch"
    pool: Pool = "token"
    image_size: int = 0

    def __post_init__(self) -> None:
        """Check the sizes."""
        for name, most in MOST.items():
            value, least = getattr(self, name), 0 if name == "image_size" else 1
            if type(value) is not int or not least <= value <= most:
                raise UserError(f"a network's {name} must be a whole number of {least} to {most:,}, not {value!r}.")
        for name, known in (("stem", get_args(Stem)), ("pool", get_args(Pool))):
            if getattr(self, name) not in known:
                raise UserError(f"a network's {name} is {' or '.join(known)}, not {getattr(self, name)!r}.")
        check_stem(self.stem, self.patch_size)
        if self.image_size:
            check_patches(self.image_size, self.patch_size)

    @classmethod
    def of(cls, model: ModelConfig) -> Sizes:
        """Return the sizes that a recipe's section model says."""
        return cls(**{field.name: getattr(model, field.name) for field in fields(cls)})

    def within(self, model: ModelConfig) -> ModelConfig:
        """Return a recipe's section model with these sizes."""
        return replace(model, **{name: value for name, value in asdict(self).items() if value})

    def to_dict(self) -> dict[str, Any]:
        """Return the object that a genotype's file holds; no image size where the recipe's counts."""
        return {name: value for name, value in asdict(self).items() if value}

    @classmethod
    def from_dict(cls, content: Any) -> Sizes:
        """Read what `to_dict` wrote, strictly.

        Raises:
            UserError: Unknown or missing keys, or sizes that no network has.
        """
        known = [field.name for field in fields(cls)]
        if not isinstance(content, dict) or not set(known[:3]) <= set(content) <= set(known):
            raise UserError(f"a genotype's sizes are an object with {', '.join(known)}, not {content!r}.")
        return cls(**content)

    def __str__(self) -> str:
        """Write the sizes in words."""
        image = f" of an image of {self.image_size}" if self.image_size else ""
        stem = {"patch": "", "conv": ", convolutional stem", "cct": ", convolutional stem with pooling"}[self.stem]
        pool = "" if self.pool == "token" else ", mean of the patches"
        return f"width {self.width}, {self.layers} layers, patches of {self.patch_size}{image}{stem}{pool}"

    @property
    def brief(self) -> str:
        """Write them short, as 96 × 6, p4, conv, avg."""
        more = [name for name, usual in ((self.stem, "patch"), (self.pool, "token")) if name != usual]
        return ", ".join([f"{self.width} × {self.layers}", f"p{self.patch_size}", *more])
