"""The training step of each network, by the name of its matcher."""

from __future__ import annotations

from importlib import import_module

from torch import nn

from loftr_ros.training.settings import TrainingConfig

STEPS = {
    'loftr': 'loftr_ros.training.step:TrainingStep',
    'efficient_loftr': 'loftr_ros.training.step:TrainingStep',
    'superglue': 'loftr_ros.training.superglue:SuperGlueStep',
    'superpoint': 'loftr_ros.training.superpoint:SuperPointStep',
}
"""Matcher -> 'module:class'. A step is a module with `from_config(network, config)`, `truth(batch, seeds)`,
`forward(batch, truth, counts) -> StepOutput` and `count_matches(batch) -> MatchCount`."""


def make_step(matcher: str, network: nn.Module, config: TrainingConfig) -> nn.Module:
    """Return the training step of a network."""
    module, _, attribute = STEPS[matcher].partition(':')
    return getattr(import_module(module), attribute).from_config(network, config)
