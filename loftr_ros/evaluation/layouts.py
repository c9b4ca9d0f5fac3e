"""How the folders of known data sets are laid out: one function recognises, one reads.

Axes and formats were checked against the images: see test_sequences.py.
"""

from __future__ import annotations

import json
import re
from pathlib import Path

import cv2
import numpy as np

from loftr_ros.datatypes import Camera
from loftr_ros.errors import InputError
from loftr_ros.evaluation.calibration import Calibration, cam1_from_cam0, read_calibration
from loftr_ros.evaluation.colmap import is_colmap, read_colmap
from loftr_ros.evaluation.sequences import (
    IMAGE_SUFFIXES,
    Sequence,
    image_loader,
    list_images,
    made_up_stamps,
    nanoseconds,
    pose_from_numbers,
    poses_from_tum,
    read_image,
)
from loftr_ros.geometry import transform

TARTANAIR_BASELINE_M = 0.25
NED_FROM_OPTICAL = np.array([[0, 0, 1, 0], [1, 0, 0, 0], [0, 1, 0, 0], [0, 0, 0, 1]], np.float64)
ROS_FROM_NED = np.diag([1.0, -1.0, -1.0, 1.0])

TUM_DEPTH_M = 1 / 5000
TUM_RATE_HZ = 30.0
TUM_SLACK_NS = 20_000_000
"""Images, depth and poses of TUM have stamps of their own; the nearest within this belong together."""

TUM_CAMERAS = {
    'fr1': (517.3, 516.5, 318.6, 239.5),
    'fr2': (520.9, 521.0, 325.1, 249.7),
    'fr3': (535.4, 539.2, 320.1, 247.6),
}
"""Intrinsics (fx, fy, cx, cy) of the three Kinects, from the data set's page, without their small distortion."""


def _pinhole(fx: float, fy: float, cx: float, cy: float, image_file: Path) -> Camera:
    height, width = read_image(image_file).shape[:2]
    return Camera([[fx, 0, cx], [0, fy, cy], [0, 0, 1]], width, height)


def _check_pairs(left: list[Path], right: list[Path], name: str) -> None:
    if len(left) != len(right):
        raise InputError(f'{name} has {len(left)} left and {len(right)} right images; needs a right one for each left')


# --- what save_sequence writes, and plain folders -----------------------------------------------------------------


def is_own(path: Path) -> bool:
    return (path / 'left').is_dir()


def read_own(path: Path, rate_hz: float) -> Sequence:
    sides = [side for side in ('left', 'right') if (path / side).is_dir()]
    files = [list_images(path / side) for side in sides]
    if len(files) == 2:
        _check_pairs(*files, path)
    calibrations = [
        read_calibration(path / f'{side}.yaml') if (path / f'{side}.yaml').is_file() else None for side in sides
    ]
    stamps_ns = made_up_stamps(len(files[0]), rate_hz)
    if (path / 'stamps.txt').is_file():
        stamps_ns = np.loadtxt(path / 'stamps.txt', dtype=np.int64, ndmin=1)
        if len(stamps_ns) != len(files[0]):
            raise InputError(f'{path} has {len(files[0])} images and {len(stamps_ns)} stamps; write the folder again')
    poses = poses_from_tum(path / 'poses.txt')[1] if (path / 'poses.txt').is_file() else None
    cameras = [calibration.camera if calibration else None for calibration in calibrations]
    return Sequence(
        name=path.name,
        rate_hz=rate_of(stamps_ns, rate_hz),
        stamps_ns=stamps_ns,
        load=tuple(image_loader(f) for f in files),
        camera0=cameras[0],
        camera1=cameras[1] if len(cameras) == 2 else None,
        world_from_cam0=poses,
        cam1_from_cam0=cam1_from_cam0(*calibrations) if len(calibrations) == 2 and all(calibrations) else None,
    )


def rate_of(stamps_ns: np.ndarray, otherwise_hz: float) -> float:
    """Return the rate of the median step [Hz]."""
    return float(1e9 / np.median(np.diff(stamps_ns))) if len(stamps_ns) > 1 else otherwise_hz


def is_images(path: Path) -> bool:
    return any(file.suffix.lower() in IMAGE_SUFFIXES for file in path.iterdir())


def read_images(path: Path, rate_hz: float) -> Sequence:
    files = list_images(path)
    stamps_ns = made_up_stamps(len(files), rate_hz)
    return Sequence(path.name, rate_hz, stamps_ns, (image_loader(files),), frame_id0='camera_optical_frame')


def _calibrated(name: str, rate_hz: float, stamps_ns, files, calibrations: list[Calibration], poses) -> Sequence:
    """Return the sequence of one camera or a stereo rig, whose calibrations say where each camera sits."""
    stereo = len(files) == 2
    return Sequence(
        name=name,
        rate_hz=rate_of(stamps_ns, rate_hz),
        stamps_ns=stamps_ns,
        load=tuple(image_loader(f) for f in files),
        camera0=calibrations[0].camera,
        camera1=calibrations[1].camera if stereo else None,
        world_from_cam0=poses,
        cam1_from_cam0=cam1_from_cam0(*calibrations) if stereo else None,
    )


# --- KITTI odometry -----------------------------------------------------------------------------------------------

KITTI_SIDES = (
    ('image_0', 'image_1', 'P0', 'P1'),
    ('image_2', 'image_3', 'P2', 'P3'),
    ('image_l', 'image_r', 'P0', 'P1'),
)


def is_kitti(path: Path) -> bool:
    return (path / 'calib.txt').is_file() and any((path / left).is_dir() for left, *_ in KITTI_SIDES)


def read_kitti(path: Path, rate_hz: float) -> Sequence:
    left, right, *labels = next(sides for sides in KITTI_SIDES if (path / sides[0]).is_dir())
    files = [list_images(path / side) for side in (left, right) if (path / side).is_dir()]
    if len(files) == 2:
        _check_pairs(*files, path)
    calibrations = [_kitti_calibration(path / 'calib.txt', label, files[0][0]) for label in labels][: len(files)]
    stamps_ns = made_up_stamps(len(files[0]), rate_hz)
    if (path / 'times.txt').is_file():
        seconds = np.loadtxt(path / 'times.txt', ndmin=1)[: len(files[0])]
        stamps_ns = stamps_ns[0] + np.round(seconds * 1e9).astype(np.int64)
    poses = None
    if (path / 'poses.txt').is_file():
        poses = np.loadtxt(path / 'poses.txt', ndmin=2).reshape(-1, 3, 4)[: len(files[0])]
        # poses.txt is that of camera 0 (P0); the matrices say where the others sit.
        poses = np.stack([transform(p[:, :3], p[:, 3]) for p in poses]) @ calibrations[0].rig_from_cam
    return _calibrated(path.name, rate_hz, stamps_ns, files, calibrations, poses)


def _kitti_calibration(path: Path, label: str, image_file: Path) -> Calibration:
    """Read the 3x4 projection `label`; without labels the first twelve numbers are P0, the next P1."""
    text = path.read_text()
    # Matched one by one, since numbers of fixed width may follow each other without a space or a new line.
    number = re.compile(r'[-+]?\d\.\d+e[-+]\d\d')
    labelled = {line.split(':')[0].strip(): line for line in text.splitlines() if ':' in line}
    if labelled:
        if label not in labelled:
            raise InputError(f'{path} holds {", ".join(labelled)}; needs {label}')
        numbers = number.findall(labelled[label])
    else:
        first = 12 * int(label[1:])
        numbers = number.findall(text)[first : first + 12]
    if len(numbers) < 12:
        raise InputError(f'{path} gives {len(numbers)} numbers for {label}; needs the 12 of a 3x4 projection matrix')
    projection = np.reshape([float(x) for x in numbers[:12]], (3, 4))
    matrix = projection[:, :3]
    camera = _pinhole(matrix[0, 0], matrix[1, 1], matrix[0, 2], matrix[1, 2], image_file)
    return Calibration(camera, transform(np.eye(3), -np.linalg.solve(matrix, projection[:, 3])))


# --- TartanAir ----------------------------------------------------------------------------------------------------


def is_tartanair(path: Path) -> bool:
    return bool(list(path.glob('image_lcam_*')))


def read_tartanair(path: Path, rate_hz: float) -> Sequence:
    """Poses are NED (forward, right, down) of the vehicle; there may be more rows than images, row i is image i."""
    folder = sorted(path.glob('image_lcam_*'), key=lambda f: (f.name != 'image_lcam_front', f.name))[0]
    view = folder.name.removeprefix('image_lcam_')
    files = [list_images(folder)]
    right = path / f'image_rcam_{view}'
    if right.is_dir():
        files.append(list_images(right))
        _check_pairs(*files, path)
    numbers = [int(re.match(r'\d+', file.name).group()) for file in files[0]]
    poses = None
    pose_file = path / f'pose_lcam_{view}.txt'
    if pose_file.is_file():
        rows = np.loadtxt(pose_file, ndmin=2)
        if len(rows) <= max(numbers):
            raise InputError(f'{pose_file} has {len(rows)} rows; needs one for image {max(numbers)}')
        poses = ROS_FROM_NED @ np.stack([pose_from_numbers(rows[n]) for n in numbers]) @ NED_FROM_OPTICAL
    depths = path / f'depth_lcam_{view}'
    depth_files = list_images(depths) if depths.is_dir() else None
    width = read_image(files[0][0]).shape[1]
    camera = _pinhole(width / 2, width / 2, width / 2, width / 2, files[0][0])  # 90 degrees, all of them
    return Sequence(
        name=path.name,
        rate_hz=rate_hz,
        stamps_ns=made_up_stamps(len(files[0]), rate_hz),
        load=tuple(image_loader(f) for f in files),
        camera0=camera,
        camera1=camera if len(files) == 2 else None,
        world_from_cam0=poses,
        cam1_from_cam0=transform(np.eye(3), (-TARTANAIR_BASELINE_M, 0, 0)) if len(files) == 2 else None,
        load_depth0=None if depth_files is None else lambda index: _float_depth(depth_files[index]),
    )


def _float_depth(path: Path) -> np.ndarray:
    """The four 8-bit channels of a pixel are the bytes of one float32 [m]."""
    channels = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
    if channels is None or channels.ndim != 3 or channels.shape[2] != 4:
        raise InputError(f'{path} is not a depth image of TartanAir V2 (PNG with four 8-bit channels)')
    return np.ascontiguousarray(channels).view('<f4')[..., 0].astype(np.float32)


# --- EuRoC --------------------------------------------------------------------------------------------------------


def is_euroc(path: Path) -> bool:
    return any((path / sub / 'cam0' / 'sensor.yaml').is_file() for sub in ('.', 'mav0'))


def read_euroc(path: Path, rate_hz: float) -> Sequence:
    """Images as the camera took them, distorted; names are stamps [ns]."""
    root = path if (path / 'cam0').is_dir() else path / 'mav0'
    folders = [root / name for name in ('cam0', 'cam1') if (root / name / 'sensor.yaml').is_file()]
    files = [list_images(f / 'data' if (f / 'data').is_dir() else f) for f in folders]
    if len(files) == 2:  # a camera may have dropped a frame
        common = {f.name for f in files[0]} & {f.name for f in files[1]}
        files = [[f for f in side if f.name in common] for side in files]
    calibrations = [read_calibration(f / 'sensor.yaml') for f in folders]
    stamps_ns = np.array([int(file.stem) for file in files[0]], np.int64)
    truth = root / 'state_groundtruth_estimate0' / 'data.csv'
    poses = None
    if truth.is_file():
        keep, poses = _euroc_poses(truth, stamps_ns, calibrations[0].rig_from_cam)
        stamps_ns, files = stamps_ns[keep], [[side[i] for i in keep] for side in files]
    return _calibrated(path.name, rate_hz, stamps_ns, files, calibrations, poses)


def _euroc_poses(path: Path, stamps_ns: np.ndarray, body_from_cam: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return which images have a pose within 5 ms, and world_from_cam of those; rows: stamp, p, q (w x y z), ..."""
    rows = np.genfromtxt(path, delimiter=',', comments='#', dtype=None, encoding='utf-8')
    truth_ns = np.array([int(row[0]) for row in np.atleast_1d(rows)], np.int64)
    numbers = np.array([[row[i] for i in (1, 2, 3, 5, 6, 7, 4)] for row in np.atleast_1d(rows)], np.float64)
    keep, nearest = _nearest(stamps_ns, truth_ns, 5_000_000)
    if not len(keep):
        raise InputError(f'{path} has no pose within 5 ms of an image; is it of another recording?')
    return keep, np.stack([pose_from_numbers(numbers[i]) for i in nearest]) @ body_from_cam


def _nearest(stamps_ns: np.ndarray, others_ns: np.ndarray, slack_ns: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the indices of stamps that have another within `slack_ns`, and the index of the nearest for each."""
    order = np.argsort(others_ns)
    sorted_ns = others_ns[order]
    after = np.clip(np.searchsorted(sorted_ns, stamps_ns), 1, max(len(sorted_ns) - 1, 1))
    before = after - 1
    after = np.minimum(after, len(sorted_ns) - 1)
    chosen = np.where(stamps_ns - sorted_ns[before] <= sorted_ns[after] - stamps_ns, before, after)
    keep = np.flatnonzero(np.abs(sorted_ns[chosen] - stamps_ns) <= slack_ns)
    return keep, order[chosen[keep]]


# --- TUM RGB-D ----------------------------------------------------------------------------------------------------


def is_tum(path: Path) -> bool:
    return (path / 'rgb').is_dir()


def read_tum(path: Path, rate_hz: float) -> Sequence:
    """Either the original (names are stamps, groundtruth.txt) or numbered images with ground_truth.json."""
    files = list_images(path / 'rgb')
    depth_files = list_images(path / 'depth') if (path / 'depth').is_dir() else []
    poses = None
    if (path / 'ground_truth.json').is_file():
        truth = json.loads((path / 'ground_truth.json').read_text())
        poses = np.array([truth[file.stem]['transformation'] for file in files], np.float64)
        stamps_ns = made_up_stamps(len(files), TUM_RATE_HZ)
        by_name = {file.stem: file for file in depth_files}
        depth_files = [by_name.get(file.stem) for file in files]
    else:
        stamps_ns = _stamps_of(files)
        if depth_files:
            keep, chosen = _nearest(stamps_ns, _stamps_of(depth_files), TUM_SLACK_NS)
            files, stamps_ns = [files[i] for i in keep], stamps_ns[keep]
            depth_files = [depth_files[i] for i in chosen]
        if (path / 'groundtruth.txt').is_file():
            truth_ns, truth = poses_from_tum(path / 'groundtruth.txt')
            keep, chosen = _nearest(stamps_ns, truth_ns, TUM_SLACK_NS)
            files, stamps_ns, poses = [files[i] for i in keep], stamps_ns[keep], truth[chosen]
            depth_files = [depth_files[i] for i in keep] if depth_files else []
    has_depth = bool(depth_files) and all(depth_files)
    return Sequence(
        name=path.name,
        rate_hz=rate_of(stamps_ns, rate_hz),
        stamps_ns=stamps_ns,
        load=(image_loader(files),),
        camera0=_tum_camera(path, files[0]),
        frame_id0='camera_optical_frame',
        world_from_cam0=poses,
        load_depth0=(lambda index: _png_depth(depth_files[index])) if has_depth else None,
    )


def _stamps_of(files: list[Path]) -> np.ndarray:
    try:
        return np.array([nanoseconds(file.stem) for file in files], np.int64)
    except ValueError as error:
        raise InputError(
            f'{files[0]} is not named by its stamp [s]; needs ground_truth.json for other names'
        ) from error


def _tum_camera(path: Path, image_file: Path) -> Camera | None:
    """Return the camera of camera_intrinsics.yaml, or of the Kinect that the folder's name tells, or None."""
    import yaml

    if (path / 'camera_intrinsics.yaml').is_file():
        document = yaml.safe_load((path / 'camera_intrinsics.yaml').read_text())
        (fx, _, cx), (_, fy, cy), _ = document['intrinsics']
        return _pinhole(fx, fy, cx, cy, image_file)
    short = path.name.lower().replace('freiburg', 'fr')
    for name, intrinsics in TUM_CAMERAS.items():
        if name in short:
            return _pinhole(*intrinsics, image_file)
    return None


def _png_depth(path: Path) -> np.ndarray:
    depth = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
    if depth is None or depth.dtype != np.uint16 or depth.ndim != 2:
        raise InputError(f'{path} is not a depth image of TUM RGB-D (PNG with one 16-bit channel)')
    return depth.astype(np.float32) * np.float32(TUM_DEPTH_M)


LAYOUTS = (
    (is_kitti, read_kitti),
    (is_tartanair, read_tartanair),
    (is_euroc, read_euroc),
    (is_colmap, read_colmap),
    (is_tum, read_tum),
    (is_own, read_own),
    (is_images, read_images),
)
"""In this order: the more telling first, any folder with images last."""
