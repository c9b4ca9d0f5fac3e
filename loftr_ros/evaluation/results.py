"""The folder of an evaluation: configuration, circumstances, one row for each frame, trajectories and summary."""

from __future__ import annotations

import csv
import datetime
import itertools
import json
import os
import platform
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path

import numpy as np

from loftr_ros.config import Config
from loftr_ros.datasets.poses import poses_to_tum
from loftr_ros.datatypes import Scale
from loftr_ros.errors import LoftrRosError, OutputError
from loftr_ros.evaluation.odometry_run import OdometryRun, OdometryScore, Row
from loftr_ros.evaluation.pair_run import MMA_PX, PairRow, PairRun
from loftr_ros.output_files import write_link, writing
from loftr_ros.parameter_files import to_yaml
from loftr_ros.weights import locate

REPORT = 'report.html'
"""It is written last: with it the results of a run are complete."""


LATEST = 'latest'
"""Link to the newest of the runs in a folder."""


def new_run(parent: Path) -> Path:
    """Return a folder in `parent` that does not exist yet, named after the time."""
    name = datetime.datetime.now().strftime('%Y-%m-%d_%H-%M-%S')
    names = itertools.chain([name], (f'{name}_{number}' for number in itertools.count(2)))
    return next(parent / name for name in names if not (parent / name).exists())


def link_latest(folder: Path) -> None:
    """Make LATEST beside the folder a link to it.

    Raises:
        OutputError: it cannot be made.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(f'cannot make {folder}: {error.strerror}; choose another folder') from error
    write_link(folder.with_name(LATEST), folder.name)


def summarise(run: OdometryRun, score: OdometryScore | None) -> dict:
    """Return the figures of a run, and of its comparison with the truth where there is one.

    Times are not in it, so that the same input gives the same summary.
    """
    statuses = [row.status for row in run.rows]
    summary = {
        'matcher': run.matcher,
        'scale': run.scale.name,
        'frames': len(run.rows),
        'frames_with_pose': int(run.has_pose.sum()),
        'frames_dropped': len(run.dropped),
        'segments': 1 + max((row.segment for row in run.rows), default=0),
        'keyframes': sum(row.is_keyframe for row in run.rows),
        'statuses': {status: statuses.count(status) for status in sorted(set(statuses))},
        'matches_median': _median(row.matches for row in run.rows[1:]),
        'inliers_median': _median(row.inliers for row in run.rows[1:]),
        'tracks_median': _median(row.tracks for row in run.rows[1:]),
    }
    if score is None:
        return summary
    return summary | {
        'frames_with_pose_and_truth': len(score.rows),
        'path_m': score.path_m,
        'alignment': 'Sim3' if run.scale is Scale.UP_TO_SCALE else 'SE3',
        'alignment_scale': score.errors.alignment.scale,
        'ate_m': score.errors.ate_m,
        'ate_percent_of_path': score.ate_percent,
        'position_error_max_m': float(score.errors.position_m.max()),
        'rotation_error_median_deg': float(np.median(score.errors.rotation_deg)),
        'drift_translation_percent': score.drift.translation_percent,
        'drift_rotation_deg_per_m': score.drift.rotation_deg_per_m,
        'drift_lengths_m': score.drift.lengths_m,
        'drift_is_kitti': score.drift.is_kitti,
        'nees_mean': float(score.nees.mean()) if len(score.nees) else None,
        'nees_median': float(np.median(score.nees)) if len(score.nees) else None,
    }


def _median(values: Iterable[int]) -> float:
    values = list(values)
    return float(np.median(values)) if values else 0.0


def times(run: OdometryRun) -> dict[str, float]:
    """Return percentiles of the times of a frame [ms]."""
    return {
        f'{name}_ms_p{share}': float(np.percentile(1e3 * values, share)) if len(values) else float('nan')
        for name, values in (('match', run.match_s[1:]), ('other', run.compute_s[1:]))
        for share in (50, 95)
    }


def circumstances(selection: dict, worker: dict, times_ms: dict, dropped: list[str], faults: list[str]) -> dict:
    """Return what is needed to judge and to repeat a run.

    Args:
        selection: what was evaluated: the source, and the arguments that select a part of it.
        worker: as of circumstances_of_worker.
        dropped: what was left out, with the reasons.
        faults: of the source.
    """
    return {
        'selection': selection,
        'command': sys.argv,
        'date': datetime.datetime.now().astimezone().isoformat(timespec='seconds'),
        **worker,
        'times': times_ms,
        'dropped': dropped,
        'faults_of_the_source': faults,
    }


def circumstances_of_worker(matcher: str) -> dict:
    """Return code, machine, versions and weights of this process, which ran the matcher of that name."""
    import cv2
    import torch

    return {
        'commit': commit(),
        'machine': f'{processor()}, {os.cpu_count()} cores',
        'gpu': torch.cuda.get_device_name() if torch.cuda.is_available() else None,
        'versions': {
            'python': platform.python_version(),
            'torch': torch.__version__,
            'numpy': np.__version__,
            'opencv': cv2.__version__,
        },
        'weights_sha256': _weights_hash(matcher),
    }


def read_done(folder: Path, config: Config, selection: dict) -> tuple[dict, dict] | None:
    """Return summary and circumstances of a complete run of the same selection, settings and commit; otherwise None."""
    try:
        summary, about = (json.loads((folder / name).read_text()) for name in ('summary.json', 'run.json'))
        settings = (folder / 'config.yaml').read_text()
    except (OSError, ValueError):
        return None
    now = commit()
    is_same_code = about.get('commit') == now and not (now or '').endswith('+')
    is_same = is_same_code and about.get('selection') == selection and settings == to_yaml(config)
    return (summary, about) if is_same and (folder / REPORT).is_file() else None


def commit() -> str | None:
    """Return the commit of the package, with `+` if files differ from it; None outside a checkout."""
    try:
        command = ['git', '-C', str(Path(__file__).parent), 'describe', '--always', '--dirty=+', '--exclude=*']
        ended = subprocess.run(command, capture_output=True, text=True, timeout=10)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return ended.stdout.strip() or None


def processor() -> str:
    """Return the name of the processor."""
    try:
        lines = Path('/proc/cpuinfo').read_text().splitlines()
    except OSError:
        lines = []
    return next((line.partition(':')[2].strip() for line in lines if line.startswith('model name')), platform.machine())


def _weights_hash(matcher: str) -> str | None:
    _, _, weights = matcher.partition(':')
    try:
        return locate.sha256_of(locate.identify(weights)[1]) if weights else None
    except LoftrRosError:
        return None


def write_results(
    folder: Path, run: OdometryRun, score: OdometryScore | None, config: Config, summary: dict, about: dict
) -> None:
    """Write the files of a run into a folder, except the report.

    frames.csv, trajectories and summary.json are the same for the same input, configuration and machine.

    Args:
        summary, about: as of `summarise` and `circumstances`.
    """
    _write_common(folder, config, summary, about)
    _write_table(folder / 'frames.csv', Row._fields, run.rows)
    rows = zip((row.number for row in run.rows), run.match_s, run.compute_s, strict=True)
    _write_table(folder / 'times.csv', ('number', 'match_s', 'compute_s'), rows)
    known = run.has_pose
    if known.any():
        with writing(folder / 'trajectory.tum') as file:
            poses_to_tum(file, run.stamps_ns[known], run.poses[known])
        _write_kitti(folder / 'trajectory.kitti', run.poses[known])
    if score is not None:
        with writing(folder / 'truth.tum') as file:
            poses_to_tum(file, run.stamps_ns[score.rows], score.truth)


def write_pair_results(folder: Path, run: PairRun, config: Config, summary: dict, about: dict) -> None:
    """Write the files of a run over pairs into a folder, except the report.

    pairs.csv and summary.json are the same for the same input, configuration and machine.
    """
    _write_common(folder, config, summary, about)
    names = [f'accuracy_{px}_px' for px in MMA_PX]
    rows = [(*row[:-1], *row.accuracy) for row in run.rows]
    _write_table(folder / 'pairs.csv', (*PairRow._fields[:-1], *names), rows)
    rows = zip((row.pair for row in run.rows), run.match_s, run.pose_s, strict=True)
    _write_table(folder / 'times.csv', ('pair', 'match_s', 'pose_s'), rows)


def folder_name(matcher: str) -> str:
    """Return the name of the folder with the results of a matcher."""
    return matcher.replace('/', '_').replace(':', '_')


def _write_common(folder: Path, config: Config, summary: dict, about: dict) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / REPORT).unlink(missing_ok=True)
    _write_json(folder / 'summary.json', summary)
    _write_json(folder / 'run.json', about)
    _write_text(folder / 'config.yaml', to_yaml(config))


def _write_json(path: Path, content: dict) -> None:
    _write_text(path, json.dumps(content, indent=2) + '\n')


def _write_text(path: Path, text: str) -> None:
    with writing(path) as file:
        file.write_text(text)


def _write_table(path: Path, header, rows) -> None:
    with writing(path) as unfinished, unfinished.open('w', newline='') as file:
        csv.writer(file).writerows([header, *rows])


def _write_kitti(path: Path, poses: np.ndarray) -> None:
    """Write a row of the first three rows of each pose, as KITTI's odometry benchmark wants it."""
    with writing(path) as file:
        np.savetxt(file, poses[:, :3].reshape(len(poses), 12), fmt='%.9f')
