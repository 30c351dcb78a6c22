"""Token maps: which patches every layer of a supernet keeps of a few test images, epoch by epoch (docs/report.md).

Nothing here draws random numbers, moves a weight or learns from an image: a search that is looked at ends as one that
is not. Shapes: n images, N tokens, P = N - 1 patches, L layers, S side of the network's image.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from dasvit.config import Config
from dasvit.data import Data, Preprocess
from dasvit.data.listing import spread_rows
from dasvit.data.multilabel import has_several, label_names
from dasvit.data.thumbnail import encode
from dasvit.io.run_folder import RunFolder
from dasvit.runtime.distributed import Runtime
from dasvit.search.supernet import Supernet

IMAGES, MAPS = "token_images.json", "tokens.jsonl"
"""The pictures themselves, once; and a line an epoch."""
COUNT = 4
"""Images that are looked at, of classes as far from each other in the list as can be."""
MOST_PATCHES = 1024
"""Patches of an image beyond which nothing is kept: the run folder is to stay small."""


class TokenMaps:
    """Looks at what the layers keep at an epoch's end, where tokens are selected at all.

    Args:
        data: The test images and classes.
        config: The recipe.
        runtime: Device and precision.
    """

    def __init__(self, data: Data, config: Config, runtime: Runtime) -> None:
        model = config.model
        self.runtime, self.grid = runtime, model.image_size // model.patch_size
        chosen = spread(data.test.labels, len(data.classes))
        looks = config.search.tokens.ratio < 1 and self.grid**2 <= MOST_PATCHES
        self.rows = chosen if looks else chosen[:0]
        self.names = [label_names(data.test.labels, row, data.classes) for row in self.rows.tolist()]
        self.pixels = torch.from_numpy(data.test.images[self.rows]).permute(0, 3, 1, 2)  # uint8 [n, 3, h, h]
        self.preprocess = Preprocess(model.image_size).to(runtime.device).eval()

    def begin(self, run: RunFolder, epochs: int) -> None:
        """Write the pictures, and drop the lines of epochs that the run is to do again.

        Args:
            run: The search's folder.
            epochs: Epochs of the whole search that have ended.
        """
        if len(self.rows):
            pictures = [
                {"class": name, "number": int(row), **encode(shown(image, self.preprocess.image_size))}
                for name, row, image in zip(self.names, self.rows, self.pixels, strict=True)
            ]
            run.write_json(IMAGES, {"grid": self.grid, "images": pictures})
            run.truncate(MAPS, epochs, exact=False)

    @torch.no_grad()
    def look(self, supernet: Supernet, weights: Tensor) -> dict[str, Any]:
        """Return an epoch's line less its place: `kept`, for every layer and image the kept patches' bits in hex.

        Args:
            supernet: The supernet.
            weights: Edge weights of a forward pass, [E, O] or [E, O + 1] with a bypass.
        """
        if not len(self.rows):
            return {}
        was_training = supernet.training
        supernet.eval()
        with self.runtime.autocast():
            kept = supernet.kept_tokens(self.preprocess(self.pixels.to(self.runtime.device)), weights)
        supernet.train(was_training)
        return {"kept": [[bits(row, self.grid**2) for row in places.cpu()] for places in kept]}


def spread(labels: NDArray[np.int64], classes: int) -> NDArray[np.int64]:
    """Return the places of the first images of COUNT classes spread over the list, fewer where there are fewer."""
    if has_several(labels):
        return spread_rows(len(labels), COUNT)
    wanted = np.unique(np.linspace(0, classes - 1, COUNT).round())
    found = [np.flatnonzero(labels == label)[:1] for label in wanted]
    return np.concatenate(found)


def bits(places: Tensor, patches: int) -> str:
    """Return tokens' places [K] (0: the class token) as P bits in hex, a patch each, row by row from the top left."""
    mask = np.zeros(patches, dtype=bool)
    mask[places[1:].numpy() - 1] = True
    return np.packbits(mask).tobytes().hex()


def shown(image: Tensor, side: int) -> NDArray[np.uint8]:
    """Return what the network sees of an image, uint8 [3, h, h] -> [s, s, 3]: its middle, where it is larger."""
    border = max(0, (image.shape[-1] - side) // 2)
    end = min(image.shape[-1], border + side)
    return np.ascontiguousarray(image[:, border:end, border:end].permute(1, 2, 0).numpy())
