"""Play a sequence as a camera driver does, run the node on it over DDS, and compare its poses with the ground truth.

Without --source it renders a robot that drives a loop through a furnished room; the node matches its stereo pairs and
computes its odometry, once with the stereo pair and once with an RGB-D camera. Driver, node and recorder are three
processes. The exit status is 1 if the errors exceed the bounds, which are then printed.
"""

from __future__ import annotations

import csv
import dataclasses
from pathlib import Path

import numpy as np

from loftr_ros.commands.output import progress_bar
from loftr_ros.output_files import write_image, writing

ODOMETRY = 'odometry_'
RUNS = ('stereo', 'temporal', *(f'{ODOMETRY}{rig}' for rig in ('mono', 'stereo', 'rgbd')))
"""What the node can do: match left with right, match keyframe with newest frame, or the odometry of a rig."""

LOOP_FRAMES, LOOP_STEP_M = 52, 0.28
"""A whole loop with as few frames as the time of a demo allows."""


@dataclasses.dataclass(frozen=True)
class Bounds:
    """Bounds that a run must satisfy.

    Args:
        rotation_deg, translation_deg: largest median errors of the pairs.
        pose_share: least share of pairs with a pose.
        ate_percent: largest error of the trajectory (ATE), as a share of the path.
    """

    rotation_deg: float = 0.3
    translation_deg: float = 3.0
    pose_share: float = 0.9
    min_pairs: int = 5
    ate_percent: float = 1.0

    def violations(self, row: dict) -> list[str]:
        """Return a text for each bound that `row` does not satisfy."""
        checks = (
            (row['pairs'] < self.min_pairs, f'{row["pairs"]} pairs, needed {self.min_pairs}'),
            (row['poses'] < self.pose_share * row['pairs'], f'{row["poses"]} poses of {row["pairs"]} pairs'),
            (not row['rotation_deg'] <= self.rotation_deg, f'rotation error {row["rotation_deg"]:.3f} deg'),
            (not row['translation_deg'] <= self.translation_deg, f'direction error {row["translation_deg"]:.2f} deg'),
            (row['ate_percent'] > self.ate_percent, f'trajectory error {row["ate_percent"]:.2f} % of the path'),
            (row['paired'] != row['processed'] + row['superseded'] + row['dropped'], 'frames are not accounted for'),
        )
        return [f'{row["pairing"]}: {text}' for failed, text in checks if failed]


def add_arguments(parser) -> None:
    bounds = Bounds()
    parser.add_argument('--output', type=Path, default=Path('demo'), help='folder for picture, plot and table')
    parser.add_argument('--source', type=Path, help='sequence with ground truth, instead of the rendered drive')
    parser.add_argument(
        '--pairing',
        nargs='+',
        choices=RUNS,
        help='what the node does, once for each; default: stereo and odometry of all rigs of the sequence but mono, or '
        'temporal with one camera',
    )
    parser.add_argument('--frames', type=int, default=LOOP_FRAMES, help='length of the rendered drive')
    parser.add_argument('--seed', type=int, default=0, help='seed of the rendered drive')
    parser.add_argument('--rate', type=float, default=3.0, help='images a second')
    parser.add_argument('--config', type=Path, nargs='+', default=[], help='parameter files after the shipped one')
    parser.add_argument(
        '--max-rotation-deg', type=float, default=bounds.rotation_deg, help='bound of the median (%(default)s)'
    )
    parser.add_argument(
        '--max-translation-deg', type=float, default=bounds.translation_deg, help='bound of the median (%(default)s)'
    )


def run(options) -> int:
    # First, because importing ROS from PyPI wheels restarts the interpreter once.
    from loftr_ros.ros import live_run

    options.output.mkdir(parents=True, exist_ok=True)
    sequence, source = _sequence(options)
    rows, violations = [], []
    bounds = Bounds(options.max_rotation_deg, options.max_translation_deg)
    for name in options.pairing or _default_runs(sequence):
        rig = name.removeprefix(ODOMETRY) if name.startswith(ODOMETRY) else ''
        pairing, parameters = name, {}
        if rig:
            pairing = 'odometry'
            parameters = {'odometry.base_from_camera': 'forward', 'input.process_every_frame': 'true'}
        with progress_bar(f'node, {name}', len(sequence)) as advance:
            recording = live_run.run(
                source, options.config, pairing, options.rate, options.output, parameters, rig, progress=advance
            )
        evaluation = evaluate(recording, sequence, name)
        rows.append(evaluation.row)
        violations += bounds.violations(evaluation.row)
        _write_pictures(options.output, sequence, recording, evaluation)
    _write_table(options.output / 'table.csv', rows)
    _print_table(rows)
    print(f'wrote {options.output}/')
    for text in violations:
        print(f'OUT OF BOUNDS {text} (bounds: {bounds})')
    return int(bool(violations))


def _default_runs(sequence) -> list[str]:
    rigs = [rig for rig in sequence.rigs() if rig != 'mono']
    return [*(['stereo'] if sequence.is_stereo else ['temporal']), *(f'{ODOMETRY}{rig}' for rig in rigs)]


def _sequence(options):
    """Return the sequence and the folder from which the driver plays it."""
    from loftr_ros.datasets import open_sequence, rendered_drive, save_sequence

    if options.source:
        return open_sequence(options.source), options.source
    folder = options.output / 'sequence'
    with progress_bar('render', options.frames) as advance:
        save_sequence(rendered_drive(options.seed, options.frames, step_m=LOOP_STEP_M), folder, progress=advance)
    return open_sequence(folder), folder


@dataclasses.dataclass
class Evaluation:
    """A recording compared with the truth.

    Args:
        row: the row of the table.
        pairs: (index0, index1, estimated pose, true (4, 4) cam1_from_cam0) for every pose.
        trajectory: estimated and true (N, 4, 4) world_from_cam, aligned; None without one.
    """

    row: dict
    pairs: list
    trajectory: tuple[np.ndarray, np.ndarray] | None = None


def evaluate(recording, sequence, pairing: str) -> Evaluation:
    """Compare a Recording with the poses of its sequence."""
    from loftr_ros.evaluation.metrics import direction_error_deg, rotation_error_deg
    from loftr_ros.evaluation.trajectory import path_lengths
    from loftr_ros.messages import stamp_ns
    from loftr_ros.ros.conversions import relative_pose_from_msg

    rotation_deg, translation_deg, pairs = [], [], []
    for message in recording.poses:
        index0, index1 = (recording.stamps_ns[stamp_ns(h)] for h in (message.header0, message.header))
        if message.status >= message.STATUS_TOO_FEW_MATCHES:
            continue
        pose = relative_pose_from_msg(message)
        truth = true_pose(sequence, pairing, index0, index1)
        pairs.append((index0, index1, pose, truth))
        rotation_deg.append(rotation_error_deg(pose.cam1_from_cam0[:3, :3], truth[:3, :3]))
        if message.status < message.STATUS_PURE_ROTATION:
            translation_deg.append(direction_error_deg(pose.cam1_from_cam0[:3, 3], truth[:3, 3]))
    ages_ms = [1e3 * message.age_s for message, _ in recording.matches]
    numbers = np.array([[len(m.confidence), int(np.sum(m.inliers))] for m, _ in recording.matches]).reshape(-1, 2)
    row = {
        'pairing': pairing,
        'published': len(recording.stamps_ns),
        **{key: recording.count(key) for key in ('paired', 'processed', 'superseded', 'dropped')},
        'pairs': len(recording.matches),
        'poses': len(pairs),
        'matches': _percentile(numbers[:, 0], 50),
        'inliers': _percentile(numbers[:, 1], 50),
        'rotation_deg': _percentile(rotation_deg, 50),
        'rotation_deg_p95': _percentile(rotation_deg, 95),
        'translation_deg': _percentile(translation_deg, 50),
        'translation_deg_p95': _percentile(translation_deg, 95),
        'latency_ms_p50': _percentile(ages_ms, 50),
        'latency_ms_p95': _percentile(ages_ms, 95),
        'path_m': float('nan'),
        'ate_m': float('nan'),
        'ate_percent': float('nan'),
    }
    if pairing.startswith(ODOMETRY):
        errors, truth = _trajectory(recording, sequence, with_scale=pairing.endswith('mono'))
        row['path_m'] = float(path_lengths(truth)[-1])
        row['ate_m'], row['ate_percent'] = errors.ate_m, 100 * errors.ate_m / row['path_m']
        return Evaluation(row, pairs, (errors.aligned, truth))
    if pairing == 'temporal' and pairs:
        return Evaluation(row, pairs, chain(sequence, pairs))
    return Evaluation(row, pairs)


def _trajectory(recording, sequence, *, with_scale: bool):
    """Return the errors of the odometry, and the true (N, 4, 4) poses of its messages that have one."""
    from loftr_ros.evaluation.trajectory import absolute_errors
    from loftr_ros.messages import stamp_ns
    from loftr_ros.odometry.base_frame import BASE_FROM_FORWARD_CAMERA
    from loftr_ros.ros.odometry_messages import pose_from_msg

    poses, indices = [], []
    for message in recording.odometry:
        pose = pose_from_msg(message)
        if pose is not None:
            poses.append(BASE_FROM_FORWARD_CAMERA.T @ pose @ BASE_FROM_FORWARD_CAMERA)
            indices.append(recording.stamps_ns[stamp_ns(message.header)])
    truth = sequence.world_from_cam0[indices]
    return absolute_errors(np.array(poses).reshape(-1, 4, 4), truth, with_scale=with_scale), truth


def _percentile(values, share: float) -> float:
    return float(np.percentile(values, share)) if len(values) else float('nan')


def true_pose(sequence, pairing: str, index0: int, index1: int) -> np.ndarray:
    """Return the (4, 4) cam1_from_cam0 of a pair of frames."""
    if pairing == 'stereo':
        return sequence.cam1_from_cam0
    return np.linalg.inv(sequence.world_from_cam0[index1]) @ sequence.world_from_cam0[index0]


def _write_pictures(folder: Path, sequence, recording, evaluation: Evaluation) -> None:
    from loftr_ros.evaluation.plots import draw_matches, trajectory_plot
    from loftr_ros.messages import stamp_ns
    from loftr_ros.ros.conversions import matches_from_msg

    pairing = evaluation.row['pairing']
    if recording.matches:
        message, _ = recording.matches[len(recording.matches) // 2]
        index0, index1 = (recording.stamps_ns[stamp_ns(h)] for h in (message.header0, message.header))
        second = sequence.frames(index1)[1 if pairing == 'stereo' else 0]
        inliers = np.asarray(message.inliers, dtype=bool)
        title = f'{message.matcher}, {pairing}: frame {index0}, frame {index1}'
        picture = draw_matches(
            sequence.frames(index0)[0].image, second.image, matches_from_msg(message), inliers, title=title
        )
        write_image(folder / f'matches_{pairing}.png', picture)
    if evaluation.trajectory is not None:
        name = pairing.replace('temporal', 'trajectory').replace(ODOMETRY, 'trajectory_')
        trajectory_plot(*evaluation.trajectory, folder / f'{name}.png', title='' if name == 'trajectory' else pairing)


def chain(sequence, pairs) -> tuple[np.ndarray, np.ndarray]:
    """Return estimated and true (N, 4, 4) world_from_cam of the frames that are connected by relative poses.

    One camera does not measure the length of a translation, so it is taken from the ground truth; rotation and
    direction are estimated.
    """
    first = pairs[0][0]
    world_from_cam = {first: sequence.world_from_cam0[first]}
    for index0, index1, pose, truth in pairs:
        cam1_from_cam0 = pose.cam1_from_cam0.copy()
        cam1_from_cam0[:3, 3] *= np.linalg.norm(truth[:3, 3]) if pose.has_translation else 0.0
        # A keyframe without a pose (the pair before it failed) starts at its true pose.
        start = world_from_cam.setdefault(index0, sequence.world_from_cam0[index0])
        world_from_cam[index1] = start @ np.linalg.inv(cam1_from_cam0)
    indices = sorted(world_from_cam)
    return np.stack([world_from_cam[i] for i in indices]), sequence.world_from_cam0[indices]


def _write_table(path: Path, rows: list[dict]) -> None:
    with writing(path) as unfinished, unfinished.open('w', newline='') as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows({k: f'{v:.4g}' if isinstance(v, float) else v for k, v in row.items()} for row in rows)


def _print_table(rows: list[dict]) -> None:
    for key in rows[0]:
        cells = [f'{row[key]:.3g}' if isinstance(row[key], float) else str(row[key]) for row in rows]
        print(f'{key:<20}' + ''.join(f'{cell:>17}' for cell in cells))
