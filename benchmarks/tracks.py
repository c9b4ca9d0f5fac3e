"""Purity and length of tracks on a rendered drive, with tracks of OpenCV's Lucas-Kanade (KLT) in the same run.

    . scripts/environment.sh && python benchmarks/tracks.py

A track is pure as long as its point is within 3 px of the projection of the 3D point that it started at. Writes
benchmarks/results/tracks.md.
"""

from __future__ import annotations

import argparse
import collections
import tempfile
from pathlib import Path

import cv2
import numpy as np
import report

from loftr_ros import geometry
from loftr_ros.config import Config
from loftr_ros.datasets import open_sequence, rendered_drive, save_sequence
from loftr_ros.evaluation.compared import create_compared
from loftr_ros.odometry.odometer import Odometer
from loftr_ros.settings import override

FRAMES = 60
PURE_PX = 3.0
KLT_POINTS, KLT_DISTANCE_PX, KLT_BACK_PX = 1000, 12, 1.0
"""Corners, their least distance, and the largest error of tracking back, beyond which a track ends."""

HEADER = [
    *('tracks of', 'tracks', 'points a frame p50'),
    *('pure observations %', 'pure tracks %', 'frames p50', 'frames p90'),
]
TEXT = f"""# Tracks

`benchmarks/tracks.py`: a rendered drive of {FRAMES} frames, 7 cm apart. An observation is pure within {PURE_PX:g} px of
the projection of the 3D point where its track began; a track is pure if all its observations are. Lengths of tracks in
frames, of tracks with at least two. KLT: `goodFeaturesToTrack` ({KLT_POINTS} corners, refilled in each frame) and
`calcOpticalFlowPyrLK`; a track ends where tracking back is more than {KLT_BACK_PX:g} px off.

"""

Frames = list[dict[int, np.ndarray]]
"""For each frame, the pixel of each track."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--matchers', nargs='+', default=['default', 'sift+lk'], metavar='NAME')
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        save_sequence(rendered_drive(seed=1, num_frames=FRAMES), Path(folder) / 'drive')
        sequence = open_sequence(Path(folder) / 'drive')
        found = {
            f'{name}, {rig}': odometer_tracks(sequence, name, rig)
            for name in options.matchers
            for rig in ('mono', 'stereo')
        }
        found['KLT'] = klt_tracks(sequence)
        rows = [[name, *figures(sequence, frames)] for name, frames in found.items()]
    report.write('tracks.md', f'{TEXT}{report.circumstances()}\n\n{report.table(HEADER, rows)}\n')


def odometer_tracks(sequence, name: str, rig: str) -> Frames:
    """Return the tracks of the odometry with a matcher."""
    config = override(Config(), {'odometry.rig': rig})
    odometer = Odometer(create_compared(name, config.matcher), config)
    motions = (odometer.process(sequence.frame_set(index, rig)) for index in range(len(sequence)))
    return [dict(zip(m.tracks.ids.tolist(), m.tracks.keypoints, strict=True)) for m in motions]


def klt_tracks(sequence) -> Frames:
    """Return the tracks of KLT with a check by tracking back."""
    frames, before, tracks, number = [], None, {}, 0
    for index in range(len(sequence)):
        image = cv2.cvtColor(sequence.frames(index)[0].image, cv2.COLOR_BGR2GRAY)
        if tracks:
            points = np.float32(list(tracks.values()))[:, None]
            moved, forth, _ = cv2.calcOpticalFlowPyrLK(before, image, points, None)
            back, again, _ = cv2.calcOpticalFlowPyrLK(image, before, moved, None)
            good = (forth & again).ravel().astype(bool) & (np.linalg.norm(back - points, axis=2).ravel() < KLT_BACK_PX)
            inside = ((moved[:, 0] >= 0) & (moved[:, 0] < image.shape[::-1])).all(axis=1)
            tracks = {key: moved[i, 0] for i, key in enumerate(tracks) if good[i] and inside[i]}
        mask = np.full(image.shape, 255, np.uint8)
        for place in tracks.values():
            cv2.circle(mask, (int(place[0]), int(place[1])), KLT_DISTANCE_PX, 0, -1)
        missing = KLT_POINTS - len(tracks)
        corners = cv2.goodFeaturesToTrack(image, missing, 0.01, KLT_DISTANCE_PX, mask=mask) if missing > 0 else None
        for corner in [] if corners is None else corners[:, 0]:
            tracks[number] = corner
            number += 1
        frames.append(dict(tracks))
        before = image
    return frames


def figures(sequence, frames: Frames) -> list:
    """Return the numbers of a row."""
    camera, poses = sequence.camera0, sequence.world_from_cam0
    start, lengths, wrong, observed, pure = {}, collections.Counter(), set(), 0, 0
    for index, tracks in enumerate(frames):
        if not tracks:
            continue
        ids, pixels = list(tracks), np.array(list(tracks.values()), np.float64)
        depth = cv2.remap(sequence.depth0(index), *np.float32(pixels.T), cv2.INTER_NEAREST).ravel()
        rays = geometry.homogeneous(geometry.undistort_points(camera, pixels))
        places = (rays * depth[:, None]) @ poses[index][:3, :3].T + poses[index][:3, 3]
        cam_from_world = np.linalg.inv(poses[index])
        known = [i for i, key in enumerate(ids) if key in start]
        if known:
            world = np.array([start[ids[i]] for i in known])
            seen = geometry.project(camera, world @ cam_from_world[:3, :3].T + cam_from_world[:3, 3])
            good = np.linalg.norm(seen - pixels[known], axis=1) <= PURE_PX
            observed, pure = observed + len(good), pure + int(good.sum())
            wrong |= {ids[i] for i, right in zip(known, good, strict=True) if not right}
        for key, place, z in zip(ids, places, depth, strict=True):
            lengths[key] += 1
            if key not in start and z > 0:
                start[key] = place
    long = {key: length for key, length in lengths.items() if length > 1 and key in start}
    return [
        len(long),
        f'{np.median([len(tracks) for tracks in frames[1:]]):.0f}',
        f'{100 * pure / max(observed, 1):.1f}',
        f'{100 * (1 - len(wrong & long.keys()) / max(len(long), 1)):.1f}',
        *(f'{np.percentile(list(long.values()), share):.0f}' for share in (50, 90)),
    ]


if __name__ == '__main__':
    main()
