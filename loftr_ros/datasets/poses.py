"""Pose files: rows with stamp, position and quaternion (TUM, EuRoC), and rows with a matrix (KITTI)."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np

from loftr_ros.datasets.text_files import Row, Table, numbers, read_table, stamps_to_ns
from loftr_ros.errors import InputError
from loftr_ros.geometry import matrix_from_quaternion, nearest_rotation, quaternion_from_matrix, transform

TUM_COLUMNS = ('stamp', 'tx', 'ty', 'tz', 'qx', 'qy', 'qz', 'qw')
EUROC_COLUMNS = ('stamp', 'tx', 'ty', 'tz', 'qw', 'qx', 'qy', 'qz')

MAX_QUATERNION_ERROR = 0.01
"""Largest difference of a quaternion's length from 1; rounding to 4 decimals gives 0.0001, wrong columns give more."""
MAX_ROTATION_ERROR = 1e-3
"""Largest difference of R R' from the identity; rounding to 4 decimals gives 0.0002."""

_COLUMN_NAMES = (
    (re.compile(r'(?:time_?stamp|stamp|time|t)(?:_?(?:s|sec|ns|nsec))?'), 'stamp'),
    (re.compile(r'(?:.*_)?(?:t|p|pos|position|trans|translation)(?:_rs_r)?_?([xyz])'), 't{}'),
    (re.compile(r'()([xyz])'), 't{}'),
    (re.compile(r'(?:.*_)?(?:q|quat|quaternion|orientation|rot|rotation)(?:_rs)?_?([wxyz])'), 'q{}'),
)


# --- one pose ------------------------------------------------------------------------------------------------------


def rotation_matrix(values, name: str) -> np.ndarray:
    """Return the (3, 3) rotation nearest to `values`; InputError unless they are a rotation up to rounding."""
    values = np.asarray(values, np.float64)
    with np.errstate(over='ignore', invalid='ignore'):
        error = np.abs(values @ values.T - np.eye(3)).max()
    if not (error <= MAX_ROTATION_ERROR and np.linalg.det(values) > 0):
        raise InputError(
            f'{name} is not a rotation: needs orthogonal rows of length 1 and determinant 1, got {values.tolist()}'
        )
    return nearest_rotation(values)


def rigid_transform(values, name: str) -> np.ndarray:
    """Return the (4, 4) rigid transform of (3, 4) or (4, 4) values; InputError unless they are one."""
    values = np.asarray(values, np.float64)
    if len(values) == 4 and np.abs(values[3] - (0, 0, 0, 1)).max() > 1e-6:
        raise InputError(f'{name} needs the last row 0 0 0 1, got {values[3].tolist()}; is it transposed?')
    return transform(rotation_matrix(values[:3, :3], f'the 3x3 part of {name}'), values[:3, 3])


def pose_from_numbers(values) -> np.ndarray:
    """Return the (4, 4) pose of (tx, ty, tz, qx, qy, qz, qw)."""
    values = numbers(values)
    with np.errstate(over='ignore'):
        length = float(np.linalg.norm(values[3:7]))
    if not abs(length - 1) <= MAX_QUATERNION_ERROR:
        raise InputError(f'the quaternion {values[3:7].tolist()} (x y z w) has length {length:.4g}; needs 1')
    return transform(matrix_from_quaternion(values[3:7]), values[:3])


# --- files ---------------------------------------------------------------------------------------------------------


def poses_to_tum(path, stamps_ns, world_from_cam) -> None:
    """Write rows 'stamp tx ty tz qx qy qz qw', the stamp in seconds with nine decimals."""
    lines = []
    for stamp_ns, pose in zip(stamps_ns, world_from_cam, strict=True):
        sign, (seconds, nanoseconds) = '-' if stamp_ns < 0 else '', divmod(abs(int(stamp_ns)), 10**9)
        values = [*pose[:3, 3], *quaternion_from_matrix(pose[:3, :3])]
        lines.append(f'{sign}{seconds}.{nanoseconds:09d} ' + ' '.join(f'{x:.12f}' for x in values))
    Path(path).write_text('\n'.join(lines) + '\n')


def poses_from_tum(path) -> tuple[np.ndarray, np.ndarray]:
    """Return stamps_ns (N,) and poses (N, 4, 4) of a file in TUM format, sorted by stamp."""
    return read_stamped_poses(path, TUM_COLUMNS, 's')


def read_stamped_poses(path, columns: tuple[str, ...], convention: str) -> tuple[np.ndarray, np.ndarray]:
    """Return stamps_ns (N,) and poses (N, 4, 4), sorted by stamp.

    Args:
        columns: the first columns of a row (TUM_COLUMNS or EUROC_COLUMNS), unless the file's header names them.
        convention: 's' or 'ns', the unit of stamps whose size does not tell it.
    """
    needed = f'{" ".join(columns)} (stamp in {convention})'
    table = read_table(path, needed)
    named = _named_columns(table, needed)
    places = named or {name: i for i, name in enumerate(columns)}
    stamps, poses = [], []
    for row in table.rows:
        counts = (len(table.header.words),) if named else (len(columns),)
        if not named and columns == EUROC_COLUMNS:
            counts = tuple(range(len(columns), 64))  # velocity and biases follow
        row.numbers(needed, counts, finite=False)
        try:
            stamps.append(row.words[places['stamp']])
            poses.append(pose_from_numbers([row.words[places[name]] for name in TUM_COLUMNS[1:]]))
        except InputError as error:
            raise row.error(f'{error}; needs {needed}') from error
    try:
        stamps_ns = stamps_to_ns(stamps, convention)
    except InputError as error:
        raise InputError(f'{path}: {error}; needs {needed}') from error
    return _sorted_by_stamp(table.rows, stamps_ns, np.stack(poses))


def _named_columns(table: Table, needed: str) -> dict[str, int]:
    """Return the index of each of TUM_COLUMNS as the header names them; empty without such a header."""
    if table.header is None:
        return {}
    places: dict[str, int] = {}
    for place, word in enumerate(table.header.words):
        name = _column_name(word)
        if name:
            places.setdefault(name, place)
    if set(places) == set(TUM_COLUMNS):
        return places
    if table.has_commented_header:
        return {}  # an ordinary comment
    missing = ', '.join(name for name in TUM_COLUMNS if name not in places)
    raise table.header.error(f'names {" ".join(table.header.words)[:200]!r} without {missing}; needs {needed}')


def _column_name(word: str) -> str:
    word = re.sub(r'\W+', '_', word.lower()).strip('_')
    for pattern, name in _COLUMN_NAMES:
        match = pattern.fullmatch(word)
        if match:
            return name.format(match.groups()[-1] if match.groups() else '')
    return ''


def _sorted_by_stamp(rows: list[Row], stamps_ns: np.ndarray, poses: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    order = np.argsort(stamps_ns, kind='stable')
    stamps_ns, poses = stamps_ns[order], poses[order]
    same = np.diff(stamps_ns) == 0
    for i in np.flatnonzero(same):
        if not np.allclose(poses[i], poses[i + 1], atol=1e-9):
            first = rows[order[i]].line
            raise rows[order[i + 1]].error(
                f'has the stamp of line {first} and another pose; needs one pose for each stamp'
            )
    keep = np.flatnonzero(np.append(True, ~same))
    return stamps_ns[keep], poses[keep]


def read_matrix_poses(path) -> np.ndarray:
    """Return (N, 4, 4) poses of a file in KITTI format: rows of 12 numbers (3x4 matrix) or 16 (4x4)."""
    needed = '12 numbers of a 3x4 matrix, row by row'
    poses = []
    for row in read_table(path, needed).rows:
        values = row.numbers(needed, (12, 16))
        try:
            poses.append(rigid_transform(values.reshape(-1, 4), 'the pose'))
        except InputError as error:
            raise row.error(error) from error
    return np.stack(poses)
