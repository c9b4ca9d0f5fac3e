"""Running the networks of a matcher: device, number format, engine, and image sizes that fit into GPU memory.

A matcher has an `Inference` for its networks and an `ImageExtractor` for its images; both write messages to the user
into `notes`.
"""

from __future__ import annotations

import copy
import dataclasses
import logging
from collections.abc import Callable, Iterable
from typing import Any, TypeVar

import cv2
import numpy as np
import torch
from torch import Tensor, nn

from loftr_ros.config import MatcherConfig
from loftr_ros.datatypes import Matches
from loftr_ros.errors import InputError
from loftr_ros.image import PreparedImage, prepare
from loftr_ros.matchers.base import Matcher
from loftr_ros.matchers.engines import create_engine
from loftr_ros.matchers.image_features import ImageFeatures, PreparedMatches
from loftr_ros.matchers.precision import NAMES, choose_dtype
from loftr_ros.networks.base import dtype_of
from loftr_ros.networks.device import choose_device
from loftr_ros.networks.parts import ExtractPart

logger = logging.getLogger(__name__)

MAX_DRIFT = 0.15
"""Root mean square difference between features in half and in full precision, relative to the features, above which
half precision is not used. With random weights LoFTR and Efficient LoFTR drift by 0.01 in fp16, where all matches stay
the same, and by up to 0.08 in bf16, where 98 % of the matches stay within 1 px. Twice this value is not explained by
rounding."""

SHRINK, SMALLEST_PX = 0.75, 160
"""Factor of the longer side after each out-of-memory error of the GPU, and the least longer side [px]."""

WARM_UP_SIZE = (480, 640)
OUT_OF_MEMORY = getattr(torch.cuda, 'OutOfMemoryError', MemoryError)

T = TypeVar('T')
Network = TypeVar('Network', bound=nn.Module)


class Inference:
    """Device, number format and engine of the networks of a matcher, from `config`.

    Raises:
        ConfigError: the device does not exist, or does not support the number format.
    """

    def __init__(self, name: str, config: MatcherConfig, notes: dict[str, str]):
        self.name, self.notes, self.engine = name, notes, config.engine
        self.device = choose_device(config.device)
        self._dtype = choose_dtype(config.precision, self.device, config.engine)

    def prepare(self, network: Network, features: Callable[[Network], Iterable[Tensor]]) -> Network:
        """Return `network` prepared for inference, in half precision if it is chosen and the drift is small.

        Args:
            network: with `prepare_for_inference` of MatchingNetwork, on the CPU, with its weights.
            features: returns the output tensors of a network for a fixed input, for the test of half precision.
        """
        plain = self.engine != 'torch'
        if self._dtype is torch.float32:
            return network.prepare_for_inference(self.device, plain=plain)
        full = copy.deepcopy(network).prepare_for_inference(self.device, plain=plain)
        half = network.prepare_for_inference(self.device, self._dtype, plain=plain)
        drift = _drift(features(full), features(half))
        kind = NAMES[self._dtype]
        self.notes['precision'] = f'{kind}, drift {drift:.2g}'
        if drift <= MAX_DRIFT:
            return half
        # A drift of NaN also fails the test above.
        self.notes['precision'] = f'fp32: {kind} drifts by {drift:.2g}, allowed is {MAX_DRIFT:g}'
        logger.warning('%s computes in %s', self.name, self.notes['precision'])
        return full

    def extractor(self, network: nn.Module, part: type[ExtractPart]) -> Callable[[Tensor, Tensor | None], Any]:
        """Return `network.extract`, run by the chosen engine; `part` is the class of this part (networks/parts.py)."""
        if self.engine == 'torch':
            return network.extract
        module = part(network)
        run = create_engine(self.engine, module, self.device, dtype_of(network))
        return lambda image, mask: module.features(run(*module.inputs(image, mask)), mask)

    def inputs(self, image: PreparedImage, dtype: torch.dtype) -> tuple[Tensor, Tensor | None]:
        """Return a grey image as (1, 1, H, W) in [0, 1] on the device, and its mask (1, H, W), None without padding."""
        pixels = torch.tensor(np.ascontiguousarray(image.pixels))[None, None]  # uint8
        if self.device.type == 'cuda':
            pixels = pixels.pin_memory()
        pixels = pixels.to(self.device, non_blocking=True).to(dtype) / 255
        rows, columns = pixels.shape[2:]
        if (image.height, image.width) == (rows, columns):
            return pixels, None
        mask = torch.zeros(1, rows, columns, dtype=torch.bool, device=self.device)
        mask[:, : image.height, : image.width] = True
        return pixels, mask

    def warm_up(self, matcher: Matcher) -> None:
        """Match a texture on a GPU, so that kernels are selected and loaded before the first frame."""
        if self.device.type == 'cuda':
            features = matcher.extract(texture(*WARM_UP_SIZE))
            matcher.match(features, features)


class ExtractingMatcher(Matcher):
    """A matcher of prepared images; a subclass sets `config` and `images` and implements `_match`."""

    config: MatcherConfig
    images: ImageExtractor

    def extract(self, image: np.ndarray) -> ImageFeatures:
        """Return the features of `image`, uint8 (H, W) or (H, W, 3) blue first, any size."""
        return self.images.extract(image)

    def match(self, features0: ImageFeatures, features1: ImageFeatures) -> Matches:
        """Return the matches, most confident first."""
        matches = self.images.retry(lambda: self._match(features0, features1), features0, features1)
        return matches.to_original(features0, features1, self.config)

    def _match(self, features0: ImageFeatures, features1: ImageFeatures) -> PreparedMatches:
        """Return the matches in pixels of the prepared images."""
        raise NotImplementedError


class ImageExtractor:
    """Prepares images and extracts their features, at a lower resolution after the GPU ran out of memory.

    Args:
        name: of the matcher, for messages.
        multiple: of both sides of the prepared images [px].
        compute: returns the features of a prepared image.
        grey: whether prepared images are grey; otherwise they have three channels.
    """

    def __init__(
        self,
        name: str,
        config: MatcherConfig,
        notes: dict[str, str],
        multiple: int,
        compute: Callable[[PreparedImage], Any],
        grey: bool = True,
    ):
        self.name, self.notes = name, notes
        self.resize_max = config.resize_max
        self._multiple, self._compute, self._grey = multiple, compute, grey

    def extract(self, image: np.ndarray) -> ImageFeatures:
        """Return the features of `image`, uint8 (H, W) or (H, W, 3) blue first, any size."""
        while True:
            prepared = prepare(image, resize_max=self.resize_max, multiple=self._multiple, grey=self._grey)
            features = self._attempt(lambda prepared=prepared: self._compute(prepared), prepared)
            if features is not None:
                return ImageFeatures(prepared, features)

    def retry(self, match: Callable[[], T], features0: ImageFeatures, features1: ImageFeatures) -> T:
        """Return the result of `match`. If the GPU is out of memory, reduce both images in place and call it again."""
        while True:
            result = self._attempt(match, features0.image, features1.image)
            if result is not None:
                return result
            for features in (features0, features1):
                self.reduce(features)

    def reduce(self, features: ImageFeatures) -> None:
        """Extract an image larger than `resize_max` again, in place, because a keyframe is matched many times."""
        image = features.image
        if max(image.width, image.height) <= self.resize_max:
            return
        smaller = self.extract(image.pixels[: image.height, : image.width])
        features.image = dataclasses.replace(
            smaller.image, original_width=image.original_width, original_height=image.original_height
        )
        features.features, features.ids_valid = smaller.features, False

    def _attempt(self, compute: Callable[[], T], *images: PreparedImage) -> T | None:
        """Return the result of `compute`; if the GPU is out of memory, lower `resize_max` and return None."""
        try:
            return compute()
        except OUT_OF_MEMORY as error:
            reason = str(error).splitlines()[0]
        # Outside of `except`, so that the tensors of the attempt are free.
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
        longest = max(max(image.width, image.height) for image in images)
        if SHRINK * longest < SMALLEST_PX:
            raise InputError(
                f'{self.name} has not enough GPU memory for an image of {longest} px ({reason}); end other programs '
                'on the GPU, or set matcher.device: cpu'
            )
        self.resize_max = int(SHRINK * longest)
        self.notes['resize_max'] = f'{self.resize_max}, lowered from {longest} for lack of GPU memory'
        logger.warning('%s continues with matcher.resize_max %s (%s)', self.name, self.notes['resize_max'], reason)
        return None


def _drift(full: Iterable[Tensor], half: Iterable[Tensor]) -> float:
    """Return the relative root mean square difference."""
    wanted, found = (torch.cat([tensor.flatten().double() for tensor in tensors]) for tensors in (full, half))
    return float((found - wanted).norm() / wanted.norm())


def texture(height: int, width: int) -> np.ndarray:
    """Return the same blotches of several sizes every time, uint8 (H, W)."""
    noise = np.random.default_rng(0).standard_normal((height, width)).astype(np.float32)
    noise = sum(cv2.GaussianBlur(noise, (0, 0), sigma) * sigma for sigma in (1, 3, 9))
    return np.clip(128 + 60 * noise, 0, 255).astype(np.uint8)


def overlapping_pair(multiple: int) -> list[PreparedImage]:
    """Return two fixed images of one texture, shifted by 32 and 16 px."""
    height, width = WARM_UP_SIZE
    image = texture(height // 2 + 16, width // 2 + 32)
    return [prepare(part, multiple=multiple) for part in (image[16:, 32:], image[:-16, :-32])]
