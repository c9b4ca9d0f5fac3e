"""Weights of small random networks that match textured images."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import torch

from loftr_ros.weights import Checkpoint, save
from loftr_ros.weights.convert import build_network

SETTINGS = {
    'loftr': {
        'initial_dim': 8,
        'block_dims': (8, 16, 32),
        'coarse_layers': ('self', 'cross'),
        'heads': 4,
        'positional_encoding': 'fixed',
        'temperature': 0.02,
    },
    'efficient_loftr': {'widths': (8, 8, 16, 64), 'blocks': (1, 1, 2), 'layers': 1, 'heads': 4, 'temperature': 0.05},
    'superpoint': {
        'widths': (8, 16, 16, 32),
        'head': 32,
        'descriptor': 32,
        'downsample': 'stride',
        'batch_norm': True,
        'sampling': 'exact',
    },
    'superglue': {
        'descriptor': 32,
        'encoder': (16,),
        'layers': ('self', 'cross'),
        'heads': 4,
        'sinkhorn_iterations': 20,
    },
}


def save_tiny(name: str, folder: Path, detector: str = '', **settings) -> str:
    """Write weights of the network `name` into `folder` and return the file.

    `detector`: of SuperGlue, weights of its SuperPoint.
    """
    checkpoint = Checkpoint(
        name=f'tiny_{name}', matcher=name, network={**SETTINGS[name], **settings}, detector=detector
    )
    torch.manual_seed(0)
    network = build_network(checkpoint)
    with torch.no_grad():
        SPREAD.get(name, _spread)(network)
    path = folder / f'{checkpoint.name}.safetensors'
    save(path, network.state_dict(), checkpoint)
    return str(path)


def _spread(network) -> None:
    """Make random coarse features unlike at unlike places: as drawn, all of them point the same way."""
    for name, parameter in network.named_parameters():
        if 'norm2' in name:
            parameter.mul_(0.1)  # a random transformer at full strength makes all features alike
    for module in network.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.momentum = 1.0  # the statistics become those of the next image
    image = _noise()
    inputs = []
    if hasattr(network.backbone, 'layer3_outconv'):
        hook = network.backbone.layer3_outconv.register_forward_hook(lambda _module, args, _output: inputs.append(args))
        network.backbone.train()(image)
        hook.remove()
        mean = torch.nn.functional.normalize(inputs[0][0].mean((0, 2, 3)), dim=0)
        weight = network.backbone.layer3_outconv.weight[:, :, 0, 0]
        weight -= (weight @ mean)[:, None] * mean
        weight *= 4  # beside position, which has size 1
    else:
        network.backbone.train()(image)
        network.backbone.layer3[-1].rbr_identity.bias -= 1.0  # cuts off what all cells have in common


def _spread_superpoint(network) -> None:
    """Take from random descriptors what all of them have in common, and make scores differ."""
    for module in network.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.momentum = 1.0  # the statistics become those of the next image
    network.train()(_noise(), budget=4)
    network.convPb.weight *= 3
    outputs = []
    hook = network.convDb.register_forward_hook(lambda _module, _inputs, output: outputs.append(output))
    network.eval()(_noise(), budget=4)
    hook.remove()
    network.convDb.bias -= outputs[0].mean((0, 2, 3))


def _spread_superglue(network) -> None:
    """Make layers change little and the final projection keep the descriptors."""
    for mlp in (network.kenc.encoder, *(layer.mlp for layer in network.gnn.layers)):
        mlp[-1].weight *= 0.05
    network.final_proj.weight.copy_(10 * torch.eye(len(network.final_proj.bias))[..., None])


def _noise() -> torch.Tensor:
    noise = cv2.GaussianBlur(np.random.default_rng(0).standard_normal((256, 256)).astype(np.float32), (0, 0), 2)
    return torch.from_numpy(0.5 + 0.2 * noise / noise.std())[None, None]


SPREAD = {'superpoint': _spread_superpoint, 'superglue': _spread_superglue}


def conv_and_norm():
    """Return two layers, always with the same random weights: a state of 7 tensors, one of them of integers."""
    torch.manual_seed(0)
    return torch.nn.Sequential(torch.nn.Conv2d(1, 2, 3), torch.nn.BatchNorm2d(2))
