"""Constant transforms between frames, from /tf_static of a bag."""

from __future__ import annotations

from functools import cached_property
from pathlib import Path

import numpy as np

from loftr_ros.datasets.bags import bag_topics, read_bag
from loftr_ros.errors import InputError
from loftr_ros.geometry import invert_transform
from loftr_ros.messages import transform_from_msg

STATIC = '/tf_static'


class StaticTransforms:
    """Transforms between all frames that /tf_static of a bag connects, by any number of steps."""

    def __init__(self, path: Path):
        self._path = path

    @cached_property
    def _parents(self) -> dict[str, tuple[str, np.ndarray]]:
        """Parent and parent_from_child (4, 4) of each frame; read when they are needed first."""
        found = {}
        if STATIC in bag_topics(self._path):
            for _, _, _, message in read_bag(self._path, [STATIC]):
                for one in message.transforms:
                    parent, child = _name(one.header.frame_id), _name(one.child_frame_id)
                    found[child] = parent, transform_from_msg(one.transform)
        return found

    def look_up(self, target: str, source: str) -> np.ndarray:
        """Return target_from_source (4, 4).

        Raises:
            InputError: the bag does not connect the two frames.
        """
        above_target, above_source = (self._ancestors(_name(frame)) for frame in (target, source))
        common = next((frame for frame in above_source if frame in above_target), None)
        if common is None:
            raise InputError(
                f'{STATIC} of {self._path} does not connect {source!r} with {target!r}; it has the frames '
                f'{", ".join(sorted(self._parents)) or "none"}. Give the pose as numbers instead of tf'
            )
        return invert_transform(above_target[common]) @ above_source[common]

    def _ancestors(self, frame: str) -> dict[str, np.ndarray]:
        """Return ancestor_from_frame (4, 4) of the frame itself and of all frames above it, the nearest first."""
        found = {frame: np.eye(4)}
        matrix = np.eye(4)
        while frame in self._parents:
            frame, step = self._parents[frame]
            if frame in found:
                raise InputError(f'{STATIC} of {self._path} has a circle of frames through {frame!r}')
            matrix = step @ matrix
            found[frame] = matrix
        return found


def _name(frame: str) -> str:
    return frame.lstrip('/')  # ROS 1 had frames that begin with a slash
