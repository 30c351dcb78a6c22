"""A network of images of any size gives the same numbers in threads, in scripts, in traces and in exported files.

What eager PyTorch gives is held against networks that were set to one size (`test_images_of_any_size`).
"""

import io
import sys
import threading
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor
from torch.export import Dim

from dasvit.cell.genotype import Genotype
from dasvit.models.attention import class_attention
from dasvit.models.dasvit import DasViT
from dasvit.models.distilled import DistilledDasViT
from dasvit.models.skeleton import resample_positions

CELL = Genotype.from_ops(2, ["shift_0.5", "msa_2", "zero", "shift_2", "mlp_1"])
SIZES = [(32, 32), (16, 64), (48, 24)]
"""A square, an oblong image of as many patches, and one of others."""
Function = Callable[[Tensor], Tensor]

pytestmark = [
    pytest.mark.fault("another size, thread, runtime or exporter"),
    # TorchScript is on its way out of PyTorch and says so; timm still asks for it.
    pytest.mark.filterwarnings("ignore:.*torch.jit:DeprecationWarning", "ignore:.*torch.jit:FutureWarning"),
    pytest.mark.filterwarnings("ignore::torch.jit.TracerWarning"),  # timm compares the sizes of images
    pytest.mark.filterwarnings("ignore:You are using the legacy TorchScript-based ONNX export:DeprecationWarning"),
]


KINDS = [DasViT, DistilledDasViT]


def make(dynamic: bool = True, depth: int = 2, kind: type[DasViT] = DasViT) -> DasViT:
    torch.manual_seed(0)
    sizes: dict[str, Any] = {"img_size": 32, "patch_size": 8, "num_classes": 4, "embed_dim": 12, "depth": depth}
    network = kind(CELL, **sizes, dynamic_img_size=dynamic)
    torch.nn.init.normal_(network.embed.pos_embed)
    return network.eval()


def images(size: tuple[int, int], batch: int = 2) -> Tensor:
    return torch.randn(batch, 3, *size, generator=torch.Generator().manual_seed(1))


def hold_to(network: DasViT, other: Function, sizes: list[tuple[int, int]] = SIZES) -> None:
    with torch.no_grad():
        for size in sizes:
            torch.testing.assert_close(other(images(size)), network(images(size)), rtol=0, atol=1e-5)


# --- threads ----------------------------------------------------------------------------------------------------------


@pytest.fixture
def hasty() -> Iterator[None]:
    """Let threads take turns as often as they can."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(before)


@pytest.mark.usefixtures("hasty")
def test_two_threads_share_a_network() -> None:
    network = make()
    found: dict[tuple[int, int], list[Tensor]] = {(32, 32): [], (16, 64): []}
    with torch.no_grad():
        expected = {size: network(images(size)) for size in found}

    def work(size: tuple[int, int]) -> None:
        with torch.no_grad():
            found[size] += [network(images(size)) for _ in range(100)]

    threads = [threading.Thread(target=work, args=(size,)) for size in found]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [sum(torch.equal(x, expected[size]) for x in outputs) for size, outputs in found.items()] == [100, 100]


@pytest.mark.parametrize("method", ["forward", "forward_intermediates"])
def test_another_size_between_two_layers(method: str) -> None:
    """What two threads do by chance: a pass at one size begins while one at another is between two layers."""
    network = make(depth=3)  # nothing of what the last layer shifts reaches the class token

    def first(output: Any) -> Tensor:
        return output if isinstance(output, Tensor) else output[0]

    with torch.no_grad():
        expected = first(getattr(network, method)(images((32, 32))))
        begun: list[bool] = []

        def interrupt(*_: object) -> None:
            if not begun:
                begun.append(True)
                network(images((16, 64)))

        network.blocks[0].register_forward_hook(interrupt)
        assert torch.equal(first(getattr(network, method)(images((32, 32)))), expected)


# --- scripts and traces -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
def test_scripted(kind: type[DasViT]) -> None:
    network = make(kind=kind)
    hold_to(network, torch.jit.script(network))


def test_scripted_at_a_size_of_its_own_it_takes_no_other() -> None:
    network = make(dynamic=False)
    scripted = torch.jit.script(network)
    hold_to(network, scripted, [(32, 32)])
    with pytest.raises(torch.jit.Error, match="doesn't match model"):
        scripted(images((16, 64)))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("size", SIZES)
def test_traced_at_any_size(size: tuple[int, int], kind: type[DasViT]) -> None:
    network = make(kind=kind)
    hold_to(network, torch.jit.trace(network, images(size)))


def test_gradients_of_a_trace() -> None:
    """A trace has autograd's gradient of the shift, not the one written by hand."""
    network = make()
    traced = torch.jit.trace(network, images((32, 32)))
    network(images((16, 64))).square().sum().backward()
    expected = [parameter.grad for parameter in network.parameters()]
    network.zero_grad()
    traced(images((16, 64))).square().sum().backward()
    for parameter, gradient in zip(network.parameters(), expected, strict=True):
        torch.testing.assert_close(parameter.grad, gradient, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(("old", "new"), [((4, 4), (2, 8)), ((3, 5), (8, 2)), ((14, 14), (7, 30)), ((6, 6), (6, 6))])
def test_positions_in_a_trace_are_pillows_too(old: tuple[int, int], new: tuple[int, int]) -> None:
    """The bicubic interpolation of a trace against eager PyTorch's, and against Pillow's, which PyTorch's follows."""
    positions = torch.randn(1, 1 + old[0] * old[1], 3, generator=torch.Generator().manual_seed(0))

    def resample(positions: Tensor) -> Tensor:
        return resample_positions(positions, old, new)

    found = torch.jit.trace(resample, positions)(positions)
    torch.testing.assert_close(found, resample(positions), rtol=0, atol=1e-5)
    table = positions[0, 1:].unflatten(0, old).numpy()
    for channel in range(3):
        picture = Image.fromarray(table[..., channel]).resize(new[::-1], Image.Resampling.BICUBIC)
        np.testing.assert_allclose(found[0, 1:, channel].unflatten(0, new).numpy(), np.asarray(picture), atol=1e-5)


# --- files ------------------------------------------------------------------------------------------------------------


def onnxruntime_of(file: io.BytesIO) -> Function:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(file.getvalue(), options, providers=["CPUExecutionProvider"])
    return lambda x: torch.from_numpy(session.run(None, {session.get_inputs()[0].name: x.numpy()})[0])


def through_the_older_exporter(network: DasViT, size: tuple[int, int], free: bool) -> Function:
    axes = {"images": {0: "batch", 2: "height", 3: "width"}} if free else None
    file: Any = io.BytesIO()  # which the annotations do not know
    torch.onnx.export(
        network, (images(size),), file, dynamo=False, input_names=["images"], dynamic_axes=axes, verbose=False
    )
    return onnxruntime_of(file)


def through_the_newer_exporter(network: DasViT, size: tuple[int, int], free: bool) -> Function:
    shapes = ({0: "batch", 2: Dim.DYNAMIC, 3: Dim.DYNAMIC},) if free else None
    written: Any = torch.onnx.export(network, (images(size),), dynamo=True, dynamic_shapes=shapes, verbose=False)
    file = io.BytesIO()
    written.save(file)
    return onnxruntime_of(file)


def through_export(network: DasViT, size: tuple[int, int], free: bool) -> Function:
    shapes = ({2: Dim.DYNAMIC, 3: Dim.DYNAMIC},) if free else None
    program: Function = torch.export.export(network, (images(size),), dynamic_shapes=shapes).module()
    return program


WAYS = [through_export, through_the_older_exporter, through_the_newer_exporter]


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning", "ignore::UserWarning")
@pytest.mark.parametrize("kind", KINDS)
def test_a_file_for_each_size(way: Callable[..., Function], kind: type[DasViT]) -> None:
    network = make(kind=kind)
    for size in SIZES:
        hold_to(network, way(network, size, free=False), [size])


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning", "ignore::UserWarning")
@pytest.mark.parametrize("kind", KINDS)
def test_a_file_for_all_sizes(way: Callable[..., Function], kind: type[DasViT]) -> None:
    network = make(kind=kind)
    hold_to(network, way(network, (48, 24), free=True))


# --- compiled ---------------------------------------------------------------------------------------------------------


def compiles() -> bool:
    from torch._inductor.cpp_builder import get_cpp_compiler

    try:
        return bool(get_cpp_compiler())
    except Exception:  # PyTorch has an error of its own for that
        return False


@pytest.mark.skipif(not compiles(), reason="no C++ compiler")
@pytest.mark.parametrize("kind", KINDS)
def test_compiled(
    kind: type[DasViT], tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path_factory.mktemp("inductor")))
    torch._dynamo.reset()
    torch.manual_seed(0)
    cell = Genotype.from_ops(1, ["msa_2", "shift_1"])
    sizes: dict[str, Any] = {"img_size": 32, "patch_size": 8, "num_classes": 4, "embed_dim": 12, "depth": 1}
    network = kind(cell, **sizes, dynamic_img_size=True).eval()
    hold_to(network, torch.compile(network, dynamic=True))


# --- pictures ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", SIZES)
def test_attention_lies_on_the_images_own_grid(size: tuple[int, int]) -> None:
    cell = Genotype.from_ops(1, ["msa_2", "shift_1"])
    network = DasViT(cell, 32, 8, num_classes=4, embed_dim=12, depth=2, dynamic_img_size=True).eval()
    logits, maps = class_attention(network, images(size))
    assert maps is not None and maps.shape == (2, size[0] // 8, size[1] // 8)
    fixed = DasViT(cell, 32, 8, num_classes=4, embed_dim=12, depth=2).eval()
    fixed.load_state_dict(network.state_dict())
    fixed.set_input_size(size)
    torch.testing.assert_close((logits, maps), class_attention(fixed, images(size)))
