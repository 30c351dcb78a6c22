"""Our supernet and plain DARTS are the same mathematics: outputs and gradients, in float64 to 1e-10."""

import torch
from torch import nn
from torch.nn import functional as F

from dasvit.cell.space import Space
from dasvit.config import TokensConfig
from dasvit.search.architecture import Architecture
from dasvit.search.bilevel import first_order
from dasvit.search.plain_darts import PlainSupernet
from dasvit.search.supernet import Supernet

OPERATIONS = ("zero", "identity", "msa_2", "msa_4", "msa_8", "mlp_0.5", "mlp_1", "mlp_2")


def close(one: torch.Tensor | None, other: torch.Tensor | None) -> None:
    torch.testing.assert_close(one, other, rtol=1e-10, atol=1e-10)


def test_same_outputs_same_gradients() -> None:
    torch.manual_seed(0)
    space = Space(2, OPERATIONS)
    ours = Supernet(
        space,
        space.everything(),
        image_size=8,
        patch_size=2,
        dim=16,
        layers=2,
        num_classes=5,
        tokens=TokensConfig(ratio=1.0),
    ).double()
    for parameter in ours.parameters():
        nn.init.normal_(parameter, std=0.3)
    plain = PlainSupernet(space, image_size=8, patch_size=2, dim=16, layers=2, num_classes=5).double()
    plain.load_state_dict(ours.state_dict())
    architecture = Architecture(space, space.everything(), init_std=1.0).double()
    images, labels = torch.randn(4, 3, 8, 8, dtype=torch.float64), torch.tensor([0, 1, 2, 3])

    close(ours(images, architecture()), plain(images, architecture()))

    def loss() -> torch.Tensor:
        return F.cross_entropy(ours(images, architecture()), labels)

    (gradient,) = first_order(loss, [architecture.alpha], list(ours.parameters()))
    alpha = architecture.alpha.detach().clone().requires_grad_()
    F.cross_entropy(plain(images, alpha.softmax(dim=-1)), labels).backward()
    plain.zero_grad()
    close(gradient, alpha.grad)

    loss().backward()
    F.cross_entropy(plain(images, architecture().detach()), labels).backward()
    theirs = dict(plain.named_parameters())
    for name, parameter in ours.named_parameters():
        close(parameter.grad, theirs[name].grad)
