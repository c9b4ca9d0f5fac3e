"""The comparison of saved runs, with known answers."""

import json
from pathlib import Path

import numpy as np
import pytest

from loftr_ros.cli import main
from loftr_ros.datasets.poses import poses_to_tum
from loftr_ros.evaluation.comparison import BLOCK, compare, paired_p_value, read_run
from loftr_ros.geometry import transform

FRAMES = 101


def truth():
    return np.array([transform(np.eye(3), (0.1 * i, 0, 0)) for i in range(FRAMES)])


def save(folder: Path, error_m: float, seed: int = 0, true_poses=None, missing=()) -> Path:
    """Write a run whose positions have independent normal errors."""
    folder.mkdir(parents=True)
    stamps = np.arange(1, FRAMES + 1) * 100_000_000
    poses = truth()
    poses[:, :3, 3] += error_m * np.random.default_rng(seed).standard_normal((FRAMES, 3))
    kept = np.setdiff1d(np.arange(FRAMES), missing)
    poses_to_tum(folder / 'trajectory.tum', stamps[kept], poses[kept])
    if true_poses is not None:
        poses_to_tum(folder / 'truth.tum', stamps[kept], true_poses[kept])
    summary = {'frames': FRAMES, 'frames_with_pose': len(kept), 'segments': 1, 'keyframes': 3, 'ate_m': error_m}
    (folder / 'summary.json').write_text(json.dumps(summary))
    (folder / 'run.json').write_text(json.dumps({'times': {'match_ms_p50': 50.0}}))
    return folder


def test_a_run_with_three_times_the_error_is_significantly_worse(tmp_path):
    better = read_run(save(tmp_path / 'better', 0.01, 1, truth()))
    worse = read_run(save(tmp_path / 'worse', 0.03, 2, truth()))
    found = compare(better, worse)
    assert found.count == FRAMES - 1
    assert found.median_ratio == pytest.approx(3, rel=0.4)  # medians of 100
    assert found.p_value < 0.001
    assert compare(worse, better).p_value == found.p_value


def test_equally_good_runs_are_rarely_different(tmp_path):
    runs = [read_run(save(tmp_path / str(seed), 0.01, seed, truth())) for seed in range(60)]
    values = [compare(a, b).p_value for a, b in zip(runs[::2], runs[1::2], strict=True)]
    assert np.mean(np.array(values) < 0.05) <= 0.15  # 30 pairs: 0.05 on average
    assert 0.3 < np.mean(values) < 0.7  # p-values are uniform


def test_a_run_does_not_differ_from_itself(tmp_path):
    run = read_run(save(tmp_path / 'a', 0.01, 1, truth()))
    found = compare(run, run)
    assert (found.median_ratio, found.p_value) == (1.0, 1.0)


def test_only_motions_that_both_runs_have_are_compared(tmp_path):
    one = read_run(save(tmp_path / 'a', 0.01, 1, truth(), missing=[10]))
    two = read_run(save(tmp_path / 'b', 0.01, 2, truth(), missing=[50, 51]))
    # Of 100 motions, two lead to or from frame 10, and three to or from frames 50 and 51.
    assert compare(one, two).count == 100 - 2 - 3
    empty = read_run(save(tmp_path / 'c', 0.01, 2, truth(), missing=range(1, FRAMES)))
    assert compare(one, empty) is None


@pytest.mark.parametrize(('signs', 'expected'), [((1, 1, 1), 2 / 8), ((1, 1, -1), 8 / 8)])
def test_three_equal_blocks_have_the_p_value_of_all_swaps(signs, expected):
    assert paired_p_value(np.repeat(np.array(signs, float), BLOCK)) == expected


def test_the_command_prints_a_table_and_refuses_what_cannot_be_compared(tmp_path, capsys):
    save(tmp_path / 'runs' / 'a', 0.01, 1, truth())
    save(tmp_path / 'runs' / 'b', 0.03, 2, truth())
    without_truth = save(tmp_path / 'without', 0.01)
    assert main(['compare', str(tmp_path / 'runs'), str(without_truth)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines[:4]] == ['run', 'a', 'b', 'without']
    assert float(lines[2].split()[-1]) < 0.001 and lines[3].split()[-2:] == ['-', '-']

    shifted = truth()
    shifted[:, 1, 3] += np.linspace(0, 1, FRAMES)
    other = save(tmp_path / 'other', 0.01, 1, shifted)
    for runs, words in (
        ([tmp_path / 'runs', other], 'different true poses'),
        ([without_truth], 'at least 2 needed'),
        ([tmp_path / 'nothing', without_truth], 'is not the result of a run'),
    ):
        assert main(['compare', *map(str, runs)]) == 1
        assert words in capsys.readouterr().err


def save_pairs(folder: Path, errors_deg) -> Path:
    """Write a run over pairs with these errors."""
    folder.mkdir(parents=True)
    rows = ''.join(f'{number},{error},nan\n' for number, error in enumerate(errors_deg))
    (folder / 'pairs.csv').write_text(f'pair,pose_deg,corner_px\n{rows}')
    summary = {'pairs': len(errors_deg), 'pairs_with_pose': len(errors_deg), 'pose_auc_5_10_20_deg': [0.5, 0.6, 0.7]}
    (folder / 'summary.json').write_text(json.dumps(summary))
    (folder / 'run.json').write_text(json.dumps({'times': {'match_ms_p50': 50.0, 'pose_ms_p50': 9.0}}))
    return folder


def test_runs_over_pairs_are_compared_pair_by_pair(tmp_path, capsys):
    errors = np.random.default_rng(0).uniform(1, 3, 40)
    save_pairs(tmp_path / 'runs' / 'a', errors)
    save_pairs(tmp_path / 'runs' / 'b', 1.5 * errors)
    save_pairs(tmp_path / 'runs' / 'c', np.where(np.arange(40) == 7, np.inf, errors))  # one failure
    assert main(['compare', str(tmp_path / 'runs')]) == 0
    printed = capsys.readouterr().out
    lines = {line.split()[0]: line.split() for line in printed.splitlines()}
    assert lines['b'][1:] == ['40/40', '0.500/0.600/0.700', '50', '9', '1.50', '0.000']
    assert float(lines['c'][-1]) == 1.0  # swapping the only pair that differs changes nothing
    save(tmp_path / 'odometry', 0.01, 1, truth())
    assert main(['compare', str(tmp_path / 'runs' / 'a'), str(tmp_path / 'odometry')]) == 1
    assert 'one is a run over pairs and one of odometry' in capsys.readouterr().err
