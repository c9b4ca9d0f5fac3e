"""Homographic adaptation: a detector labels photographs with its keypoints from many views (SuperPoint, section 5).

Each photograph becomes one file in a folder: the reduced image and its keypoints. Existing files are kept.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
import torch
from tqdm import tqdm

from loftr_ros.errors import InputError
from loftr_ros.image_files import read_grey
from loftr_ros.networks.superpoint import CELL, SuperPoint, heat_map, strongest, suppress_non_maxima
from loftr_ros.output_files import writing
from loftr_ros.training.homography import random_homography
from loftr_ros.training.settings import HomographyConfig, LabelConfig
from loftr_ros.weights import find, load_into, load_state
from loftr_ros.weights.convert import build_network

LOG = logging.getLogger(__name__)

VIEWS = HomographyConfig(rotation_deg=30.0, scale_octaves=0.35, perspective=0.25, shift=0.05, strong=1.0)
"""Random homographies of the views of a photograph."""

CHUNK = 4
"""Number of views in one batch: more save no time on a CPU."""

LEAST_VIEWS = 0.3
"""Share of the views that must show a place for it to be a keypoint."""

NMS_RADIUS = 4


class LabelledImage(NamedTuple):
    """A reduced photograph with its keypoints."""

    image: np.ndarray  # uint8 (H, W)
    keypoints: np.ndarray  # (N, 2) float32, x, y [px]


def label_file(folder: Path, photograph: Path) -> Path:
    """Return the file in `folder` that belongs to a photograph."""
    digest = hashlib.sha256(str(photograph).encode()).hexdigest()[:8]
    return folder / f'{photograph.stem}_{digest}.npz'


def load_label(path: Path) -> LabelledImage:
    """Return the labels that `label_photographs` wrote."""
    with np.load(path) as arrays:
        return LabelledImage(arrays['image'], arrays['keypoints'])


def label_photographs(
    photographs: Sequence[Path], folder: Path, config: LabelConfig, device: torch.device, progress: bool = True
) -> None:
    """Label the photographs that have no file in `folder` yet; leave out those that cannot be read."""
    missing = [path for path in photographs if not label_file(folder, path).exists()]
    if not missing:
        return
    network = load_detector(config.detector).to(device)
    folder.mkdir(parents=True, exist_ok=True)
    for path in tqdm(missing, 'labels', unit='photograph', disable=not progress):
        try:
            photograph = read_grey(path)
        except InputError as error:
            LOG.warning('left out: %s', error)
            continue
        image = reduced(photograph, config.side_px)
        # The views of a photograph depend on its name only, so that a resumed run gives the same labels.
        seed = int.from_bytes(hashlib.sha256(path.name.encode()).digest()[:8], 'big')
        keypoints = adapt(network, image, config, np.random.default_rng(seed))
        with writing(label_file(folder, path)) as file, open(file, 'wb') as stream:
            np.savez(stream, image=image, keypoints=keypoints)


def load_detector(weights: str) -> SuperPoint:
    """Return the SuperPoint that `weights` names (as matcher.weights), ready to run."""
    checkpoint, path = find(weights, 'superpoint')
    network = build_network(checkpoint)
    load_into(network, load_state(path), path)
    return network.eval().prepare_for_inference()


def reduced(photograph: np.ndarray, side_px: int) -> np.ndarray:
    """Return the photograph with a longer side of at most `side_px`, cut to multiples of CELL."""
    height, width = photograph.shape
    scale = min(side_px / max(height, width), 1.0)
    size = max(round(width * scale), CELL), max(round(height * scale), CELL)
    image = cv2.resize(photograph, size, interpolation=cv2.INTER_AREA)
    return np.ascontiguousarray(image[: size[1] // CELL * CELL, : size[0] // CELL * CELL])


def adapt(network: SuperPoint, image: np.ndarray, config: LabelConfig, rng: np.random.Generator) -> np.ndarray:
    """Return keypoints (N, 2) float32 [px] of `image`, uint8 (H, W), by the mean heat map of many views (eq. 10)."""
    heatmap = torch.from_numpy(mean_heat_map(network, image, config.views, rng))[None]
    budget = image.size // config.area_px
    points, _, valid = strongest(suppress_non_maxima(heatmap, NMS_RADIUS), config.threshold, budget)
    return points[valid].numpy().astype(np.float32)


@torch.inference_mode()
def mean_heat_map(network: SuperPoint, image: np.ndarray, views: int, rng: np.random.Generator) -> np.ndarray:
    """Return float32 (H, W): the detector's heat maps of the image and of `views` - 1 homographies of it, warped back.

    The mean is over the views that show a place; 0 where too few do.
    """
    height, width = image.shape
    device = next(network.parameters()).device
    matrices = [np.eye(3), *(random_homography(image.shape, rng, VIEWS) for _ in range(views - 1))]
    total, count = np.zeros((2, height, width), np.float32)
    for start in range(0, views, CHUNK):
        chunk = matrices[start : start + CHUNK]
        seen = np.stack([cv2.warpPerspective(image, matrix, (width, height)) for matrix in chunk])
        batch = torch.from_numpy(seen)[:, None].to(device).float() / 255
        for matrix, heat in zip(chunk, heat_map(network.dense(batch).logits).cpu().numpy(), strict=True):
            back = cv2.WARP_INVERSE_MAP | cv2.INTER_LINEAR
            inside = _inner(cv2.warpPerspective(np.ones_like(image), matrix, (width, height), flags=cv2.INTER_NEAREST))
            total += cv2.warpPerspective(heat * inside, matrix, (width, height), flags=back)
            count += cv2.warpPerspective(inside, matrix, (width, height), flags=back)
    return np.where(count >= max(LEAST_VIEWS * views, 1), total / np.maximum(count, 1e-6), 0).astype(np.float32)


def _inner(mask: np.ndarray) -> np.ndarray:
    """Return float32 (H, W), 1 away from the border of the mask and of the image: borders look like edges."""
    mask[[0, -1]] = 0
    mask[:, [0, -1]] = 0
    return cv2.erode(mask, np.ones((7, 7), np.uint8), borderType=cv2.BORDER_REPLICATE).astype(np.float32)
