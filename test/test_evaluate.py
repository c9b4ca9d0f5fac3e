"""`loftr_ros evaluate`: pairs of a sequence, their scores, and what the command prints and writes."""

import csv
import dataclasses
import os

import cv2
import numpy as np
import pytest
from tiny_networks import save_tiny

from loftr_ros import cli
from loftr_ros.config import Config, MatcherConfig
from loftr_ros.datasets import rendered_drive, save_sequence
from loftr_ros.datatypes import Matches
from loftr_ros.errors import InputError
from loftr_ros.evaluation import results
from loftr_ros.evaluation.compared import create_compared
from loftr_ros.evaluation.relative_pose import pairs, score_pair, summarise
from loftr_ros.geometry import project
from loftr_ros.matchers import match_images


@pytest.fixture(scope='module')
def drive():
    return rendered_drive(seed=1, num_frames=5, size=(320, 240))


def true_matches(truth, camera, count=200) -> Matches:
    """Return matches of random points before both cameras, without any error."""
    rng = np.random.default_rng(0)
    rays = np.c_[rng.uniform(-0.5, 0.5, (count, 2)), np.ones(count)]
    points0 = rays * rng.uniform(2, 6, (count, 1))
    points1 = points0 @ truth[:3, :3].T + truth[:3, 3]
    keypoints = [project(camera, points) for points in (points0, points1)]
    return Matches(*keypoints, np.ones(count), np.full(count, np.nan), np.arange(count))


def test_every_step_th_frame_is_paired_with_the_next(drive):
    assert [name for name, *_ in pairs(drive, 1)] == ['0-1', '1-2', '2-3', '3-4']
    assert [name for name, *_ in pairs(drive, 2)] == ['0-2', '2-4']
    name, left, right, truth = next(pairs(drive, 0))
    assert (name, left.frame_id, right.frame_id) == ('0', drive.frame_id0, drive.frame_id1)
    np.testing.assert_array_equal(truth, drive.cam1_from_cam0)


def test_true_matches_score_full_marks_and_none_a_failure(drive):
    _, frame0, frame1, truth = next(pairs(drive, 2))
    matches = true_matches(truth, frame0.camera)
    good = score_pair(matches, frame0.camera, frame1.camera, truth, Config().pose)
    assert max(good[:3]) < 0.01
    assert good[3:] == (200, 200, 200)
    failed = score_pair(Matches.empty(), frame0.camera, frame1.camera, truth, Config().pose)
    assert failed[:3] == (np.inf, np.inf, np.inf) and failed[3:] == (0, 0, 0)
    both = summarise([good, failed])
    assert both.num_failures == 1
    np.testing.assert_allclose(both.auc, 0.5, atol=0.01)
    assert both.num_matches == 100


def test_missing_ground_truth_or_frames_give_an_error_with_the_need(drive):
    with pytest.raises(InputError, match='has no true poses or no calibration; evaluation needs both'):
        next(pairs(dataclasses.replace(drive, world_from_cam0=None), 1))
    with pytest.raises(InputError, match='has no extrinsics'):
        next(pairs(dataclasses.replace(drive, cam1_from_cam0=None), 0))
    with pytest.raises(InputError, match='has 5 frames, needs more than 5'):
        next(pairs(drive, 5))


def test_the_command_compares_matchers_on_the_same_pairs(drive, tmp_path, capsys):
    save_sequence(drive, tmp_path / 'drive')
    arguments = ['evaluate', str(tmp_path / 'drive'), '--matchers', 'gcm', 'sift', '--max-pairs', '2']
    assert cli.main([*arguments, '-o', str(tmp_path / 'out')]) == 0
    printed = capsys.readouterr().out
    assert '2 pairs' in printed
    assert [line.split()[0] for line in printed.splitlines()[1:4]] == ['matcher', 'gcm', 'sift']
    for name in ('gcm', 'sift'):
        with (tmp_path / 'out' / name / 'pairs.csv').open() as file:
            rows = list(csv.DictReader(file))
        assert [row['pair'] for row in rows] == ['0 1', '1 2']
        assert all(float(row['rotation_deg']) < 0.5 for row in rows)


@pytest.mark.parametrize('name', ['orb', 'sift'])
def test_a_keypoint_keeps_its_position_when_the_picture_is_turned(name, drive):
    image = drive.frames(0)[0].image[:-3, :-7]  # no size of a level is a whole number
    matcher = create_compared(name, Config().matcher)
    matches = matcher.match(matcher.extract(image), matcher.extract(np.ascontiguousarray(image[::-1, ::-1])))
    turned_back = np.array(image.shape[1::-1]) - 1 - matches.keypoints1
    assert len(matches) > 50
    # OpenCV's own positions: 0.4 px for ORB, 0.7 px for SIFT.
    assert np.median(np.linalg.norm(turned_back - matches.keypoints0, axis=1)) < 0.05


def test_weights_are_named_after_the_matcher(tmp_path):
    path = save_tiny('loftr', tmp_path)
    assert create_compared(f'loftr:{path}', Config().matcher).name == 'loftr:tiny_loftr'
    assert create_compared('orb', Config().matcher).name == 'orb'


@pytest.mark.parametrize('name', ['orb', 'sift'])
@pytest.mark.parametrize('subpixel', ['lucas_kanade', 'none'])
def test_only_lk_after_a_baseline_refines_its_matches_not_the_setting(name, subpixel):
    rng = np.random.default_rng(0)
    texture = cv2.GaussianBlur(rng.standard_normal((500, 600)).astype(np.float32), (0, 0), 2)
    texture = np.clip(128 + 50 * texture / texture.std(), 0, 255)
    shift = np.array([12, -7]) / 32  # OpenCV warps in steps of 1/32 px
    moved = cv2.warpAffine(texture, np.c_[np.eye(2), shift], (600, 500), flags=cv2.INTER_LANCZOS4)
    pair = [image[20:-20, 20:-20].round().clip(0, 255).astype(np.uint8) for image in (texture, moved)]
    config = MatcherConfig(subpixel=subpixel)
    plain, refined = (match_images(create_compared(name + ending, config), *pair) for ending in ('', '+lk'))
    np.testing.assert_array_equal(refined.keypoints0, plain.keypoints0)
    error, refined_error = (
        np.median(np.linalg.norm(m.keypoints1 - m.keypoints0 - shift, axis=1)) for m in (plain, refined)
    )
    assert refined_error < 0.02 and refined_error < 0.7 * error and refined.log10_dependence == 0
    assert np.isnan(plain.sigma_px).all() and np.isfinite(refined.sigma_px).mean() > 0.5


@pytest.mark.parametrize(
    'arguments, words',
    [(['--matchers', 'sitf'], 'known are'), (['--step', '-1'], 'must be 0 or more'), (['--step', '9'], 'smaller step')],
)
def test_the_command_refuses_with_a_remedy(arguments, words, drive, tmp_path, capsys):
    save_sequence(drive, tmp_path / 'drive')
    assert cli.main(['evaluate', str(tmp_path / 'drive'), '--matchers', 'sift', *arguments]) == 1
    assert words in capsys.readouterr().err


def test_runs_are_kept_and_latest_leads_to_the_newest(drive, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(results, 'commit', lambda: 'abc')
    save_sequence(drive, tmp_path / 'drive')
    runs = tmp_path / 'runs'

    def evaluate(*arguments) -> list[str]:
        """Return the names of the folders."""
        cli.main(
            ['evaluate', str(tmp_path / 'drive'), '--max-pairs', '1', '--runs', str(runs), '--matchers', *arguments]
        )
        return sorted(path.name for path in runs.iterdir() if not path.is_symlink()) if runs.exists() else []

    assert evaluate('orb', '--step', '99') == [] and not runs.exists()  # refused: nothing to look at
    [first] = evaluate('orb')
    assert os.readlink(runs / 'latest') == first
    [_, second] = evaluate('orb')
    assert os.readlink(runs / 'latest') == second and (runs / 'latest' / 'orb' / 'report.html').is_file()
    capsys.readouterr()
    assert evaluate('orb', 'sift', '--resume') == [first, second]
    assert f'orb: taken from {runs / second / "orb"}' in capsys.readouterr().out
    assert {path.name for path in (runs / 'latest').iterdir()} == {'orb', 'sift'}
    (runs / 'latest').unlink()
    (runs / 'latest').mkdir()
    evaluate('orb')
    assert 'latest a link: Is a directory; remove it' in capsys.readouterr().err
