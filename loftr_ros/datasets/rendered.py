"""Sequences that are rendered, with exact poses and depth."""

from __future__ import annotations

import numpy as np

from loftr_ros.camera import Camera
from loftr_ros.datasets.sequence import DEFAULT_RATE_HZ, Sequence, constant_rate_stamps
from loftr_ros.geometry import transform


def rendered_drive(
    seed: int = 0, num_frames: int = 40, baseline_m: float = 0.12, size=(640, 480), step_m: float = 0.07
) -> Sequence:
    """Return a stereo sequence of a robot that drives through a furnished room, at 10 Hz, with exact poses and depth.

    Frames are rendered on request.

    Args:
        size: (width, height) [px]; the horizontal field of view is 67 degrees.
        step_m: way between two frames; a loop is about 14 m.
    """
    from loftr_ros.rendering import furnished_room, render, room_trajectory

    width, height = size
    focal_px = 0.75 * width
    matrix = [[focal_px, 0, (width - 1) / 2], [0, focal_px, (height - 1) / 2], [0, 0, 1]]
    camera = Camera(matrix, width, height)
    right_from_left = transform(np.eye(3), (-baseline_m, 0, 0))
    world_from_left = room_trajectory(num_frames, seed, step_m)
    world_from_right = world_from_left @ np.linalg.inv(right_from_left)
    scene = []  # built for the first image, so that opening takes no time

    def draw(world_from_cam, index, side):
        if not scene:
            scene.append(furnished_room(seed))
        return render(scene[0], camera, world_from_cam[index], noise_sigma=1.5, seed=(seed, index, side))

    return Sequence(
        name=f'rendered_drive_{seed}',
        rate_hz=DEFAULT_RATE_HZ,
        stamps_ns=constant_rate_stamps(num_frames, DEFAULT_RATE_HZ),
        load=(lambda index: draw(world_from_left, index, 0)[0], lambda index: draw(world_from_right, index, 1)[0]),
        camera0=camera,
        camera1=camera,
        world_from_cam0=world_from_left,
        cam1_from_cam0=right_from_left,
        load_depth0=lambda index: draw(world_from_left, index, 0)[1],
    )
