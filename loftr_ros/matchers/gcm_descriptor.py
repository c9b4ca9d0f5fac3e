"""The patch descriptor F_0 of the matcher `gcm`: hand-made, or a network with weights."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import torch
from torch import Tensor, nn

from loftr_ros.config import MatcherConfig
from loftr_ros.errors import ConfigError, did_you_mean
from loftr_ros.matchers.inference import Inference, overlapping_pair
from loftr_ros.networks.base import dtype_of
from loftr_ros.networks.gcm import DESCRIPTORS
from loftr_ros.networks.patch_descriptor import PatchDescriptor
from loftr_ros.weights import CHECKPOINTS
from loftr_ros.weights.convert import load_network

NETWORK = 'patch_descriptor'


def create_descriptor(config: MatcherConfig, notes: dict[str, str]) -> nn.Module | None:
    """Return the module of `(1, 1, H, W) -> (H, W, C)` that `config.gcm.descriptor` names; None for none.

    Raises:
        ConfigError: no descriptor and no weights have that name, or their licence was not accepted.
        InputError: the file of the weights is missing, or does not contain weights of a patch descriptor.
    """
    name = config.gcm.descriptor
    inference = Inference('gcm', config, notes)
    if name == 'none':
        return None
    if name in DESCRIPTORS:
        return DESCRIPTORS[name]().to(inference.device).eval()
    known = ['none', *DESCRIPTORS, *(entry.name for entry in CHECKPOINTS.values() if entry.matcher == NETWORK)]
    if name not in CHECKPOINTS and '=' not in name and not Path(name).suffix:
        raise ConfigError(f'matcher.gcm.descriptor is {name!r}; {did_you_mean(name, known)}, or a file of weights')
    network, _ = load_network(NETWORK, name, config.accept_license)
    return inference.prepare(network, lambda prepared: _features_of_pair(prepared, inference))


@torch.inference_mode()
def _features_of_pair(network: PatchDescriptor, inference: Inference) -> Iterable[Tensor]:
    """Return the descriptors of a fixed pair of images, for the test of half precision."""
    images = [inference.inputs(image, dtype_of(network))[0] for image in overlapping_pair(8)]
    return [network(image) for image in images]  # strip by strip, in less memory than at once
