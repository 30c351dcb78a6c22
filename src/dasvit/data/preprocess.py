"""The last step, on the device: from uint8 pixels to what the network takes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F

MEAN = (0.5, 0.5, 0.5)
STD = (0.5, 0.5, 0.5)


class Preprocess(nn.Module):
    """Brings images to the network's size and range, and erases parts of them in training.

    Larger images lose their border (training crops have the size already), smaller ones are enlarged.

    Args:
        image_size: Side S of the network's input.
        mean: Mean of each channel, on a scale of 0 to 1.
        std: Standard deviation of each channel.
        erasing: Probability of random erasing (timm's, with noise), in training mode alone. It draws from
            python's global generator and from the device's.
    """

    def __init__(
        self, image_size: int, mean: Sequence[float] = MEAN, std: Sequence[float] = STD, erasing: float = 0.0
    ) -> None:
        super().__init__()
        self.image_size = image_size
        self.erasing = erasing
        # (x / 255 - mean) / std as one product and one sum. Constants: no checkpoint needs them.
        scale = 1 / (255 * torch.tensor(std))
        self.scale: torch.Tensor
        self.shift: torch.Tensor
        self.register_buffer("scale", scale.view(3, 1, 1), persistent=False)
        self.register_buffer("shift", (-torch.tensor(mean) / torch.tensor(std)).view(3, 1, 1), persistent=False)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Preprocess a batch.

        Args:
            images: uint8 [B, 3, h, h], on any device.

        Returns:
            float32 [B, 3, S, S] on the same device.
        """
        size = self.image_size
        height, width = images.shape[-2:]
        if height > size:
            top, left = (height - size) // 2, (width - size) // 2
            images = images[..., top : top + size, left : left + size]
        pixels = images.float()
        if height < size:
            pixels = F.interpolate(pixels, (size, size), mode="bilinear", antialias=True, align_corners=False)
        normal = pixels * self.scale.to(pixels.device) + self.shift.to(pixels.device)
        return self._erase(normal) if self.training and self.erasing else normal

    def _erase(self, images: torch.Tensor) -> torch.Tensor:
        from timm.data.random_erasing import RandomErasing

        erase: Any = RandomErasing  # timm's has no types
        erased: torch.Tensor = erase(self.erasing, mode="pixel", device=images.device)(images)
        return erased
