"""What a report shows, for the viewer of rerun (rerun.io): trajectories, numbers over time, matches of pairs."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from loftr_ros.datatypes import Matches
from loftr_ros.errors import MissingDependencyError
from loftr_ros.evaluation.odometry_run import OdometryRun, OdometryScore
from loftr_ros.evaluation.report import in_first_camera
from loftr_ros.output_files import writing

BLUE, GREY, GREEN, RED = (60, 120, 230), (150, 150, 150), (60, 200, 60), (220, 50, 50)
AXES_SHARE = 0.02
"""Length of the axes of a camera, as a share of the extent of the path."""


class ShownPair(NamedTuple):
    """A pair to show.

    Args:
        image0, image1: uint8 (H, W) or (H, W, 3), blue first.
        is_good: (N,) bool of the matches: drawn in green, the others in red.
    """

    image0: np.ndarray
    image1: np.ndarray
    matches: Matches
    is_good: np.ndarray


def import_rerun() -> Any:
    """Return the package rerun.

    Raises:
        MissingDependencyError: it is not installed.
    """
    try:
        import rerun
    except ImportError as error:
        raise MissingDependencyError('--export rrd needs rerun-sdk: pip install loftr_ros[rerun]') from error
    return rerun


def write_odometry(path: Path, run: OdometryRun, score: OdometryScore | None) -> None:
    """Write trajectories as in the report, the numbers of matches, inliers and tracks, and the pairs that the run kept.

    Raises:
        MissingDependencyError: rerun is not installed.
        OutputError: the file cannot be written.
    """
    rerun = import_rerun()
    estimate, truth = in_first_camera(run, score)
    stamps = run.stamps_ns.astype('datetime64[ns]')
    known = np.flatnonzero(run.has_pose) if score is None else score.rows
    with _recording(path) as recording:
        recording.log('world', rerun.ViewCoordinates.FLU, static=True)
        _log_path(recording, 'world/estimated', stamps[known], estimate, BLUE)
        if truth is not None:
            _log_path(recording, 'world/truth', stamps[known], truth, GREY)
        for stamp, row in zip(stamps, run.rows, strict=True):
            recording.set_time('time', timestamp=stamp)
            for name in ('matches', 'inliers', 'tracks'):
                recording.log(f'frames/{name}', rerun.Scalars(getattr(row, name)))
        for name, pair in run.examples.items():
            _log_pair(recording, name, ShownPair(pair.frame0.image, pair.frame1.image, pair.matches, pair.inliers))


def write_pairs(path: Path, shown: dict[str, ShownPair]) -> None:
    """Write pairs by what they are.

    Raises:
        MissingDependencyError: rerun is not installed.
        OutputError: the file cannot be written.
    """
    with _recording(path) as recording:
        for name, pair in shown.items():
            _log_pair(recording, name, pair)


@contextlib.contextmanager
def _recording(path: Path) -> Iterator[Any]:
    with writing(path) as file:
        recording = import_rerun().RecordingStream('loftr_ros evaluate')
        recording.save(file)
        yield recording
        recording.disconnect()  # writes all of it


def _log_path(recording, name: str, stamps: np.ndarray, poses: np.ndarray, colour: tuple[int, int, int]) -> None:
    """Log the poses (N, 4, 4) at stamps (N,) as a line, and over time as the axes of a camera: forward, left, up."""
    rerun = import_rerun()
    places = poses[:, :3, 3]
    recording.log(f'{name}/path', rerun.LineStrips3D([places], colors=[colour]), static=True)
    extent = np.linalg.norm(np.ptp(places, axis=0)) if len(places) else 0.0
    recording.log(f'{name}/camera', rerun.TransformAxes3D(AXES_SHARE * extent), static=True)
    for stamp, pose in zip(stamps, poses, strict=True):
        recording.set_time('time', timestamp=stamp)
        recording.log(f'{name}/camera', rerun.Transform3D(translation=pose[:3, 3], mat3x3=pose[:3, :3]))


def _log_pair(recording, name: str, pair: ShownPair) -> None:
    """Log both images side by side, and a line for each match."""
    rerun = import_rerun()
    images = [np.dstack([image] * 3) if image.ndim == 2 else image for image in (pair.image0, pair.image1)]
    width = images[0].shape[1]
    picture = np.zeros((max(len(image) for image in images), width + images[1].shape[1], 3), np.uint8)
    picture[: len(images[0]), :width], picture[: len(images[1]), width:] = images
    path = f'pairs/{rerun.escape_entity_path_part(name)}'
    recording.log(f'{path}/images', rerun.Image(picture, color_model='BGR'), static=True)
    # The middle of the first pixel is (0, 0) here and (0.5, 0.5) in rerun.
    lines = np.stack([pair.matches.keypoints0, pair.matches.keypoints1 + (width, 0)], axis=1) + 0.5
    for kind, chosen, colour in (('good', pair.is_good, GREEN), ('bad', ~pair.is_good, RED)):
        recording.log(f'{path}/{kind}', rerun.LineStrips2D(lines[chosen], colors=[colour]), static=True)
