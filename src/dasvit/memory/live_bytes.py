"""Bytes alive while a network trains, counted where no arithmetic is done.

`LiveBytes` watches every tensor that PyTorch's operators make, forward and backward, until its storage is freed: its
peak is the allocator's, without what that rounds up, keeps for later or lends to matrix libraries. It counts on any
device. On the meta device this costs neither memory nor arithmetic, and `Pretend` lets code that runs there take the
paths that it would take on a CPU or a GPU: the device that tensors report, autocast, and the fused attention kernel.

Shapes: B images, H heads, N tokens, D width.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from functools import cache
from typing import Any, Literal

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

Kind = Literal["cpu", "cuda"]

LOWER = frozenset(
    {"linear", "matmul", "__matmul__", "__rmatmul__", "mm", "bmm", "addmm", "addbmm", "baddbmm"}
    | {"einsum", "conv2d", "scaled_dot_product_attention"}
)
"""What autocast runs in its own precision, of the functions that vision transformers call."""
FLOAT32: Mapping[Kind, frozenset[str]] = {
    "cpu": frozenset({"prod"}),
    "cuda": frozenset(
        {"layer_norm", "softmax", "log_softmax", "logsumexp", "cross_entropy", "nll_loss", "norm"}
        | {"sum", "cumsum", "prod", "exp", "log", "pow", "__pow__", "square", "rsqrt"}
    ),
}
"""What it runs in float32."""

_Made = tuple[torch.Size, tuple[int, ...], torch.dtype]  # sizes, strides and type of a tensor


class LiveBytes(TorchDispatchMode):
    """Counts the bytes of all storages that are made within it (or held) and not yet freed.

    Args:
        batch: A large prime, the batch of what runs: sizes that it divides are counted an image. 0: none are.

    Attributes:
        live: Bytes alive now, those that do not depend on the batch and those of one image.
        curve: The same after every allocation, in order.
    """

    def __init__(self, batch: int = 0) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.batch = batch
        self.live = (0, 0)
        self.curve: list[tuple[int, int]] = []
        self._storages: dict[int, weakref.ref[Any]] = {}

    @property
    def peak(self) -> int:
        """The most bytes that were alive."""
        return max((constant + an_image * self.batch for constant, an_image in self.curve), default=0)

    def hold(self, tensors: Iterable[Tensor]) -> None:
        """Count tensors, made before or just now, once a storage."""
        for tensor in tensors:
            storage = tensor.untyped_storage()
            if storage._cdata not in self._storages:
                self._add(storage)

    def _add(self, storage: torch.UntypedStorage) -> None:
        key, size = storage._cdata, storage.nbytes()
        grows = self.batch and size % self.batch == 0
        constant, an_image = (0, size // self.batch) if grows else (size, 0)

        def freed(_: object) -> None:
            del self._storages[key]
            self.live = (self.live[0] - constant, self.live[1] - an_image)

        self._storages[key] = weakref.ref(storage, freed)
        self.live = (self.live[0] + constant, self.live[1] + an_image)
        self.curve.append(self.live)

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        with torch._C.DisableTorchFunction():  # Pretend is for the code that is counted
            output = _run(func, args, kwargs or {})
            made: list[Tensor] = []
            _read(output, made, [])
            self.hold(made)
        return output


_KNOWN: dict[tuple[Any, ...], list[_Made | None] | None] = {}
"""What operators make of their arguments on the meta device, where looking a shape up is faster than working it out."""


def _run(func: Any, args: Any, kwargs: Any) -> Any:
    """Run an operator; on the meta device, only where its outputs' shapes are not yet known."""
    if _writes(func) and args[0].is_meta:
        return args[0]
    inputs: list[Tensor] = []
    signature: list[Any] = [func]
    _read([args, kwargs], inputs, signature)
    if not any(tensor.is_meta for tensor in inputs):
        return func(*args, **kwargs)
    if func is torch.ops.aten._local_scalar_dense.default:
        return torch.ones((), dtype=inputs[0].dtype).item()  # a number that nobody can know here
    if func is torch.ops.aten.index.Tensor:
        args = (args[0], _as_if_all(args[1]))
    if not func._schema.returns:
        return None  # it writes into lists of tensors
    key = tuple(signature)
    known = _KNOWN.get(key)
    if known is not None:
        return _make(func, known)
    output = func(*args, **kwargs)
    _KNOWN.setdefault(key, _describe(output, inputs))
    return output


def _as_if_all(indices: list[Tensor | None]) -> list[Tensor | None]:
    """Return indices in which masks leave nothing out: their values are not known."""
    found: list[Tensor | None] = []
    for index in indices:
        if index is not None and index.is_meta and index.dtype == torch.bool:
            found += [index.new_empty(index.numel(), dtype=torch.int64)] * index.ndim
        else:
            found.append(index)
    return found


@cache
def _writes(func: Any) -> bool:
    """Tell whether all that an operator does is write values into its first argument."""
    returns = func._schema.returns
    in_place = func._schema.name.endswith("_") and len(returns) == 1 and returns[0].alias_info
    return bool(in_place) and torch.Tag.inplace_view not in func.tags


def _describe(output: Any, inputs: list[Tensor]) -> list[_Made | None] | None:
    """Return what an operator made, or None where it did not make new tensors."""
    outputs = list(output) if type(output) in (list, tuple) else [output]
    tensors = [item for item in outputs if isinstance(item, Tensor)]
    if len(tensors) < sum(item is not None for item in outputs):
        return None
    taken = {tensor.untyped_storage()._cdata for tensor in inputs}
    if len(taken | {tensor.untyped_storage()._cdata for tensor in tensors}) < len(taken) + len(tensors):
        return None  # a view
    return [None if item is None else (item.shape, item.stride(), item.dtype) for item in outputs]


def _make(func: Any, known: list[_Made | None]) -> Any:
    """Return on the meta device what an operator returned the first time."""
    made = [item and torch.empty_strided(item[0], item[1], dtype=item[2], device="meta") for item in known]
    returns = func._schema.returns
    if len(returns) > 1:
        return tuple(made)
    return made if isinstance(returns[0].type, torch.ListType) else made[0]


_PLAIN = frozenset({int, float, bool, str, type(None), torch.dtype, torch.device, torch.layout, torch.memory_format})
"""Types that are told from tensors at once: asking whether something is a tensor takes a while."""


def _read(tree: Any, tensors: list[Tensor], signature: list[Any]) -> None:
    """Collect the tensors of an operator's arguments, and all that its outputs' shapes depend on."""
    kind = type(tree)
    if kind in (list, tuple):
        signature.append(len(tree))
        for item in tree:
            _read(item, tensors, signature)
    elif kind is dict:
        signature += tree
        for item in tree.values():
            _read(item, tensors, signature)
    elif kind not in _PLAIN and isinstance(tree, Tensor):
        tensors.append(tree)
        signature += (tree.shape, tree.stride(), tree.dtype, tree.is_meta)
    else:
        signature += (kind, tree)


class Pretend(TorchFunctionMode):
    """Lets code on meta tensors behave as on a device: a CPU, or a GPU (which need not be there).

    Tensors report the device. Within `autocast`, functions cast their arguments as that device's autocast does (which
    itself knows no meta tensors), and keep the casts of weights as it does. Attention keeps what the fused kernels
    keep: queries, keys, values, output, and a sum's logarithm for every row.

    Args:
        kind: cpu or cuda.
    """

    def __init__(self, kind: Kind) -> None:
        super().__init__()
        self.kind: Kind = kind
        self._casts: dict[int, tuple[Tensor, Tensor]] = {}
        properties: dict[str, object] = {
            "device": torch.device(kind),
            "is_meta": False,
            "is_cpu": kind == "cpu",
            "is_cuda": kind == "cuda",
        }
        self._getters = {getattr(Tensor, name).__get__: value for name, value in properties.items()}

    @contextmanager
    def autocast(self, enabled: bool = True) -> Iterator[None]:
        """Run matrix products in bfloat16, where enabled."""
        before = torch.is_autocast_enabled(self.kind), torch.get_autocast_dtype(self.kind)
        torch.set_autocast_enabled(self.kind, enabled)
        torch.set_autocast_dtype(self.kind, torch.bfloat16)
        try:
            yield
        finally:
            torch.set_autocast_enabled(self.kind, before[0])
            torch.set_autocast_dtype(self.kind, before[1])
            self._casts.clear()

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func in self._getters and args[0].is_meta:
            return self._getters[func]
        if func in (torch.autograd.grad, torch.autograd.backward, Tensor.backward):
            return self._backward(func, args, kwargs)
        if func is Tensor.tolist and args[0].is_meta:
            return torch.ones(args[0].shape, dtype=args[0].dtype).tolist()  # numbers that nobody can know here
        args = tuple(map(self._place, args))
        kwargs = {name: self._place(value) for name, value in kwargs.items()}
        precision = self._precision(getattr(func, "__name__", ""))
        if precision is not None:
            args, kwargs = self._to(args, precision), self._to(kwargs, precision)
        if func is F.scaled_dot_product_attention and args[0].is_meta:
            return _FusedAttention.apply(*args[:3])
        return func(*args, **kwargs)

    def _backward(self, func: Callable[..., Any], args: Any, kwargs: Any) -> Any:
        """Stay in force within a backward pass, though a mode is set aside while it handles a call."""
        autograd: Any = torch.autograd
        run = autograd._engine_run_backward

        def run_within(*args: Any, **kwargs: Any) -> Any:
            with self:
                return run(*args, **kwargs)

        autograd._engine_run_backward = run_within
        try:
            return func(*args, **kwargs)
        finally:
            autograd._engine_run_backward = run

    def _place(self, argument: Any) -> Any:
        """Return the meta device for the device that is pretended."""
        named = type(argument) is torch.device and argument.type == self.kind
        return torch.device("meta") if named else argument

    def _precision(self, name: str) -> torch.dtype | None:
        """Return what autocast casts the arguments of the function of that name to, if to anything."""
        if not torch.is_autocast_enabled(self.kind):
            return None
        if name in LOWER:
            return torch.get_autocast_dtype(self.kind)
        return torch.float32 if name in FLOAT32[self.kind] else None

    def _to(self, tree: Any, dtype: torch.dtype) -> Any:
        if type(tree) in (list, tuple):
            return type(tree)([self._to(item, dtype) for item in tree])
        if type(tree) is dict:
            return {name: self._to(value, dtype) for name, value in tree.items()}
        if type(tree) in _PLAIN or not isinstance(tree, Tensor) or not tree.is_meta:
            return tree
        if tree.dtype == dtype or not tree.is_floating_point() or tree.dtype == torch.float64:
            return tree
        if tree.dtype == torch.float32 and tree.is_leaf and tree.requires_grad and not tree._is_view():
            # A weight: autocast keeps its cast to the end.
            if id(tree) not in self._casts:
                self._casts[id(tree)] = tree, tree.to(dtype)
            return self._casts[id(tree)][1]
        return tree.to(dtype)


class _FusedAttention(torch.autograd.Function):
    """What the fused kernels allocate. They lay the output out as [B, N, H, D/H], where joining the heads is free."""

    @staticmethod
    def forward(ctx: Any, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        batch, heads, tokens, width = q.shape
        output = q.new_empty(batch, tokens, heads, width).transpose(1, 2)
        ctx.save_for_backward(q, k, v, output, q.new_empty(batch, heads, tokens, dtype=torch.float32))
        return output

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Any:
        return tuple(torch.empty_like(tensor) for tensor in ctx.saved_tensors[:3])
