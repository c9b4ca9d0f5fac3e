"""The data set of training pairs: photographs, panoramas, rendered scenes, and images with depth and pose."""

from __future__ import annotations

import dataclasses
import functools
import glob
import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from torch.utils.data import Dataset

from loftr_ros.errors import ConfigError, InputError
from loftr_ros.image_files import SUFFIX_LIST, images_below, is_image_file, read_colour, read_grey
from loftr_ros.training import scenes
from loftr_ros.training.adaptation import label_file, load_label
from loftr_ros.training.augmentation import change_light, paste_occluders
from loftr_ros.training.batch import Pair
from loftr_ros.training.homography import panorama_pair, photograph_pair
from loftr_ros.training.posed import PosedSet, open_posed, posed_pair
from loftr_ros.training.settings import DataConfig
from loftr_ros.training.shapes import shape_image

HELD_BACK = 10
"""One image in this many is kept for validation."""

HELD_BACK_SEED = 1 << 31
"""Added to the seeds of rendered scenes for validation, so that they differ from training scenes."""

TEXTURES_OF_A_SCENE = 12


def find_images(patterns: str) -> list[Path]:
    """Return the image files in folders and below them, or of glob patterns, separated by ':'; sorted.

    Raises:
        InputError: a folder or pattern contains no image.
    """
    found = set()
    for pattern in filter(None, patterns.split(':')):
        places = [Path(place) for place in glob.glob(str(Path(pattern).expanduser()))]
        images = [
            file
            for place in places
            for file in (images_below(place) if place.is_dir() else [place] if is_image_file(place) else [])
        ]
        if not images:
            raise InputError(f'{pattern} contains no image ({SUFFIX_LIST}); needs a folder or a pattern of files')
        found.update(images)
    return sorted(found)


def photographs_of(config: DataConfig) -> list[Path]:
    """Return the photographs that `config` names, without the panoramas."""
    panoramas = set(find_images(config.panoramas))
    return [path for path in find_images(config.photographs) if path not in panoramas]


def is_held_back(path: Path) -> bool:
    """Return whether an image belongs to validation: by a hash of its name, the same on every machine."""
    return int.from_bytes(hashlib.sha256(path.name.encode()).digest()[:8], 'big') % HELD_BACK == 0


class PairDataset(Dataset):
    """`length` pairs; item `index` depends only on the settings, the seed and the index.

    Args:
        held_back: use the tenth of the images that is not used for training, and other scenes.

    `left_out` maps photographs and panoramas that could not be read to the reason; others replace them.
    """

    def __init__(self, config: DataConfig, seed: int, length: int, held_back: bool = False, labels: Path | None = None):
        if config.width % 32 or config.height % 32:
            raise ConfigError(f'data.width and data.height must be multiples of 32, got {config.width}x{config.height}')
        self.config, self.seed, self.length = config, seed, length
        self.held_back, self.labels = held_back, labels
        self.left_out: dict[Path, str] = {}
        panoramas = find_images(config.panoramas)
        photographs = photographs_of(config)
        if labels is not None:
            photographs = [path for path in photographs if label_file(labels, path).exists()]
        self.panoramas = [path for path in panoramas if is_held_back(path) == held_back]
        self.photographs = [path for path in photographs if is_held_back(path) == held_back]
        self.kinds, self.shares = self._mix()

    def _mix(self) -> tuple[list[str], np.ndarray]:
        """Return the kinds of pairs and their shares; ConfigError if a kind with a weight has no images."""
        weights = {
            'photograph': self.config.photograph_weight,
            'panorama': self.config.panorama_weight,
            'posed': self.config.posed_weight,
            'scene': self.config.scene_weight,
            'shape': self.config.shape_weight,
        }
        if not sum(weights.values()):
            raise ConfigError('all weights of data are 0; set one of data.*_weight above 0')
        for kind, name, images in (
            ('photograph', 'photographs', self.photographs),
            ('panorama', 'panoramas', self.panoramas),
            ('posed', 'posed', weights['posed'] and self._posed_sets),
        ):
            if weights[kind] and not images and not self.held_back:
                found = (
                    'has only images that are held back for validation' if getattr(self.config, name) else 'is empty'
                )
                raise ConfigError(
                    f'data.{kind}_weight is {weights[kind]:g} but data.{name} {found}; add images or set '
                    f'data.{kind}_weight to 0'
                )
            weights[kind] *= bool(images)
        shares = np.array(list(weights.values()), np.float64)
        return list(weights), shares / max(shares.sum(), np.finfo(float).tiny)

    @property
    def is_empty(self) -> bool:
        """Whether there are no pairs, because no image is held back."""
        return not self.shares.any()

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, index: int) -> Pair:
        rng = np.random.default_rng((self.seed, int(self.held_back), index))
        pair = getattr(self, f'_{rng.choice(self.kinds, p=self.shares)}')(index, rng)
        pair = paste_occluders(pair, rng, self.config.occluders)
        image0, image1 = (change_light(image, rng, self.config.light_change) for image in (pair.image0, pair.image1))
        pair = dataclasses.replace(pair, image0=image0, image1=image1)
        return _swapped(pair) if rng.random() < 0.5 else pair

    def _photograph(self, _number: int, rng: np.random.Generator) -> Pair:
        if self.labels is not None:
            labelled = load_label(label_file(self.labels, self._choose(self.photographs, rng)))
            return photograph_pair(labelled.image, self._size, rng, self.config.homography, labelled.keypoints)
        image = self._read_one(self.photographs, read_grey, rng)
        return photograph_pair(image, self._size, rng, self.config.homography)

    def _panorama(self, _number: int, rng: np.random.Generator) -> Pair:
        image = self._read_one(self.panoramas, read_grey, rng)
        return panorama_pair(image, self._size, rng, self.config.panorama)

    def _posed(self, _number: int, rng: np.random.Generator) -> Pair:
        return posed_pair(self._choose(self._posed_sets, rng), self._size, rng, self.config.posed_pairs)

    @functools.cached_property
    def _posed_sets(self) -> list[PosedSet]:
        parts = [views.part(self.held_back, HELD_BACK) for views in open_posed(self.config.posed)]
        return [part for part in parts if part is not None]

    def _scene(self, number: int, rng: np.random.Generator) -> Pair:
        # Consecutive numbers share a scene, because building one takes a second or more.
        seed = self.seed * 100_003 + number // self.config.scene.pairs_per_scene + HELD_BACK_SEED * self.held_back
        scene, where = self._build(seed)
        return scenes.scene_pair(scene, self._size, rng, self.config.scene, where)

    @functools.cached_property
    def _build(self):
        """The function that builds scenes; it keeps the last two."""
        return functools.lru_cache(maxsize=2)(self._build_scene)

    def _build_scene(self, seed: int):
        rng = np.random.default_rng(seed)
        kind = rng.random()
        if kind < self.config.scene.rooms:
            return scenes.room(seed)
        make = scenes.relief if kind < self.config.scene.rooms + self.config.scene.relief else scenes.boxes
        count = min(TEXTURES_OF_A_SCENE, len(self.photographs))
        chosen = rng.choice(len(self.photographs), count, replace=False) if count else ()
        # Files that cannot be read are skipped; without any texture the scene has those of the furnished room.
        textures = [self._read(self.photographs[i], read_colour) for i in chosen]
        return make(seed, [texture for texture in textures if texture is not None])

    def _shape(self, _number: int, rng: np.random.Generator) -> Pair:
        drawing = shape_image(tuple(2 * side for side in self._size), rng)
        return photograph_pair(drawing.image, self._size, rng, self.config.homography, drawing.keypoints)

    @property
    def _size(self) -> tuple[int, int]:
        return self.config.height, self.config.width

    def _read_one(self, files: Sequence[Path], read, rng: np.random.Generator) -> np.ndarray:
        """Return a random image of those that can be read."""
        image = self._read(self._choose(files, rng), read)
        if image is None:
            images = (self._read(files[i], read) for i in rng.permutation(len(files)))
            image = next((image for image in images if image is not None), None)
        if image is None:
            raise InputError(f'none of {len(files)} images can be read: {self.left_out[files[0]]}')
        return image

    def _read(self, file: Path, read) -> np.ndarray | None:
        try:
            return read(file)
        except InputError as error:
            self.left_out[file] = str(error)
            return None

    def _choose(self, items: Sequence[Any], rng: np.random.Generator) -> Any:
        return items[int(rng.integers(len(items)))]

    def __getstate__(self):
        # Scenes and open folders are not sent to workers; each worker has its own.
        return {name: value for name, value in vars(self).items() if name not in ('_build', '_posed_sets')}


def _swapped(pair: Pair) -> Pair:
    return Pair(pair.image1, pair.image0, pair.points10, pair.points01, pair.keypoints1, pair.keypoints0)
