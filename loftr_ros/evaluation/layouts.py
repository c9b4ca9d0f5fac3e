"""How the folders of known data sets are laid out: one function recognises, one reads.

Axes and formats were checked against the images: see test_sequences.py.
"""

from __future__ import annotations

import logging
import re
from pathlib import Path

import numpy as np

from loftr_ros.datatypes import Camera
from loftr_ros.errors import InputError
from loftr_ros.evaluation.calibration import Calibration, cam1_from_cam0, read_calibration, rectified_calibration
from loftr_ros.evaluation.colmap import is_colmap, read_colmap
from loftr_ros.evaluation.poses import (
    EUROC_COLUMNS,
    nearest_stamps,
    number_in_name,
    pose_from_numbers,
    poses_from_tum,
    read_matrix_poses,
    read_stamped_poses,
    rows_of_images,
)
from loftr_ros.evaluation.sequences import FIRST_STAMP_NS, Sequence, made_up_stamps, rate_of, stamps_in_names
from loftr_ros.evaluation.tum import is_tum, read_tum
from loftr_ros.geometry import transform
from loftr_ros.image_files import image_loader, is_image_file, list_images, read_image, read_raw
from loftr_ros.text_files import (
    numbers,
    read_stamps,
    read_table,
    read_text,
)

logger = logging.getLogger(__name__)

TARTANAIR_BASELINE_M = 0.25
NED_FROM_OPTICAL = np.array([[0, 0, 1, 0], [1, 0, 0, 0], [0, 1, 0, 0], [0, 0, 0, 1]], np.float64)
ROS_FROM_NED = np.diag([1.0, -1.0, -1.0, 1.0])


def _check_pairs(left: list[Path], right: list[Path], name) -> None:
    """Raise InputError unless each left image has a right one; names that share numbers must share them all."""
    if len(left) != len(right):
        raise InputError(f'{name} has {len(left)} left and {len(right)} right images; needs a right one for each left')
    numbers_left, numbers_right = ([re.findall(r'\d+', file.stem)[-1:] for file in side] for side in (left, right))
    if any(number in numbers_right for number in numbers_left):
        for file0, file1, number0, number1 in zip(left, right, numbers_left, numbers_right, strict=True):
            if number0 != number1:
                raise InputError(
                    f'{name} has the right image {file1.name} beside the left image {file0.name}; needs the same '
                    'numbers on both sides: delete the images without a partner'
                )


# --- what save_sequence writes, and plain folders -----------------------------------------------------------------


OWN_SLACK_NS = 1_000_000
"""poses.txt may be written with fewer digits than stamps.txt."""


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
        stamps_ns = read_stamps(path / 'stamps.txt', 'ns')
        if len(stamps_ns) != len(files[0]):
            raise InputError(f'{path} has {len(files[0])} images and {len(stamps_ns)} stamps; write the folder again')
    poses = _own_poses(path, stamps_ns) if (path / 'poses.txt').is_file() else None
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


def _own_poses(path: Path, stamps_ns: np.ndarray) -> np.ndarray:
    """Return a pose for each image: that of its stamp, or of its place in a folder without stamps."""
    truth_ns, poses = poses_from_tum(path / 'poses.txt')
    if not (path / 'stamps.txt').is_file():
        return poses[rows_of_images(list_images(path / 'left'), len(poses), path / 'poses.txt')]
    keep, chosen = nearest_stamps(stamps_ns, truth_ns, OWN_SLACK_NS, path / 'poses.txt', 'pose')
    if len(keep) < len(stamps_ns):
        raise InputError(
            f'{path / "poses.txt"} has a pose for {len(keep)} of {len(stamps_ns)} stamps; needs one for each'
        )
    return poses[chosen]


EPOCH_NAME = re.compile(r'1\d{9}(\.\d+|\d{3}|\d{6}|\d{9})', re.ASCII)
"""A time from 2001 to 2033 in s with decimals, ms, us or ns."""


def is_images(path: Path) -> bool:
    return any(is_image_file(file) for file in path.iterdir())


def read_images(path: Path, rate_hz: float) -> Sequence:
    """Images in natural order; names that are times since 1970 are the stamps."""
    files = list_images(path)
    stamps_ns = made_up_stamps(len(files), rate_hz)
    if all(EPOCH_NAME.fullmatch(file.stem) for file in files):
        files, stamps_ns = stamps_in_names(files, 's')
        rate_hz = rate_of(stamps_ns, rate_hz)
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
        times_ns = read_stamps(path / 'times.txt', 's')
        stamps_ns = FIRST_STAMP_NS + times_ns[rows_of_images(files[0], len(times_ns), path / 'times.txt')]
    poses = None
    # As it is downloaded, the poses of sequences/NN are poses/NN.txt beside the folder sequences.
    apart = path.resolve().parent.parent / 'poses' / f'{path.resolve().name}.txt'
    pose_file = next((file for file in (path / 'poses.txt', apart) if file.is_file()), None)
    if pose_file:
        poses = read_matrix_poses(pose_file)
        # The poses are those of camera 0 (P0); the matrices say where the others sit.
        poses = poses[rows_of_images(files[0], len(poses), pose_file)] @ calibrations[0].rig_from_cam
    return _calibrated(path.name, rate_hz, stamps_ns, files, calibrations, poses)


def _kitti_calibration(path: Path, label: str, image_file: Path) -> Calibration:
    """Read the 3x4 projection `label`; without labels the first twelve numbers are P0, the next P1."""
    text = read_text(path)
    labelled = {line.split(':')[0].strip(): line.partition(':')[2] for line in text.split('\n') if ':' in line}
    if labelled and label not in labelled:
        raise InputError(f'{path} holds {", ".join(labelled)}; needs {label}')
    # Numbers of fixed width may follow each other without a space or a new line.
    text = re.sub(r'([eE][-+]\d\d)(?=[-+\d])', r'\1 ', labelled[label] if labelled else text)
    first = 0 if labelled else 12 * int(label[1:])
    try:
        values = numbers(text.replace(',', ' ').split())[first:]
        if len(values) < 12 or len(values) % 12 or (labelled and len(values) > 12):
            raise InputError(f'{len(values)} numbers')
        projection = np.reshape(values[:12], (3, 4))
        height, width = read_image(image_file).shape[:2]
        calibration = rectified_calibration(Camera(projection[:, :3], width, height), np.eye(3), projection)
    except InputError as error:
        raise InputError(f'{path}: {label}: {error}; needs the 12 numbers of a 3x4 projection matrix') from error
    return calibration


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
    poses = None
    pose_file = path / f'pose_lcam_{view}.txt'
    if pose_file.is_file():
        poses = _ned_poses(pose_file)
        poses = poses[rows_of_images(files[0], len(poses), pose_file)]
    depths = path / f'depth_lcam_{view}'
    depth_files = _depth_of(files[0], list_images(depths)) if depths.is_dir() else None
    height, width = read_image(files[0][0]).shape[:2]
    half = width / 2
    camera = Camera([[half, 0, half], [0, half, half], [0, 0, 1]], width, height)  # 90 degrees, all of them
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


def _ned_poses(path: Path) -> np.ndarray:
    """Return (N, 4, 4) poses of the camera in the axes of ROS; rows: tx ty tz qx qy qz qw."""
    needed = 'tx ty tz qx qy qz qw'
    poses = []
    for row in read_table(path, needed).rows:
        try:
            poses.append(pose_from_numbers(row.numbers(needed, (7,))))
        except InputError as error:
            raise error if str(path) in str(error) else row.error(f'{error}; needs {needed}') from error
    return ROS_FROM_NED @ np.stack(poses) @ NED_FROM_OPTICAL


def _depth_of(files: list[Path], depth_files: list[Path]) -> list[Path]:
    """Return the depth image of each image: the one with its number."""
    by_number = {number_in_name(file): file for file in depth_files}
    missing = [file.name for file in files if number_in_name(file) not in by_number]
    if missing or None in by_number:
        raise InputError(
            f'{depth_files[0].parent} lacks the depth of {len(missing)} of {len(files)} images ({missing[:3]}); '
            'needs a file with the number of each'
        )
    return [by_number[number_in_name(file)] for file in files]


def _float_depth(path: Path) -> np.ndarray:
    """The four 8-bit channels of a pixel are the bytes of one float32 [m]."""
    channels = read_raw(path, np.uint8, 4, 'depth of TartanAir V2 (PNG with four 8-bit channels)')
    return np.ascontiguousarray(channels).view('<f4')[..., 0].astype(np.float32)


# --- EuRoC --------------------------------------------------------------------------------------------------------


EUROC_SLACK_NS = 5_000_000


def is_euroc(path: Path) -> bool:
    return any((path / sub / 'cam0' / 'sensor.yaml').is_file() for sub in ('.', 'mav0'))


def read_euroc(path: Path, rate_hz: float) -> Sequence:
    """Images as the camera took them, distorted; names are stamps [ns]."""
    root = path if (path / 'cam0').is_dir() else path / 'mav0'
    folders = [root / name for name in ('cam0', 'cam1') if (root / name / 'sensor.yaml').is_file()]
    files = [list_images(f / 'data' if (f / 'data').is_dir() else f) for f in folders]
    named = [stamps_in_names(side, 'ns') for side in files]
    files, stamps_ns = [side for side, _ in named], named[0][1]
    if len(files) == 2:  # a camera may have dropped a frame
        _, index0, index1 = np.intersect1d(stamps_ns, named[1][1], return_indices=True)
        files, stamps_ns = [[files[0][i] for i in index0], [files[1][i] for i in index1]], stamps_ns[index0]
        if not len(stamps_ns):
            raise InputError(f'{root} has no stamp of cam0 that is one of cam1 too; needs images of the same names')
        left_out = sum(len(side) for side, _ in named) - 2 * len(stamps_ns)
        if left_out:
            logger.warning('%s: %d images are left out, the other camera has none of their stamp', path, left_out)
    calibrations = [read_calibration(f / 'sensor.yaml') for f in folders]
    truth = root / 'state_groundtruth_estimate0' / 'data.csv'
    poses = None
    if truth.is_file():
        if calibrations[0].rig_from_cam is None:
            raise InputError(f'{folders[0] / "sensor.yaml"} has no T_BS, the pose of the camera in the body; add it')
        truth_ns, body_poses = read_stamped_poses(truth, EUROC_COLUMNS, 'ns')
        keep, nearest = nearest_stamps(stamps_ns, truth_ns, EUROC_SLACK_NS, truth, 'pose')
        poses = body_poses[nearest] @ calibrations[0].rig_from_cam
        stamps_ns, files = stamps_ns[keep], [[side[i] for i in keep] for side in files]
    return _calibrated(path.name, rate_hz, stamps_ns, files, calibrations, poses)


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
