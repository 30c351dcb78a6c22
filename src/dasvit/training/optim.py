"""Optimisers and schedules of the weights, timm's."""

from __future__ import annotations

from timm.optim._optim_factory import create_optimizer_v2
from timm.scheduler.cosine_lr import CosineLRScheduler
from torch import nn
from torch.optim import Optimizer

from dasvit.config import OptimConfig


def make_optimizer(model: nn.Module, config: OptimConfig) -> Optimizer:
    """Return AdamW; vectors and what the model's `no_weight_decay` names are spared the decay.

    It is PyTorch's fused one: on a CPU a step takes a quarter of the time.
    """
    optimizer: Optimizer = create_optimizer_v2(
        model, opt="adamw", lr=config.lr, weight_decay=config.weight_decay, filter_bias_and_bn=True, fused=True
    )
    return optimizer


def warmup_remark(config: OptimConfig, epochs: int, section: str) -> str:
    """Return what to say of a warm-up that leaves no epoch behind it; nothing of others.

    Args:
        config: Rates and warm-up.
        epochs: Epochs of the whole schedule.
        section: Where the recipe has them, as train.optim.
    """
    if config.warmup_epochs < epochs:
        return ""
    field = f"{section}.warmup_epochs"
    return (
        f"{field} {config.warmup_epochs:g} is not shorter than the {epochs} epoch{'s' * (epochs > 1)} that there are: "
        f"the warm-up is cut to them, so the learning rate rises until the last step. --{field} {epochs / 10:g} "
        "leaves it time to fall."
    )


def make_schedule(optimizer: Optimizer, config: OptimConfig, epochs: int, steps: int) -> CosineLRScheduler:
    """Return a cosine with warm-up, a function of the number of steps alone: call `step_update(done)`.

    A warm-up that is not shorter than the schedule is cut to all but its last step.

    Args:
        optimizer: Its learning rates are set.
        config: Rates and warm-up.
        epochs: Epochs of the whole schedule.
        steps: Steps of an epoch.
    """
    warmup = min(round(config.warmup_epochs * steps), epochs * steps - 1)
    schedule = CosineLRScheduler(
        optimizer,
        t_initial=epochs * steps,
        lr_min=config.min_lr,
        warmup_t=warmup,
        warmup_lr_init=config.warmup_lr,
        warmup_prefix=False,
        t_in_epochs=False,
    )
    schedule.step_update(0)
    return schedule
