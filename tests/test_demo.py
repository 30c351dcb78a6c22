"""`dasvit demo`: probabilities and the attention of the last layer; gradio itself is stood in for."""

import json
import os
import sys
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from dasvit.cell import ops
from dasvit.cell.genotype import Genotype
from dasvit.config import ModelConfig
from dasvit.inference import demo
from dasvit.inference.demo import Seen, look, spotlight
from dasvit.models.attention import class_attention
from dasvit.models.baselines import make_model, make_network
from dasvit.training.classifier import Classifier
from helpers import call_cli

CONFIG = ModelConfig(image_size=12, patch_size=4, width=24, layers=2, heads=4)
CELL = Genotype.from_ops(2, ["mlp_1", "msa_2", "msa_8", "mlp_2", "zero"])


def images() -> torch.Tensor:
    return torch.randn(2, 3, 12, 12, generator=torch.Generator().manual_seed(0))


def test_attention_of_a_cell_against_what_its_operations_compute_with(monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    model = make_network(CELL, CONFIG, 3).eval()
    calls: list[torch.Tensor] = []

    def attend(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
        calls.append(torch.softmax(q @ k.mT / q.shape[-1] ** 0.5, dim=-1))
        return calls[-1] @ v

    with torch.no_grad():
        expected = model(images())
        logits, attention = class_attention(model, images())
        assert torch.equal(logits, expected) and attention is not None
        monkeypatch.setattr(ops, "attend", attend)
        model(images())
    assert len(calls) == 4, "two attentions a layer"
    raw = torch.stack([call[:, :, 0, 1:].mean(dim=1) for call in calls[2:]]).mean(dim=0)
    torch.testing.assert_close(attention.flatten(1), raw / raw.sum(dim=1, keepdim=True))
    assert attention.shape == (2, 3, 3) and not any(len(m._forward_hooks) for m in model.modules())


def test_attention_of_a_vit_against_timms_own_matrix() -> None:
    model = make_model("vit", CONFIG, 3).eval()
    matrices: list[torch.Tensor] = []
    attn = model.get_submodule("blocks.1.attn")
    attn.fused_attn = False  # type: ignore[assignment]
    attn.get_submodule("attn_drop").register_forward_hook(lambda _, args, __: matrices.append(args[0]))
    with torch.no_grad():
        _, attention = class_attention(model, images())
    raw = matrices[0][:, :, 0, 1:].mean(dim=1)
    assert attention is not None
    torch.testing.assert_close(attention.flatten(1), raw / raw.sum(dim=1, keepdim=True))


@pytest.mark.parametrize("name", ["cell", "test_resnet"])
def test_networks_without_attention(name: str) -> None:
    bare = Genotype.from_ops(2, ["mlp_1", "mlp_2", "identity", "mlp_2", "zero"])
    model = make_network(bare, CONFIG, 3) if name == "cell" else make_model(name, CONFIG, 3)
    logits, attention = class_attention(model.eval(), images())
    assert logits.shape == (2, 3) and attention is None


def test_the_spotlight_falls_where_the_attention_is() -> None:
    attention = np.zeros((4, 4), dtype=np.float32)
    attention[1, 2] = 1
    seen = Seen({}, np.full((8, 8, 3), 200, dtype=np.uint8), attention)
    drawn = np.asarray(spotlight(seen).convert("L")).astype(float)
    side = demo.SHOWN // 4
    means = drawn.reshape(4, side, 4, side).mean(axis=(1, 3))
    assert np.unravel_index(means.argmax(), (4, 4)) == (1, 2) and drawn.max() <= 200
    assert drawn[-1, 0] == pytest.approx(200 * demo.DARKEST, abs=1)
    plain = np.asarray(spotlight(Seen({}, seen.pixels, None)))
    assert (plain == 200).all()


@pytest.fixture
def photo(tmp_path: Path) -> Path:
    pixels = np.random.default_rng(0).integers(0, 256, (20, 30, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / "photo.png")
    return tmp_path / "photo.png"


class Gradio(ModuleType):
    """gradio, as far as the demo calls it."""

    class Error(Exception):
        pass

    def __init__(self) -> None:
        super().__init__("gradio")
        self.__spec__ = ModuleSpec("gradio", None, origin="here")
        self.themes = SimpleNamespace(Default=lambda **options: options)
        self.launched: dict[str, Any] = {}

    def Image(self, **options: Any) -> dict[str, Any]:
        return options

    Label = Image

    def Interface(self, answer: Any, *parts: Any, **options: Any) -> Any:
        self.answer, self.options = answer, options
        self.environment = os.environ.get("GRADIO_ANALYTICS_ENABLED")
        return SimpleNamespace(launch=self.launch, block_thread=lambda: None)

    def launch(self, **options: Any) -> tuple[None, str, str]:
        if options["server_port"] == 81:
            raise OSError("Cannot find empty port")
        self.launched = options
        return None, "http://127.0.0.1:7860/", ""


def test_the_command_serves_this_machine_alone(small_run: Path, photo: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fake = Gradio()
    monkeypatch.setitem(sys.modules, "gradio", fake)
    for name in demo.OFFLINE:
        monkeypatch.setenv(name, "")  # to be put back as it was
    status, out, err = call_cli("demo", small_run, "--device", "cpu")
    assert status == 0 and out == "http://127.0.0.1:7860/ (Ctrl-C ends it)\n", err
    assert fake.launched["server_name"] == "127.0.0.1" and fake.launched["share"] is False
    assert fake.environment == "False" and fake.options["analytics_enabled"] is False
    shares, picture = fake.answer(str(photo))
    told = json.loads(call_cli("predict", small_run, photo, "--top=10", "--json")[1])["images"][0]["predictions"]
    assert shares == pytest.approx({p["label"]: p["probability"] for p in told}) and picture.size == (384, 384)
    assert fake.answer(None) == (None, None)
    photo.write_bytes(b"no image")
    with pytest.raises(Gradio.Error, match="no known image format"):
        fake.answer(str(photo))
    status, _, err = call_cli("demo", small_run, "--port", 81)
    assert status == 2 and "give --port another number" in err
    assert fake.options["examples"] is None


def test_a_shipped_model_comes_with_pictures_to_click(monkeypatch: pytest.MonkeyPatch) -> None:
    fake = Gradio()
    monkeypatch.setitem(sys.modules, "gradio", fake)
    for name in demo.OFFLINE:
        monkeypatch.setenv(name, "")
    assert call_cli("demo", "cifar10", "--device", "cpu")[0] == 0
    assert len(fake.options["examples"]) == 10
    shares, _ = fake.answer(next(path for path in fake.options["examples"] if path.endswith("ship.png")))
    assert max(shares, key=shares.__getitem__) == "ship"


def test_what_is_seen_is_what_predict_says(small_run: Path, photo: Path) -> None:
    classifier = Classifier(small_run / "train" / "model", torch.device("cpu"))
    seen = look(classifier, str(photo))
    assert sum(seen.shares.values()) == pytest.approx(1) and list(seen.shares) == [str(i) for i in range(10)]
    assert seen.pixels.shape == (classifier.described.side, classifier.described.side, 3)


def test_mistakes(small_run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert "--port must lie between" in call_cli("demo", small_run, "--port", 70000)[2]
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    status, out, err = call_cli("demo", small_run)
    assert (status, out) == (2, "") and "pip install 'dasvit[demo]'" in err
