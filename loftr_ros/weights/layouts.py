"""Conversion of weights of the package transformers to the names of the authors, which our networks have.

Only names, the order of attention channels and trailing axes of length one change, never a number.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any

from loftr_ros.networks import NETWORKS

SUPERGLUE_HEADS = 4
"""Attention heads of every published SuperGlue."""


def matcher_of(state: Mapping[str, Any]) -> str:
    """Return the matcher of these weights, '' if unknown."""
    return next((name for name, entry in NETWORKS.items() if entry.mark in state), '')


def to_official(state: dict[str, Any]) -> dict[str, Any]:
    """Return `state` (tensor by name) in the authors' layout; other weights are returned unchanged."""
    if any(name.startswith('efficientloftr.') for name in state):
        return {_rename(name, _EFFICIENT_LOFTR): tensor for name, tensor in state.items()}
    if any(name.startswith('keypoint_encoder.') for name in state):
        # The file of transformers also contains the SuperPoint that SuperGlue was trained with.
        own = {name: tensor for name, tensor in state.items() if not name.startswith('keypoint_detector.')}
        return {_rename(name, _SUPERGLUE): _superglue_tensor(name, tensor) for name, tensor in own.items()}
    if any(name.startswith('keypoint_decoder.conv_score') for name in state):
        return {_rename(name, _SUPERPOINT): tensor for name, tensor in state.items()}
    if 'ops.0.weight' in state:
        # R2D2's two heads score pixels as keypoints; GCM matches all pixels and does not need them.
        return {name: tensor for name, tensor in state.items() if not name.startswith(('clf.', 'sal.'))}
    return state


Rule = tuple[str, str | Callable[[re.Match], str]]

_EFFICIENT_LOFTR: tuple[Rule, ...] = (
    (r'^efficientloftr\.backbone\.stages\.0\.blocks\.0\.', 'backbone.layer0.'),
    (r'^efficientloftr\.backbone\.stages\.(\d+)\.blocks\.', r'backbone.layer\1.'),
    (r'\.conv1\.(conv|norm)\.', r'.rbr_dense.\1.'),
    (r'\.conv2\.(conv|norm)\.', r'.rbr_1x1.\1.'),
    (r'(rbr_\w+)\.norm\.', r'\1.bn.'),
    (r'\.identity\.', '.rbr_identity.'),
    (
        r'^efficientloftr\.local_feature_transformer\.layers\.(\d+)\.(self|cross)_attention\.',
        lambda found: f'loftr_coarse.layers.{2 * int(found[1]) + (found[2] == "cross")}.',
    ),
    (r'aggregation\.q_aggregation\.', 'aggregate.'),
    (r'aggregation\.norm\.', 'norm1.'),
    (r'attention\.o_proj\.', 'merge.'),
    (r'attention\.([qkv]_proj)\.', r'\1.'),
    (r'mlp\.fc1\.', 'mlp.0.'),
    (r'mlp\.fc2\.', 'mlp.2.'),
    (r'mlp\.layer_norm\.', 'norm2.'),
    (r'^refinement_layer\.out_conv\.', 'fine_preprocess.layer3_outconv.'),
    (r'^refinement_layer\.out_conv_layers\.(\d+)\.', lambda found: f'fine_preprocess.layer{2 - int(found[1])}_'),
    (r'_out_conv1\.', '_outconv.'),
    (r'_out_conv2\.', '_outconv2.0.'),
    (r'_batch_norm\.', '_outconv2.1.'),
    (r'_out_conv3\.', '_outconv2.3.'),
)

_SUPERPOINT: tuple[Rule, ...] = (
    (r'^encoder\.conv_blocks\.(\d+)\.conv_([ab])\.', lambda found: f'conv{int(found[1]) + 1}{found[2]}.'),
    (r'^keypoint_decoder\.conv_score_([ab])\.', r'convP\1.'),
    (r'^descriptor_decoder\.conv_descriptor_([ab])\.', r'convD\1.'),
)

_SUPERGLUE: tuple[Rule, ...] = (
    # The authors count convolution, batch norm and ReLU of the encoder, transformers counts them as one block.
    (
        r'^keypoint_encoder\.encoder\.(\d+)\.(linear\.|batch_norm\.|)',
        lambda found: f'kenc.encoder.{3 * int(found[1]) + (found[2] == "batch_norm.")}.',
    ),
    (r'attention\.self\.query\.', 'attn.proj.0.'),
    (r'attention\.self\.key\.', 'attn.proj.1.'),
    (r'attention\.self\.value\.', 'attn.proj.2.'),
    (r'attention\.output\.dense\.', 'attn.merge.'),
    (r'mlp\.1\.', 'mlp.3.'),
    (r'mlp\.0\.batch_norm\.', 'mlp.1.'),
    (r'mlp\.0\.linear\.', 'mlp.0.'),
    (r'^final_projection\.', ''),
)


def _rename(name: str, rules: tuple[Rule, ...]) -> str:
    for pattern, replacement in rules:
        name = re.sub(pattern, replacement, name)
    return name


def _superglue_tensor(name: str, tensor):
    """Return a tensor of transformers in the authors' order and shape.

    The authors' attention channel is `d * heads + h` where transformers has `h * D + d`; their linear maps are
    convolutions over points, (O, I, 1).
    """
    if '.attention.self.' in name:
        tensor = tensor.unflatten(0, (SUPERGLUE_HEADS, -1)).transpose(0, 1).flatten(0, 1)
    elif name.endswith('.attention.output.dense.weight'):
        tensor = tensor.unflatten(1, (SUPERGLUE_HEADS, -1)).transpose(1, 2).flatten(1, 2)
    return tensor[..., None] if tensor.dim() == 2 else tensor
