"""Time PyTorch's fused attention against two matrix products and a softmax, forward and backward.

    python benchmarks/attention.py --batch 128 --heads 4 --tokens 65 --width 128

Prints one JSON object: median milliseconds of each path in float32 and bfloat16 on the device at hand.
`dasvit.cell.ops.attend` chooses its path by these figures.
"""

import argparse
import json
import platform
import statistics
import time
from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional as F

Attention = Callable[[Tensor, Tensor, Tensor], Tensor]


def fused(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """Return attention from PyTorch's kernel; all are [B, H, N, D/H]."""
    return F.scaled_dot_product_attention(q, k, v)


def explicit(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """Return attention from two matrix products and a softmax; all are [B, H, N, D/H]."""
    scores = (q * q.shape[-1] ** -0.5) @ k.transpose(-2, -1)
    mixed: Tensor = scores.softmax(dim=-1) @ v
    return mixed


PATHS: dict[str, Attention] = {"fused": fused, "explicit": explicit}


def step(path: Attention, shape: tuple[int, ...], device: torch.device, dtype: torch.dtype) -> tuple[float, float]:
    """Return the milliseconds of one forward and one backward pass."""
    tensors = [torch.randn(shape, device=device, dtype=dtype, requires_grad=True) for _ in range(3)]
    gradient = torch.randn(shape, device=device, dtype=dtype)
    marks = [_now(device)]
    output = path(tensors[0], tensors[1], tensors[2])
    marks.append(_now(device))
    torch.autograd.grad(output, tensors, gradient)
    marks.append(_now(device))
    return (marks[1] - marks[0]) * 1e3, (marks[2] - marks[1]) * 1e3


def _now(device: torch.device) -> float:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter()


def compare(
    shape: tuple[int, ...], device: torch.device, dtype: torch.dtype, repeats: int
) -> dict[str, dict[str, float]]:
    """Time both paths in turn, so that a busy machine disturbs them alike; return the medians."""
    times: dict[str, list[tuple[float, float]]] = {name: [] for name in PATHS}
    for repeat in range(repeats + 3):
        for name, path in PATHS.items():
            measured = step(path, shape, device, dtype)
            if repeat >= 3:  # the first ones warm up
                times[name].append(measured)
    return {
        name: {
            "forward_ms": round(statistics.median(forward for forward, _ in measured), 3),
            "backward_ms": round(statistics.median(backward for _, backward in measured), 3),
        }
        for name, measured in times.items()
    }


def main() -> None:
    """Measure, and print the JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument("--heads", type=int, default=4)
    parser.add_argument("--tokens", type=int, default=65)
    parser.add_argument("--width", type=int, default=128)
    parser.add_argument("--repeats", type=int, default=30)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    args = parser.parse_args()
    device = torch.device(args.device)
    shape = (args.batch, args.heads, args.tokens, args.width // args.heads)
    result = {
        "shape": shape,
        "device": torch.cuda.get_device_name(device)
        if device.type == "cuda"
        else platform.processor() or platform.machine(),
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
        "float32": compare(shape, device, torch.float32, args.repeats),
        "bfloat16": compare(shape, device, torch.bfloat16, args.repeats),
    }
    print(json.dumps(result, indent=2))


if __name__ == "__main__":
    main()
