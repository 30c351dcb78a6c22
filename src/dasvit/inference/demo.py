"""A trained model in the browser: drop an image, see its classes and what the last layer attends to."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from dasvit.errors import UserError, printable
from dasvit.extras import need
from dasvit.io.run_folder import find_model
from dasvit.io.shipped import drawings_of
from dasvit.models.attention import class_attention
from dasvit.runtime.distributed import find_device
from dasvit.training.classifier import Classifier

SHOWN = 384
"""Side of the picture of the attention, in pixels."""
DARKEST = 0.15
"""What is left of the light where nothing is attended to."""
OFFLINE = {"GRADIO_ANALYTICS_ENABLED": "False", "HF_HUB_DISABLE_TELEMETRY": "1", "DO_NOT_TRACK": "1"}
"""What keeps gradio from telling anybody, and from asking whether it is the newest."""
FONTS = ["system-ui", "sans-serif"]
"""Of the reader's machine: gradio's own come from Google."""


@dataclass(frozen=True)
class Seen:
    """What a model makes of an image.

    Attributes:
        shares: Probability of every class by name.
        pixels: What the model was shown, uint8 [S, S, 3].
        attention: Of the last layer's class token to the patches, [rows, columns], adding up to 1; None where there is
            none.
    """

    shares: dict[str, float]
    pixels: NDArray[np.uint8]
    attention: NDArray[np.float32] | None


@torch.inference_mode()
def look(classifier: Classifier, path: str) -> Seen:
    """Show a model an image file."""
    pixels = classifier.described.shown(path)
    logits, attention = class_attention(classifier.model, classifier.inputs(pixels[None]))
    return Seen(
        dict(zip(classifier.described.classes, classifier.shares_of(logits)[0].tolist(), strict=True)),
        pixels.permute(1, 2, 0).numpy(),
        None if attention is None else attention[0].cpu().numpy(),
    )


def spotlight(seen: Seen) -> Image.Image:
    """Draw what the model saw, the brighter the more is attended to; evenly, where there is no attention."""
    picture = Image.fromarray(seen.pixels).resize((SHOWN, SHOWN), Image.Resampling.BICUBIC)
    if seen.attention is None:
        return picture
    light = Image.fromarray(seen.attention / seen.attention.max()).resize((SHOWN, SHOWN), Image.Resampling.BILINEAR)
    lit = np.asarray(picture) * (DARKEST + (1 - DARKEST) * np.asarray(light)[..., None])
    return Image.fromarray(lit.round().astype(np.uint8))


def open_app(model: str, device: str) -> Any:
    """Return gradio's page of a trained model: an image in; classes, and what the last layer attends to, out.

    Args:
        model: Run folder of a training, a model folder, or the name of one that comes with the package.
        device: Where the model computes, by name.

    Raises:
        UserError: gradio or the model is not there.
    """
    need("demo", "gradio")
    os.environ.update(OFFLINE)
    folder = find_model(model)
    classifier = Classifier(folder, find_device(device))
    import gradio

    def answer(path: str | None) -> tuple[dict[str, float] | None, Image.Image | None]:
        if path is None:
            return None, None
        try:
            seen = look(classifier, path)
        except UserError as error:
            raise gradio.Error(printable(error)) from None
        return seen.shares, spotlight(seen)

    names = classifier.described.classes
    side = classifier.described.side
    return gradio.Interface(
        answer,
        gradio.Image(type="filepath", image_mode=None, sources=["upload", "clipboard"], label="An image"),
        [
            gradio.Label(num_top_classes=min(5, len(names)), label="Probabilities"),
            gradio.Image(label="Attention of the last layer", format="png", buttons=[]),
        ],
        live=True,
        title=f"dasvit: {printable(Path(model).resolve().name)}",
        description=f"Tells {len(names)} classes apart in images of {side} × {side} pixels.",
        flagging_mode="never",
        examples=drawings_of(folder) or None,
        cache_examples=False,
        analytics_enabled=False,
        delete_cache=(600, 600),
    )


def serve(app: Any, host: str, port: int) -> str:
    """Serve a page, and return its address.

    Args:
        app: What `open_app` returns.
        host: Address to listen at.
        port: Port to listen at. 0: the first free one from 7860 on.

    Raises:
        UserError: There is no listening there.
    """
    import gradio

    theme = gradio.themes.Default(font=FONTS, font_mono=["ui-monospace", "monospace"])
    options = {"theme": theme, "share": False, "ssr_mode": False, "footer_links": [], "quiet": True}
    try:
        _, address, _ = app.launch(server_name=host, server_port=port or None, prevent_thread_lock=True, **options)
    except OSError as error:
        raise UserError(f"cannot serve on {host}, port {port} ({error}): give --port another number.") from None
    return str(address)
