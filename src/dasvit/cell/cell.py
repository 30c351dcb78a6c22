"""The derived cell: one chosen operation an edge."""

from functools import partial

import torch
from torch import Tensor, fx, nn
from torchvision.ops import StochasticDepth

from dasvit.cell.genotype import Genotype
from dasvit.cell.graph import live_edges, walk
from dasvit.cell.ops import Block, Grid, grid_argument, make_operation


class Cell(nn.Module):
    """An encoder layer as its genotype says (method, section 2).

    Its operations are submodules named by their edge, as `prev1_x2`.

    Args:
        genotype: The cell.
        dim: Embedding width D.
        drop_path: Rate at which an image leaves out an attention or MLP (stochastic depth).
    """

    def __init__(self, genotype: Genotype, dim: int, drop_path: float = 0.0) -> None:
        super().__init__()
        self.nodes = genotype.nodes
        self.names = [f"{edge.source}_{edge.target}" for edge in genotype.edges]
        self.kept = set(live_edges(genotype))
        for i in sorted(self.kept):
            self.add_module(self.names[i], make_operation(genotype.edges[i].op, dim))
        self.parametric = {i for i in self.kept if genotype.edges[i].op != "identity"}
        self.drop_path = StochasticDepth(drop_path, mode="row") if drop_path else nn.Identity()
        for i in sorted(self.kept):
            operation = self.get_submodule(self.names[i])
            if isinstance(operation, Block):  # what it adds to its own skips is left out, not these
                operation.drop_path = self.drop_path
                self.parametric.discard(i)

    def forward(self, prev2: Tensor, prev1: Tensor, grid: Grid) -> Tensor:
        """Return the layer's output from those of the two before it, each [B, N, D].

        Args:
            prev2: Output of the layer before the previous one.
            prev1: Output of the previous layer.
            grid: Rows and columns of the N - 1 patches.
        """
        output = walk(self.nodes, prev2, prev1, partial(self._edge, grid=grid))
        return torch.zeros_like(prev1) if output is None else output

    def _edge(self, index: int, x: Tensor, grid: Grid) -> Tensor | None:
        if index not in self.kept:
            return None
        operation = self.get_submodule(self.names[index])
        output: Tensor = operation(x, **grid_argument(operation, grid))
        return self.drop_path(output) if index in self.parametric else output

    def __prepare_scriptable__(self) -> nn.Module:
        """Return the cell as TorchScript can read it: the walk, which takes a function, written out."""
        return fx.GraphModule(self, _OperationTracer().trace(self))


class _OperationTracer(fx.Tracer):
    """Records a cell's graph as calls of its operations, without looking into them."""

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        return True
