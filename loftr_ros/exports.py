"""Matches of several images as files of other programs: HDF5 as hloc has it, a database of COLMAP.

Both have numbered keypoints for each image and matches as pairs of numbers. So a point that several pairs have in
common first becomes one keypoint.
"""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from loftr_ros.camera import Camera, CameraModel
from loftr_ros.datatypes import Matches
from loftr_ros.errors import InputError, MissingDependencyError
from loftr_ros.image import CORNER_OFFSET_PX
from loftr_ros.output_files import writing

Pairs = Mapping[tuple[str, str], Matches]
"""The matches of each pair of images, by the names of image 0 and image 1."""

MAX_IMAGE_ID = 2**31 - 1
"""Of COLMAP: the number of a pair is `MAX_IMAGE_ID * smaller_id + larger_id`."""

TABLES = """
CREATE TABLE cameras (camera_id INTEGER PRIMARY KEY AUTOINCREMENT NOT NULL, model INTEGER NOT NULL,
    width INTEGER NOT NULL, height INTEGER NOT NULL, params BLOB, prior_focal_length INTEGER NOT NULL);
CREATE TABLE images (image_id INTEGER PRIMARY KEY AUTOINCREMENT NOT NULL, name TEXT NOT NULL UNIQUE,
    camera_id INTEGER NOT NULL, FOREIGN KEY(camera_id) REFERENCES cameras(camera_id));
CREATE TABLE keypoints (image_id INTEGER PRIMARY KEY NOT NULL, rows INTEGER NOT NULL, cols INTEGER NOT NULL, data BLOB,
    FOREIGN KEY(image_id) REFERENCES images(image_id) ON DELETE CASCADE);
CREATE TABLE matches (pair_id INTEGER PRIMARY KEY NOT NULL, rows INTEGER NOT NULL, cols INTEGER NOT NULL, data BLOB);
"""
"""The tables of COLMAP's database that matches need; COLMAP adds the others when it opens the file."""


def write_hdf5(features_path: str | Path, matches_path: str | Path, pairs: Pairs, cell_px: float = 1.0) -> None:
    """Write the two HDF5 files of hloc (github.com/cvg/Hierarchical-Localization): keypoints and matches.

    The first file contains `<image>/keypoints` (N, 2) and `<image>/scores` (N,). The second contains
    `<image 0>/<image 1>/matches0` (N,), for each keypoint of image 0 the number of its keypoint in image 1 or -1, and
    `matching_scores0` (N,); a `/` in the name of an image is a `-` there. hloc has our convention of pixels.

    Args:
        cell_px: see `index_keypoints`.

    Raises:
        MissingDependencyError: h5py is not installed.
        OutputError: a file cannot be written.
    """
    try:
        import h5py
    except ImportError as error:
        raise MissingDependencyError('HDF5 files need the package h5py: pip install h5py') from error

    keypoints, scores, numbers = index_keypoints(pairs, cell_px)
    with writing(features_path) as path, h5py.File(path, 'w') as file:
        for name in keypoints:
            file[f'{name}/keypoints'] = keypoints[name]
            file[f'{name}/scores'] = scores[name]
    with writing(matches_path) as path, h5py.File(path, 'w') as file:
        for names, (indices, confidence) in numbers.items():
            matches0 = np.full(len(keypoints[names[0]]), -1, np.int32)
            scores0 = np.zeros(len(matches0), np.float32)
            matches0[indices[:, 0]] = indices[:, 1]
            scores0[indices[:, 0]] = confidence
            group = '/'.join(name.replace('/', '-') for name in names)
            file[f'{group}/matches0'], file[f'{group}/matching_scores0'] = matches0, scores0


def write_colmap(path: str | Path, pairs: Pairs, cameras: Mapping[str, Camera] | Camera, cell_px: float = 1.0) -> None:
    """Write a new database of COLMAP with the images, their cameras, keypoints and matches.

    The matches are not verified yet: `pycolmap.verify_matches` or `colmap matches_importer` does that.

    Args:
        cameras: of each image by its name, or one for all images; images of the same Camera object share it.
        cell_px: see `index_keypoints`.

    Raises:
        InputError: an image has no camera, or COLMAP has no model for it.
        OutputError: the file cannot be written.
    """
    keypoints, _, numbers = index_keypoints(pairs, cell_px)
    if isinstance(cameras, Camera):
        cameras = dict.fromkeys(keypoints, cameras)
    missing = sorted(keypoints.keys() - cameras.keys())
    if missing:
        raise InputError(f'{len(missing)} of {len(keypoints)} images have no camera ({missing[:3]}); add them')
    ids = {name: number for number, name in enumerate(keypoints, 1)}
    with writing(path) as file, contextlib.closing(sqlite3.connect(file)) as database, database:
        database.executescript(TABLES)
        camera_ids: dict[Camera, int] = {}
        for name, image_id in ids.items():
            camera = cameras[name]
            if camera not in camera_ids:
                camera_ids[camera] = len(camera_ids) + 1
                model, parameters = colmap_camera(camera)
                row = camera_ids[camera], model, camera.width, camera.height, parameters.tobytes(), 1
                database.execute('INSERT INTO cameras VALUES (?, ?, ?, ?, ?, ?)', row)
            database.execute('INSERT INTO images VALUES (?, ?, ?)', (image_id, name, camera_ids[camera]))
            points = (keypoints[name] + CORNER_OFFSET_PX).astype(np.float32)
            database.execute('INSERT INTO keypoints VALUES (?, ?, ?, ?)', (image_id, *points.shape, points.tobytes()))
        for names, (indices, _) in numbers.items():
            first, second = (ids[name] for name in names)
            if first > second:
                first, second, indices = second, first, indices[:, ::-1]
            data = np.ascontiguousarray(indices, np.uint32)
            row = MAX_IMAGE_ID * first + second, *data.shape, data.tobytes()
            database.execute('INSERT INTO matches VALUES (?, ?, ?, ?)', row)


def index_keypoints(pairs: Pairs, cell_px: float):
    """Number the points of each image, those that several pairs have in common once.

    Args:
        cell_px: points of an image in the same square of this size become one keypoint, at the place of the most
            confident one; otherwise dense matchers give no tracks over more than two images. 0 joins equal points only.

    Returns:
        keypoints: (N, 2) float32 of each image [px].
        scores: (N,) float32 of each image, the confidence of the most confident match of each keypoint.
        numbers: for each pair (M, 2) int64 numbers of keypoints in image 0 and image 1, and (M,) float32 confidence. A
            keypoint is in one match of a pair at most, the most confident.

    Raises:
        InputError: an image is matched with itself, or a pair is there in both directions.
    """
    for name0, name1 in pairs:
        if name0 == name1 or (name1, name0) in pairs:
            raise InputError(f'the pair {name0}, {name1} is there twice or is one image; give each pair of images once')
    sides: dict[str, list[tuple[tuple[str, str], int]]] = {}
    for names in pairs:
        for side, name in enumerate(names):
            sides.setdefault(name, []).append((names, side))
    keypoints, scores, columns = {}, {}, {}
    for name, uses in sides.items():
        points = np.concatenate([(pairs[names].keypoints0, pairs[names].keypoints1)[side] for names, side in uses])
        confidence = np.concatenate([pairs[names].confidence for names, _ in uses])
        best, number = _first_of_each(np.round(points / cell_px) if cell_px else points, confidence)
        keypoints[name], scores[name] = points[best], confidence[best]
        ends = np.cumsum([len(pairs[names]) for names, _ in uses])
        columns |= dict(zip(uses, np.split(number, ends[:-1]), strict=True))
    numbers = {}
    for names, matches in pairs.items():
        indices, confidence = np.column_stack([columns[names, side] for side in (0, 1)]), matches.confidence
        for side in (0, 1):
            best, _ = _first_of_each(indices[:, side], confidence)
            indices, confidence = indices[best], confidence[best]
        numbers[names] = indices, confidence
    return keypoints, scores, numbers


def _first_of_each(keys: np.ndarray, confidence: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return for each distinct row of `keys` the index of its most confident one, and for each row its distinct row."""
    order = np.argsort(-confidence, kind='stable')
    _, first, number = np.unique(keys[order], axis=0, return_index=True, return_inverse=True)
    inverse = np.empty(len(keys), np.int64)
    inverse[order] = number.reshape(-1)
    return order[first], inverse


def colmap_camera(camera: Camera) -> tuple[int, np.ndarray]:
    """Return the number of COLMAP's camera model and its parameters (float64); InputError where COLMAP has none."""
    if camera.matrix[0, 1]:
        raise InputError(f'COLMAP has no camera model with skew, got {camera.matrix[0, 1]:g}; rectify the images first')
    matrix = camera.matrix
    pinhole = [matrix[0, 0], matrix[1, 1], *(matrix[:2, 2] + CORNER_OFFSET_PX)]
    distortion = camera.distortion
    if camera.model is CameraModel.EQUIDISTANT:
        return 5, np.array([*pinhole, *distortion])  # OPENCV_FISHEYE
    if not distortion.any():
        return 1, np.array(pinhole)  # PINHOLE
    if not distortion[4:].any():
        return 4, np.array([*pinhole, *distortion[:4]])  # OPENCV
    if distortion[8:].any():
        raise InputError(
            f'COLMAP has no camera model with the coefficients s1 to ty, got {distortion[8:].tolist()}; undistort the '
            'images first'
        )
    full = np.zeros(8)
    full[: len(distortion[:8])] = distortion[:8]
    return 6, np.array([*pinhole, *full])  # FULL_OPENCV
