"""The table of training steps by kind of supervision (`supervision` of a network)."""

from __future__ import annotations

from importlib import import_module

from torch import nn

from loftr_ros.training.settings import TrainingConfig
from loftr_ros.training.step import TrainingStep

STEPS = {
    'two_stage': 'loftr_ros.training.step:TwoStageStep',
    'window': 'loftr_ros.training.step:WindowStep',
    'patch_descriptor': 'loftr_ros.training.patch_descriptor:ContrastiveStep',
    'superglue': 'loftr_ros.training.superglue:SuperGlueStep',
    'superpoint': 'loftr_ros.training.superpoint:SuperPointStep',
}
"""`supervision` of a network -> 'module:class' of a TrainingStep."""


def make_step(network: nn.Module, config: TrainingConfig) -> TrainingStep:
    """Return the training step of a network."""
    module, _, attribute = STEPS[network.supervision].partition(':')
    return getattr(import_module(module), attribute).from_config(network, config)
