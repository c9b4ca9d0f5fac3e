"""The matchers `loftr` and `efficient_loftr`: a network with weights between images and matches."""

from __future__ import annotations

import copy
import dataclasses
import logging
from typing import Any

import numpy as np
import torch
from torch import Tensor

from loftr_ros import weights
from loftr_ros.config import MatcherConfig
from loftr_ros.datatypes import DENSE_DEPENDENCE, Matches
from loftr_ros.errors import InputError
from loftr_ros.image import PreparedImage, prepare
from loftr_ros.matchers import graphs
from loftr_ros.matchers.device import choose_device
from loftr_ros.matchers.engines import create_engine
from loftr_ros.matchers.precision import NAMES, choose_dtype
from loftr_ros.networks import efficient_loftr, loftr
from loftr_ros.weights.convert import build_network

logger = logging.getLogger(__name__)

MAX_DRIFT = 0.15
"""Root mean square difference between coarse features in half and in full precision, relative to the features, above
which half precision is not used. Random weights of both networks drift by 0.01 in fp16, all matches staying, and by up
to 0.08 in bf16, with 98 % of them staying within 1 px; twice that is more than rounding."""

SHRINK, SMALLEST_PX = 0.75, 160
"""Factor of the longer side after each lack of GPU memory, and the side below which the matcher gives up [px]."""

MIN_SIGMA_PX = 0.01
"""A heat map with all its weight in one pixel has deviation 0, which no filter that divides by it survives."""

WARM_UP_SIZE = (480, 640)
OUT_OF_MEMORY = getattr(torch.cuda, 'OutOfMemoryError', MemoryError)


@dataclasses.dataclass(eq=False)
class DetectorFreeFeatures:
    """One image and what the network computes of it alone.

    Args:
        ids_valid: False after the image was reduced for want of memory: numbers of places are others then.
    """

    image: PreparedImage
    maps: Any
    ids_valid: bool = True


class DetectorFreeMatcher:
    """What both networks have in common: precision, memory, and the way to the network and back.

    `notes` says what a user should see of the state: the precision in use, a size reduced for want of memory.
    """

    network_name: str
    log10_dependence = DENSE_DEPENDENCE

    def __init__(self, config: MatcherConfig):
        self.config = config
        self.device = choose_device(config.device)
        dtype = choose_dtype(config.precision, self.device, config.engine)
        network, checkpoint = load_network(self.network_name, config.weights, config.accept_license)
        self.name = f'{self.network_name}:{checkpoint.name}'
        self.notes: dict[str, str] = {}
        self.resize_max = config.resize_max
        self._multiple = self._side_multiple(network)
        self.network = self._for_inference(network, dtype)
        self._dtype = _dtype_of(self.network)  # half precision may have been refused
        self._extract = self.network.extract if config.engine == 'torch' else self._with_engine()
        if self.device.type == 'cuda':  # kernels are chosen and loaded now, not while the first frame waits
            features = self.extract(_texture(*WARM_UP_SIZE))
            self.match(features, features)

    def extract(self, image: np.ndarray) -> DetectorFreeFeatures:
        """Return the features of `image`, uint8 (H, W) or (H, W, 3) blue first, any size."""
        while True:
            prepared = prepare(image, resize_max=self.resize_max, multiple=self._multiple)
            maps = self._attempt(lambda prepared=prepared: self._maps(self._extract, prepared, self._dtype), prepared)
            if maps is not None:
                return DetectorFreeFeatures(prepared, maps)

    def match(self, features0: DetectorFreeFeatures, features1: DetectorFreeFeatures) -> Matches:
        """Return the matches, most confident first."""
        while True:
            rows = self._attempt(lambda: self._match(features0, features1), features0.image, features1.image)
            if rows is not None:
                return self._matches(rows, features0, features1)
            for features in (features0, features1):
                self._reduce(features)

    # What differs between the networks.

    def _side_multiple(self, network) -> int:
        """Return what the sides of the network's images are multiples of [px]."""
        raise NotImplementedError

    def _fuse(self, network, dtype: torch.dtype):
        """Prepare a network for inference, in place, and return it."""
        raise NotImplementedError

    def _mask(self, image: PreparedImage, rows: int, columns: int) -> Tensor:
        """Return the network's mask, False for padding."""
        raise NotImplementedError

    def _transform(self, network, maps0, maps1) -> tuple[Tensor, Tensor]:
        """Return the coarse features of both images after the transformer."""
        raise NotImplementedError

    def _to_confidence(self, score: np.ndarray) -> np.ndarray:
        return score

    def _to_score(self, confidence: float) -> float:
        return confidence

    def _number(self, cell0: np.ndarray, points0: np.ndarray, image0: PreparedImage) -> np.ndarray:
        """Return the numbers (N,) of places of image 0, the same for the same point."""
        raise NotImplementedError

    # Full or half precision.

    def _for_inference(self, network, dtype: torch.dtype):
        if dtype is torch.float32:
            return self._fuse(network, dtype).to(self.device)
        full = self._fuse(copy.deepcopy(network), torch.float32).to(self.device)
        half = self._fuse(network, dtype).to(self.device, dtype)
        drift = self._drift(full, half)
        kind = NAMES[dtype]
        self.notes['precision'] = f'{kind}, drift {drift:.2g}'
        if drift <= MAX_DRIFT:
            return half
        # Not a number is no <= either.
        self.notes['precision'] = f'fp32: {kind} drifts by {drift:.2g}, allowed is {MAX_DRIFT:g}'
        logger.warning('%s computes in %s', self.name, self.notes['precision'])
        return full

    def _drift(self, full, half) -> float:
        """Return the relative root mean square difference of coarse features of a fixed pair."""
        height, width = WARM_UP_SIZE
        texture = _texture(height // 2 + 16, width // 2 + 32)
        pair = [prepare(image, multiple=self._multiple) for image in (texture[16:, 32:], texture[:-16, :-32])]
        with torch.inference_mode():
            wanted, found = (
                torch.cat(
                    [
                        t.flatten().double()
                        for t in self._transform(net, *(self._maps(net.extract, p, _dtype_of(net)) for p in pair))
                    ]
                )
                for net in (full, half)
            )
        return float((found - wanted).norm() / wanted.norm())

    # To the network.

    def _with_engine(self):
        """Return what stands for `network.extract`."""
        part = graphs.PARTS[self.network_name]['extract'](self.network)
        run = create_engine(self.config.engine, part, self.device, self._dtype)
        return lambda image, mask: part.features(run(*part.inputs(image, mask)), mask)

    def _maps(self, extract, image: PreparedImage, dtype: torch.dtype):
        pixels = torch.tensor(np.ascontiguousarray(image.pixels))[None, None]  # (1, 1, H, W) uint8
        if self.device.type == 'cuda':
            pixels = pixels.pin_memory()
        with torch.inference_mode():
            pixels = pixels.to(self.device, non_blocking=True).to(dtype) / 255
            rows, columns = pixels.shape[2:]
            padded = (image.height, image.width) != (rows, columns)
            return extract(pixels, self._mask(image, rows, columns) if padded else None)

    def _match(self, features0: DetectorFreeFeatures, features1: DetectorFreeFeatures) -> np.ndarray:
        """Return (M, 7) float64: points in both prepared images, score, sigma, coarse cell of image 0."""
        # The networks take scores above a threshold, this package from it on.
        threshold = np.nextafter(np.float32(self._to_score(self.config.match_threshold)), np.float32(-1))
        with torch.inference_mode():
            found = self.network.match(
                features0.maps, features1.maps, threshold=float(threshold), max_matches=self.config.max_matches
            )
            scalars = torch.stack([found.confidence.double(), found.sigma.double(), found.cell0.double()], dim=1)
            rows = torch.cat([found.keypoints0.double(), found.keypoints1.double(), scalars], dim=1)
            return rows.cpu().numpy()  # the one copy to the host

    def _matches(self, rows: np.ndarray, features0: DetectorFreeFeatures, features1: DetectorFreeFeatures) -> Matches:
        """Return the rows of `_match` in original pixels."""
        image0, image1 = features0.image, features1.image
        points0, points1, (score, sigma, cell0) = rows[:, :2], rows[:, 2:4], rows[:, 4:].T
        confidence = self._to_confidence(score).clip(max=1).astype(np.float32)  # rounding may pass 1
        keep = _inside(points0, image0) & _inside(points1, image1)
        keep &= confidence >= np.float32(self.config.match_threshold)
        keep = np.flatnonzero(keep)
        keep = keep[np.argsort(-confidence[keep], kind='stable')]
        number = self._number(cell0.astype(np.int64), points0, image0)
        return Matches(
            image0.to_original(points0[keep]),
            image1.to_original(points1[keep]),
            confidence[keep],
            np.maximum(sigma[keep], MIN_SIGMA_PX) * np.mean(image1.scale),
            number[keep] if features0.ids_valid else np.full(len(keep), -1),
            self.log10_dependence,
            from_images=True,
        )

    # Want of GPU memory.

    def _attempt(self, compute, *images: PreparedImage):
        """Return what `compute` gives; None when GPU memory did not suffice, with `resize_max` lowered."""
        try:
            return compute()
        except OUT_OF_MEMORY as error:
            reason = str(error).splitlines()[0]
        # Out here nothing holds the tensors of the attempt any more.
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
        longest = max(max(image.width, image.height) for image in images)
        if SHRINK * longest < SMALLEST_PX:
            raise InputError(
                f'{self.name} lacks GPU memory for an image of {longest} px ({reason}); end other programs on the GPU, '
                'or set matcher.device: cpu'
            )
        self.resize_max = int(SHRINK * longest)
        self.notes['resize_max'] = f'{self.resize_max}, lowered from {longest} for want of GPU memory'
        logger.warning('%s goes on with matcher.resize_max %s (%s)', self.name, self.notes['resize_max'], reason)
        return None

    def _reduce(self, features: DetectorFreeFeatures) -> None:
        """Make features of an image larger than `resize_max` anew, in place: a keyframe is matched again and again."""
        image = features.image
        if max(image.width, image.height) <= self.resize_max:
            return
        features.maps = None
        smaller = self.extract(image.pixels[: image.height, : image.width])
        features.image = dataclasses.replace(
            smaller.image, original_width=image.original_width, original_height=image.original_height
        )
        features.maps, features.ids_valid = smaller.maps, False


class LoftrMatcher(DetectorFreeMatcher):
    """LoFTR (networks/loftr.py). `point_id0` is the coarse cell, whose point never moves."""

    network_name = 'loftr'
    log10_dependence = 36.0  # measured: with 24, two of 900 pairs of different places get a pose

    def _side_multiple(self, network):
        return loftr.COARSE_STRIDE

    def _fuse(self, network, dtype):
        # Winograd's loop over tiles is what only torch runs well, and only on a CPU in float32.
        return network.fuse(winograd=(self.device.type, dtype, self.config.engine) == ('cpu', torch.float32, 'torch'))

    def _mask(self, image, rows, columns):
        return _rectangle(rows, columns, image.height, image.width, self.device)

    def _transform(self, network, maps0, maps1):
        return network.transform(maps0, maps1)

    def _number(self, cell0, points0, image0):
        return cell0


class EfficientLoftrMatcher(DetectorFreeMatcher):
    """Efficient LoFTR (networks/efficient_loftr.py).

    Which of the 64 pixels of a coarse cell is matched depends on image 1, so `point_id0` numbers pixels, and
    `keep_points` makes the points of a keyframe stay. Weights of mode `optimized` give a similarity
    s without a bound, whose confidence is s / (s + 100): the official threshold of 25 is 0.2.
    """

    network_name = 'efficient_loftr'

    def _side_multiple(self, network):
        return network.side_multiple

    def _fuse(self, network, dtype):
        return network.reparameterize()

    def keep_points(self, features0: DetectorFreeFeatures, matches: Matches) -> DetectorFreeFeatures:
        """Return features of image 0 whose cells with a match keep to its pixel; the other cells are free."""
        pixels = torch.as_tensor(matches.point_id0[matches.point_id0 >= 0])
        if not features0.ids_valid or not len(pixels):
            return features0
        columns = features0.image.pixels.shape[1]
        fixed = features0.maps.fix(pixels % columns, pixels // columns)
        return dataclasses.replace(features0, maps=fixed)

    def _mask(self, image, rows, columns):
        cell = efficient_loftr.CELL
        valid = -(-image.height // cell), -(-image.width // cell)  # cells with a pixel of the image
        return _rectangle(rows // cell, columns // cell, *valid, self.device)

    def _transform(self, network, maps0, maps1):
        return network.loftr_coarse(maps0.coarse, maps1.coarse)

    def _number(self, cell0, points0, image0):
        x, y = points0.astype(np.int64).T
        return y * image0.pixels.shape[1] + x

    def _to_confidence(self, score):
        return score / (score + 100) if self.network.mode == 'optimized' else score

    def _to_score(self, confidence):
        if self.network.mode != 'optimized':
            return confidence
        return 100 * confidence / (1 - confidence) if confidence < 1 else float('inf')


def load_network(name: str, weights_of: str, accept_license: bool):
    """Return the network `name` on the CPU, as it was trained, and the entry of its weights (see `weights.find`)."""
    checkpoint, path = weights.find(weights_of, name, accept_license)
    network = build_network(checkpoint)
    weights.load_into(network, weights.load_state(path), path)
    return network.eval(), checkpoint


def _dtype_of(network) -> torch.dtype:
    return next(network.parameters()).dtype


def _rectangle(rows: int, columns: int, height: int, width: int, device) -> Tensor:
    """Return (1, rows, columns) bool, True in the top-left height x width."""
    mask = torch.zeros(1, rows, columns, dtype=torch.bool, device=device)
    mask[:, :height, :width] = True
    return mask


def _inside(points: np.ndarray, image: PreparedImage) -> np.ndarray:
    """Return (N,) bool; False for points that are not finite, too."""
    return ((points >= 0) & (points <= [image.width - 1, image.height - 1])).all(axis=1)


def _texture(height: int, width: int) -> np.ndarray:
    """Return the same blotches every time, uint8 (H, W)."""
    import cv2

    noise = np.random.default_rng(0).standard_normal((height, width)).astype(np.float32)
    noise = sum(cv2.GaussianBlur(noise, (0, 0), sigma) * sigma for sigma in (1, 3, 9))
    return np.clip(128 + 60 * noise, 0, 255).astype(np.uint8)
