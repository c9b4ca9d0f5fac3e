"""The table of known weights, each with the network settings that it was trained with."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any


@dataclasses.dataclass(frozen=True)
class Checkpoint:
    """One file of weights and its properties.

    Args:
        name: its name in `matcher.weights`.
        matcher: `matcher.name` that can load it.
        network: arguments of the constructor of the network; they belong to the weights, a user cannot choose them.
        file: name of the file, in the package's folder of shipped weights or in the cache.
        url: address for a download by program; '' if only a browser can download it.
        page: web page for a download by hand.
        sha256: of the file; '' if it is not published.
        licence: of the weights.
        non_commercial: the licence forbids commercial use; loading needs `matcher.accept_license`.
        note: further information for the user.
        detector: for SuperGlue, `matcher.weights` of the SuperPoint that it was trained with.
    """

    name: str
    matcher: str
    network: Mapping[str, Any]
    file: str = ''
    url: str = ''
    page: str = ''
    sha256: str = ''
    licence: str = 'unknown'
    non_commercial: bool = False
    note: str = ''
    detector: str = ''


def loftr_settings(match_type: str, positional_encoding: str) -> dict[str, Any]:
    """Return the settings of the official LoFTR weights.

    Args:
        positional_encoding: 'original' has the operator precedence error of the first release, which weights trained
            with it need; 'fixed' is the formula of the paper.
    """
    return {
        'initial_dim': 128,
        'block_dims': (128, 196, 256),
        'coarse_layers': ('self', 'cross') * 4,
        'fine_layers': ('self', 'cross'),
        'heads': 8,
        'attention': 'linear',
        'positional_encoding': positional_encoding,
        'match_type': match_type,
        'temperature': 0.1,
        'sinkhorn_iterations': 3,
        'dustbin_prefilter': False,
        'window': 5,
    }


def _small_loftr(match_type: str) -> dict[str, Any]:
    """Return the settings of the LoFTRs that are shipped."""
    return {
        **loftr_settings(match_type, 'fixed'),
        'initial_dim': 16,
        'block_dims': (16, 32, 64),
        'coarse_layers': ('self', 'cross') * 2,
        'heads': 4,
    }


EFFICIENT_LOFTR = {
    'widths': (64, 64, 128, 256),
    'blocks': (2, 4, 14),
    'layers': 4,
    'heads': 8,
    'aggregation': 4,
    'temperature': 0.1,
    'mode': 'full',
    'subpixel_channels': 8,
    'subpixel_temperature': 10.0,
    'subpixel_offset': -1,
    'refinement': 'two_stage',
    'rotary_trained_px': 832,
}

SUPERPOINT = {
    'widths': (64, 64, 128, 128),
    'head': 256,
    'descriptor': 256,
    'downsample': 'pool',
    'batch_norm': False,
    'sampling': 'official',
}

SUPERGLUE = {
    'descriptor': 256,
    'encoder': (32, 64, 128, 256),
    'layers': ('self', 'cross') * 9,
    'heads': 4,
    'sinkhorn_iterations': 100,
}

PATCH_DESCRIPTOR = {'widths': (32, 64, 128), 'convolutions': 2, 'descriptor': 128, 'colours': 3, 'length': 1.0}

R2D2_TERMS = {
    'page': 'https://github.com/naver/r2d2/tree/master/models',
    'licence': 'CC BY-NC-SA 3.0',
    'non_commercial': True,
}
R2D2 = 'https://raw.githubusercontent.com/naver/r2d2/master/models'

LOFTR_PAGE = 'https://github.com/zju3dv/LoFTR (its README links a Google Drive folder)'
KORNIA = 'https://huggingface.co/kornia/loftr/resolve/main'
OPTIMAL_TRANSPORT = 'https://huggingface.co/dylanebert/iComMa/resolve/2cf3fd86c19007d4d175c1f47ea347e78701f27d'
MAGIC_LEAP = 'https://raw.githubusercontent.com/magicleap/SuperGluePretrainedNetwork/master/models/weights'
MAGIC_LEAP_TERMS = {
    'page': 'https://github.com/magicleap/SuperGluePretrainedNetwork/tree/master/models/weights',
    'licence': 'Magic Leap, academic or non-profit research only',
    'non_commercial': True,
}


def _efficient_loftr(name: str, mode: str, note: str) -> Checkpoint:
    return Checkpoint(
        name=name,
        matcher='efficient_loftr',
        network={**EFFICIENT_LOFTR, 'mode': mode},
        file='eloftr_outdoor.ckpt',
        url='https://huggingface.co/Realcat/imcui_checkpoints/resolve/main/eloftr/eloftr_outdoor.ckpt',
        page='https://github.com/zju3dv/EfficientLoFTR (its README links a Google Drive folder)',
        sha256='0af6291141c736e75e94b7f8aae4399b77c7731b3f08758212b2cfe370188878',
        licence='Apache-2.0',
        note=note,
    )


def _shipped(
    name: str, matcher: str, network: Mapping[str, Any], sha256: str, note: str, detector: str = ''
) -> Checkpoint:
    return Checkpoint(
        name=name,
        matcher=matcher,
        network=network,
        file=f'{name}.safetensors',
        page='docs/models.md',
        sha256=sha256,
        licence='Apache-2.0',
        note=f'shipped with the package; trained by this project for CPUs, {note}',
        detector=detector,
    )


_ENTRIES = (
    _shipped(
        'efficient_small',
        'efficient_loftr',
        {
            'widths': (16, 24, 16, 48),
            'blocks': (1, 3, 5),
            'layers': 2,
            'heads': 4,
            'aggregation': 4,
            'temperature': 0.1,
            'mode': 'full',
            'subpixel_channels': 8,
            'subpixel_temperature': 1.0,
            'subpixel_offset': 0,
            'refinement': 'block',
            'rotary_trained_px': 320,
        },
        'c719602a57cac692a45ae666aeec069a51d6b340869e7d1d8881676c6afb67a8',
        '0.25 M parameters, the default',
    ),
    _shipped(
        'loftr_small',
        'loftr',
        _small_loftr('dual_softmax'),
        'c409fa60526a012bf035b7288b714ae0e6f69796de5dc27e993aaf6b3f5be194',
        '0.4 M parameters, dual-softmax',
    ),
    _shipped(
        'loftr_small_ot',
        'loftr',
        _small_loftr('optimal_transport'),
        'd61d28c158fe36b502e93fdaa8e7016abc18179b3a74426a144e1cc2cc8a9842',
        '0.4 M parameters, optimal transport',
    ),
    _shipped(
        'superpoint_small',
        'superpoint',
        {
            'widths': (16, 32, 48, 48),
            'head': 64,
            'descriptor': 64,
            'downsample': 'stride',
            'batch_norm': True,
            'sampling': 'exact',
        },
        '100cc5cc7cc6f8221f65459d9f62e4716025032537a71cf72b2e5a869ed500bc',
        '0.16 M parameters, keypoints for superpoint_nn and superglue',
    ),
    _shipped(
        'superglue_small',
        'superglue',
        {
            'descriptor': 64,
            'encoder': (32, 64),
            'layers': ('self', 'cross') * 3,
            'heads': 4,
            'sinkhorn_iterations': 20,
        },
        '204fc666de0430721f279e0cd0b968ff0214d286ebc360b9a1302c4b16c476a8',
        '0.26 M parameters, for the keypoints of superpoint_small',
        detector='superpoint_small',
    ),
    _shipped(
        'patch_descriptor_small',
        'patch_descriptor',
        {'widths': (16, 24, 32), 'convolutions': 1, 'descriptor': 64, 'colours': 1, 'length': 0.7},
        '2e7101a6a37e188905729116b0eb042f308520b2451a275bbf37c33666c56e5d',
        '27 k parameters, patch descriptor for gcm',
    ),
    Checkpoint(
        name='outdoor_ds',
        matcher='loftr',
        network=loftr_settings('dual_softmax', 'original'),
        file='loftr_outdoor.ckpt',
        url=f'{KORNIA}/loftr_outdoor.ckpt',
        page=LOFTR_PAGE,
        sha256='21f5bec5968178e8bc8b7633441836fe5de4f47d861dd2cd7dc38e271b0479ec',
        licence='Apache-2.0',
        note="MegaDepth; the authors' outdoor_ds.ckpt, copy of kornia",
    ),
    Checkpoint(
        name='outdoor_ot',
        matcher='loftr',
        network=loftr_settings('optimal_transport', 'original'),
        file='outdoor_ot.ckpt',
        url=f'{OPTIMAL_TRANSPORT}/outdoor_ot.ckpt',
        page=LOFTR_PAGE,
        sha256='c71084b8a357d812fd8020f39f565f11df462dfeeceb53b4691bd87831f929bf',
        licence='Apache-2.0',
        note="MegaDepth, optimal transport; copy by a user, hash as in that copy's history",
    ),
    Checkpoint(
        name='indoor_ds_new',
        matcher='loftr',
        network=loftr_settings('dual_softmax', 'fixed'),
        file='loftr_indoor_ds_new.ckpt',
        url=f'{KORNIA}/loftr_indoor_ds_new.ckpt',
        page=LOFTR_PAGE,
        sha256='be9ff88b323ec27889114719f668ae41aff7034b56a4c4acbd46b8b180b87ed3',
        licence='Apache-2.0',
        note='ScanNet, trained with the right positional encoding; copy of kornia',
    ),
    Checkpoint(
        name='indoor_ds',
        matcher='loftr',
        network=loftr_settings('dual_softmax', 'original'),
        file='loftr_indoor.ckpt',
        url=f'{KORNIA}/loftr_indoor.ckpt',
        page=LOFTR_PAGE,
        licence='Apache-2.0',
        note='ScanNet, first release; copy of kornia; prefer indoor_ds_new',
    ),
    Checkpoint(
        name='indoor_ot',
        matcher='loftr',
        network=loftr_settings('optimal_transport', 'original'),
        file='indoor_ot.ckpt',
        url=f'{OPTIMAL_TRANSPORT}/indoor_ot.ckpt',
        page=LOFTR_PAGE,
        sha256='b9916c65d87447b5a30f2e6087e1b28d2cb11936552599d00b1e409ceebae73c',
        licence='Apache-2.0',
        note="ScanNet, optimal transport; copy by a user, hash as in that copy's history",
    ),
    _efficient_loftr(
        'eloftr_outdoor', 'full', "MegaDepth; the authors' training checkpoint with its optimizer, 193 MB"
    ),
    _efficient_loftr('eloftr_outdoor_optimized', 'optimized', 'the same file, without soft-max at inference'),
    Checkpoint(
        name='eloftr_outdoor_hf',
        matcher='efficient_loftr',
        network=EFFICIENT_LOFTR,
        file='eloftr_outdoor_hf.safetensors',
        url='https://huggingface.co/zju-community/efficientloftr/resolve/main/model.safetensors',
        page='https://huggingface.co/zju-community/efficientloftr',
        licence='Apache-2.0',
        note='the weights of eloftr_outdoor as the authors gave them to transformers, 64 MB; no published hash',
    ),
    Checkpoint(
        name='superpoint_v1',
        matcher='superpoint',
        network=SUPERPOINT,
        file='superpoint_v1.pth',
        url=f'{MAGIC_LEAP}/superpoint_v1.pth',
        sha256='52b6708629640ca883673b5d5c097c4ddad37d8048b33f09c8ca0d69db12c40e',
        note='keypoints and descriptors for SuperGlue',
        **MAGIC_LEAP_TERMS,
    ),
    Checkpoint(
        name='superglue_outdoor',
        matcher='superglue',
        network=SUPERGLUE,
        file='superglue_outdoor.pth',
        url=f'{MAGIC_LEAP}/superglue_outdoor.pth',
        sha256='2f5f5e9bb3febf07b69df633c4c3ff7a17f8af26a023aae2b9303d22339195bd',
        note='MegaDepth; needs superpoint_v1 as well',
        detector='superpoint_v1',
        **MAGIC_LEAP_TERMS,
    ),
    Checkpoint(
        name='superglue_indoor',
        matcher='superglue',
        network=SUPERGLUE,
        file='superglue_indoor.pth',
        url=f'{MAGIC_LEAP}/superglue_indoor.pth',
        sha256='0e710469be25ebe1e2ccf68edcae8b2945b0617c8e7e68412251d9d47f5052b1',
        note='ScanNet; needs superpoint_v1 as well',
        detector='superpoint_v1',
        **MAGIC_LEAP_TERMS,
    ),
    Checkpoint(
        name='r2d2_wasf',
        matcher='patch_descriptor',
        network=PATCH_DESCRIPTOR,
        file='r2d2_WASF_N16.pt',
        url=f'{R2D2}/r2d2_WASF_N16.pt',
        sha256='9ae90e02a9a133d100ca7aeaa32f4d4d7736a6dd222a530a25c8f7da5e508528',
        note='R2D2, web images and Aachen, the model for localisation; for gcm.descriptor, the teacher in the paper',
        **R2D2_TERMS,
    ),
    Checkpoint(
        name='r2d2_waf',
        matcher='patch_descriptor',
        network=PATCH_DESCRIPTOR,
        file='r2d2_WAF_N16.pt',
        url=f'{R2D2}/r2d2_WAF_N16.pt',
        sha256='27cebd6608317b35198a76f60f87492110dee3e88ca382586a729dadb1a16b90',
        note="R2D2, web images and Aachen by day, the model of the paper's tables; for gcm.descriptor",
        **R2D2_TERMS,
    ),
)

CHECKPOINTS = {entry.name: entry for entry in _ENTRIES}
"""Known weights by name. The first entry of a matcher is its default (`matcher.weights` empty)."""
