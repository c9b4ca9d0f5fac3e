"""Evaluation of pairs: lists of other projects, figures whose values are known, and the folder of results."""

import contextlib
import csv
import json
import shutil
import sqlite3

import cv2
import numpy as np
import pytest
from test_evaluate import true_matches

from loftr_ros import cli, geometry
from loftr_ros.camera import Camera
from loftr_ros.config import Config
from loftr_ros.datasets import rendered_drive, save_sequence
from loftr_ros.datasets.pair_lists import is_pair_list, read_pair_list
from loftr_ros.datatypes import Matches
from loftr_ros.errors import InputError
from loftr_ros.evaluation import pair_run, results
from loftr_ros.evaluation.pair_report import examples
from loftr_ros.evaluation.relative_pose import pair_at
from loftr_ros.matchers import Matcher


@pytest.fixture(scope='module')
def drive():
    return rendered_drive(seed=1, num_frames=4, size=(320, 240))


@pytest.fixture
def pictures(drive, tmp_path):
    """A folder with a.png and b.png, two frames of the drive, and their camera and motion."""
    _, frame0, frame1, truth = pair_at(drive, 2, 0)
    for name, frame in (('a', frame0), ('b', frame1)):
        cv2.imwrite(str(tmp_path / f'{name}.png'), frame.image)
    return tmp_path, frame0.camera, truth


def row_of_list(camera, truth, turns=(0, 0), names=('a.png', 'b.png')) -> str:
    return ' '.join(map(str, [*names, *turns, *camera.matrix.ravel(), *camera.matrix.ravel(), *truth.ravel()]))


# --- lists -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize('turns', [(0, 0), (1, 0), (0, 2), (3, 1)])
def test_a_list_of_superglue_gives_images_cameras_and_motion_as_seen_upright(turns, pictures):
    folder, camera, truth = pictures
    (folder / 'pairs.txt').write_text(f'# two paths ...\n\n{row_of_list(camera, truth, turns)}\n')
    pairs = read_pair_list(folder / 'pairs.txt')
    assert (pairs.name, pairs.count, pairs.has_motion) == ('pairs', 1, True)
    pair = pairs.load(0)
    points0 = np.random.default_rng(0).uniform((-1, -0.5, 3), (1, 0.5, 6), (50, 3))
    points1 = points0 @ truth[:3, :3].T + truth[:3, 3]
    seen = []
    for frame, turn, points, name in ((pair.frame0, turns[0], points0, 'a'), (pair.frame1, turns[1], points1, 'b')):
        image = cv2.imread(str(folder / f'{name}.png'), cv2.IMREAD_UNCHANGED)
        np.testing.assert_array_equal(frame.image, np.rot90(image, turn))
        # The turned camera sees a point where the turned image shows it.
        x, y = geometry.project(camera, points).T
        for _ in range(turn):
            x, y, image = y, image.shape[1] - 1 - x, np.rot90(image)
        angle = np.pi / 2 * turn
        turned = np.array([[np.cos(angle), np.sin(angle), 0], [-np.sin(angle), np.cos(angle), 0], [0, 0, 1]])
        np.testing.assert_allclose(geometry.project(frame.camera, points @ turned.T), np.c_[x, y], atol=1e-9)
        seen.append((frame.camera, np.c_[x, y]))
    # Matches of these points have no error under the motion between the turned cameras.
    (camera0, pixels0), (camera1, pixels1) = seen
    errors = geometry.epipolar_error_px(pair.cam1_from_cam0, pixels0, pixels1, camera0, camera1)
    assert errors.max() < 1e-9


def test_paths_of_a_list_may_belong_to_another_folder(pictures, tmp_path_factory):
    folder, camera, truth = pictures
    file = tmp_path_factory.mktemp('lists') / 'pairs.txt'
    file.write_text(row_of_list(camera, truth))
    with pytest.raises(InputError):
        read_pair_list(file).load(0)
    assert read_pair_list(file, folder).load(0).name == 'a.png b.png'


@pytest.mark.parametrize(
    'text, words',
    [
        ('', 'has no pair'),
        ('a.png b.png', 'line 1: needs 38 columns'),
        ('\n' + ' '.join(['x'] * 38), 'line 2: needs 38 columns'),
        (' '.join(['a', 'b', *['0'] * 36]), 'line 1: the motion'),
    ],
)
def test_a_list_that_is_none_is_refused_with_the_place(text, words, tmp_path):
    (tmp_path / 'pairs.txt').write_text(text)
    with pytest.raises(InputError, match=words):
        read_pair_list(tmp_path / 'pairs.txt')


def test_an_index_of_loftr_gives_the_motion_between_its_poses(pictures):
    folder, camera, truth = pictures
    first = geometry.transform(geometry.rotation_from_vector([0.1, 0.2, 0.3]), [1.0, 2, 3])
    info = np.empty(1, object)
    info[0] = ((0, 1), 0.5, None)
    content = {
        'image_paths': np.array(['a.png', 'b.png'], object),
        'intrinsics': np.array([camera.matrix] * 2, object),
        'poses': np.array([first, truth @ first], object),
        'pair_infos': info,
    }
    np.savez(folder / 'scene.npz', **content)
    pair = read_pair_list(folder / 'scene.npz').load(0)
    np.testing.assert_allclose(pair.cam1_from_cam0, truth, atol=1e-12)
    np.testing.assert_array_equal(pair.frame1.camera.matrix, camera.matrix)
    del content['poses']
    np.savez(folder / 'scene.npz', **content)
    with pytest.raises(InputError, match='has no poses'):
        read_pair_list(folder / 'scene.npz')


@pytest.mark.parametrize(
    'image, matrix', [('{}.png', 'H_1_{}'), ('img{}.png', 'H1to{}p')], ids=['HPatches', 'Oxford affine']
)
def test_folders_of_homographies_are_read(image, matrix, drive, tmp_path):
    for scene in ('v_one', 'i_two'):
        (tmp_path / scene).mkdir()
        for number in (1, 2, 3):
            cv2.imwrite(str(tmp_path / scene / image.format(number)), drive.frames(number)[0].image)
            if number > 1:
                np.savetxt(tmp_path / scene / matrix.format(number), np.eye(3) * number)
    assert is_pair_list(tmp_path) and is_pair_list(tmp_path / 'v_one')
    pairs = read_pair_list(tmp_path)
    assert (pairs.count, pairs.has_motion, read_pair_list(tmp_path / 'v_one').count) == (4, False, 2)
    pair = pairs.load(1)
    assert pair.names[1] == 'i_two/' + image.format(3) and pair.frame0.camera is None
    np.testing.assert_array_equal(pair.image1_from_image0, 3 * np.eye(3))
    np.testing.assert_array_equal(pair.frame1.image, drive.frames(3)[0].image)
    (tmp_path / 'v_one' / image.format(3)).unlink()
    with pytest.raises(InputError, match='does not have both'):
        read_pair_list(tmp_path)


def test_folders_of_sequences_are_no_lists(drive, tmp_path):
    save_sequence(drive, tmp_path / 'drive')
    assert not is_pair_list(tmp_path / 'drive')


# --- figures ---------------------------------------------------------------------------------------------------------


def test_epipolar_precision_is_that_of_a_distance_that_is_known():
    """Sideways motion: lines are rows, and a match that is d rows off has the squared distance 2 (d / f)^2."""
    focal = 500.0
    camera = Camera([[focal, 0, 320], [0, focal, 240], [0, 0, 1]], 640, 480)
    limits = focal * np.sqrt(np.array(pair_run.PRECISION) / 2)
    points = np.random.default_rng(0).uniform((50, 50), (590, 430), (4, 2))
    rows = np.array([0.0, 0.99 * limits[0], 1.01 * limits[0], 1.01 * limits[1]])
    matches = Matches(points, points + np.c_[np.full(4, -20.0), rows])
    truth = geometry.transform(np.eye(3), [1.0, 0, 0])
    assert pair_run.epipolar_precision(truth, matches, camera, camera) == (0.5, 0.75)
    assert pair_run.epipolar_precision(truth, Matches.empty(), camera, camera) == (0, 0)


def test_opencv_finds_the_pose_of_true_matches(drive):
    _, frame0, frame1, truth = pair_at(drive, 2, 0)
    cameras = frame0.camera, frame1.camera
    pose = pair_run.pose_of_opencv(true_matches(truth, frame0.camera), *cameras)
    direction = truth[:3, 3] / np.linalg.norm(truth[:3, 3])
    np.testing.assert_allclose(pose, geometry.transform(truth[:3, :3], direction), atol=1e-3)
    assert pair_run.pose_of_opencv(Matches.empty(), *cameras) is None


class Shifted(Matcher):
    """Matches points of image 0 with themselves, moved, with confidences 0.05 and 0.95."""

    name = 'shifted'

    def __init__(self, shifts):
        self.shifts = np.asarray(shifts, float)

    def extract(self, image):
        return image.shape

    def match(self, features0, features1):
        points = np.random.default_rng(0).uniform(20, 200, (len(self.shifts), 2))
        confidence = np.where(np.arange(len(points)) % 2, 0.95, 0.05)
        return Matches(points, points + np.c_[self.shifts, 0 * self.shifts], confidence)


def test_figures_of_homographies_are_those_of_known_errors(drive, tmp_path):
    for number in (1, 2):
        cv2.imwrite(str(tmp_path / f'{number}.png'), drive.frames(0)[0].image)
    np.savetxt(tmp_path / 'H_1_2', np.eye(3))
    pairs = read_pair_list(tmp_path)
    errors = [0.5, 0.5, 1.5, 1.5, 2.5, 9.5, 20, 20, 0.5, 20]  # even places: confidence 0.05
    run = pair_run.run_pairs(pairs, [0], Shifted(errors), Config().pose)
    assert run.rows[0].accuracy == (0.3, 0.5, 0.6, 0.6, 0.6, 0.6, 0.6, 0.6, 0.6, 0.7)
    assert (run.rows[0].matches, run.rows[0].correct) == (10, 6)
    assert run.count_of_confidence.tolist() == [5, *[0] * 8, 5]
    assert run.correct_of_confidence.tolist() == [4, *[0] * 8, 2]
    exact = pair_run.run_pairs(pairs, [0], Shifted(np.zeros(30)), Config().pose)
    assert exact.rows[0].corner_px < 1e-4
    summary = pair_run.summarise(exact)
    np.testing.assert_allclose(summary['homography_auc_3_5_10_px'], 1, atol=1e-3)
    assert summary['mma_1_to_10_px'] == [1.0] * 10 and 'pose_auc_5_10_20_deg' not in summary
    nothing = pair_run.run_pairs(pairs, [0], Shifted([]), Config().pose)
    assert nothing.rows[0].corner_px == np.inf
    assert pair_run.summarise(nothing)['homography_auc_3_5_10_px'] == [0, 0, 0]


def test_the_squared_error_over_the_covariance_counts_standard_deviations():
    class Pose:
        rotation = geometry.rotation_from_vector([0, 0.03, 0])
        covariance = np.diag([1, 1, 1, 1e-4, 1e-4, 1e-4])

    assert pair_run.rotation_nees(Pose, np.eye(4)) == pytest.approx(3**2 / 3)


# --- the command -----------------------------------------------------------------------------------------------------


def test_results_of_pairs_are_a_folder_with_a_report_and_the_same_twice(drive, tmp_path, capsys):
    save_sequence(drive, tmp_path / 'drive')
    arguments = ['evaluate', str(tmp_path / 'drive'), '--matchers', 'default', 'sift+lk']
    assert cli.main([*arguments, '-o', str(tmp_path / 'one')]) == 0
    assert cli.main([*arguments, '-o', str(tmp_path / 'two')]) == 0
    printed = capsys.readouterr().out
    assert '3 pairs' in printed and 'RANSAC' in printed
    for name in ('default', 'sift+lk'):
        one, two = (tmp_path / folder / name for folder in ('one', 'two'))
        for file in ('pairs.csv', 'summary.json', 'config.yaml'):
            assert (one / file).read_bytes() == (two / file).read_bytes()
        with (one / 'pairs.csv').open() as file:
            rows = list(csv.DictReader(file))
        assert [row['pair'] for row in rows] == ['0 1', '1 2', '2 3']
        assert all(float(row['rotation_deg']) < 0.5 and row['status'] == 'OK' for row in rows)
        summary = json.loads((one / 'summary.json').read_text())
        assert summary['pairs_with_pose'] == 3 and min(summary['pose_auc_5_10_20_deg']) > 0.8
        assert sum(summary['matches_of_confidence']) == sum(int(row['matches']) for row in rows)
        report = (one / 'report.html').read_text()
        assert report.count('<img src="data:image/') == 6 and 'http' not in report.replace('http-equiv', '')
        assert 'The worst pair' in report and summary['matcher'] in report


def test_pairs_that_cannot_be_read_are_listed_and_the_rest_is_evaluated(pictures, capsys):
    folder, camera, truth = pictures
    shutil.copy(folder / 'b.png', folder / 'broken.png')
    (folder / 'broken.png').write_bytes((folder / 'b.png').read_bytes()[:200])
    rows = [row_of_list(camera, truth, names=('a.png', name)) for name in ('missing.png', 'b.png', 'broken.png')]
    (folder / 'pairs.txt').write_text('\n'.join(rows))
    arguments = ['evaluate', str(folder / 'pairs.txt'), '--matchers', 'sift']
    assert cli.main([*arguments, '-o', str(folder / 'out')]) == 3
    printed = capsys.readouterr().out
    assert '1 pairs' in printed and printed.count('NOT READ') == 2 and 'missing.png' in printed
    # The pictures are those of the pair that could be read.
    assert 'a.png b.png' in (folder / 'out' / 'sift' / 'report.html').read_text()
    (folder / 'pairs.txt').write_text(rows[0])
    assert cli.main(arguments) == 1
    assert 'gave no pair' in capsys.readouterr().err


def test_examples_are_the_best_the_median_and_the_worst_pair():
    rows = [
        pair_run.PairRow(str(i), 'OK', 9, 9, 9, 0, 0, 0, 0, error, 0, 0, np.nan, ())
        for i, error in enumerate([3.0, 1.0, np.inf, 2.0, 0.5])
    ]
    times = np.zeros(5)
    run = pair_run.PairRun('x', True, rows, list(range(5)), times, times, times, times, [])
    assert examples(run) == {'best': 4, 'median': 3, 'worst': 2}


def test_matches_are_exported_for_colmap_and_hloc(pictures, drive, capsys):
    h5py = pytest.importorskip('h5py')
    folder, camera, truth = pictures
    (folder / 'pairs.txt').write_text(row_of_list(camera, truth))
    arguments = ['evaluate', str(folder / 'pairs.txt'), '--matchers', 'sift', '--export', 'colmap', 'hdf5']
    assert cli.main(arguments) == 1
    assert '--export needs a folder' in capsys.readouterr().err
    assert cli.main([*arguments, '-o', str(folder / 'out')]) == 0
    results = folder / 'out' / 'sift'
    [count] = [int(row['matches']) for row in csv.DictReader((results / 'pairs.csv').open())]
    with h5py.File(results / 'matches.h5') as file:
        matches0 = file['a.png/b.png/matches0'][:]
    with contextlib.closing(sqlite3.connect(results / 'matches.db')) as database:
        assert database.execute('SELECT name FROM images ORDER BY name').fetchall() == [('a.png',), ('b.png',)]
        [(exported,)] = database.execute('SELECT rows FROM matches').fetchall()
    # Points of one pixel become one keypoint: SIFT finds the same corner in several scales.
    assert count / 2 < exported == np.count_nonzero(matches0 >= 0) <= count


@pytest.mark.parametrize('mode', [[], ['--odometry', 'stereo']], ids=['pairs', 'odometry'])
def test_an_interrupted_evaluation_goes_on_where_it_ended(mode, drive, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(results, 'commit', lambda: 'abc')
    save_sequence(drive, tmp_path / 'drive')
    arguments = ['evaluate', str(tmp_path / 'drive'), *mode, '-o', str(tmp_path / 'out'), '--resume', '--matchers']

    def evaluated(*more):
        """Return the table, and the matchers that were taken from the folder."""
        assert cli.main([*arguments, 'sift', 'orb', *more]) == 0
        lines = capsys.readouterr().out.splitlines()
        taken = [line.split(':')[0] for line in lines if ': taken from' in line]
        return [line.split() for line in lines if line.split()[:1] in (['sift'], ['orb'])], taken

    assert cli.main([*arguments, 'sift']) == 0
    capsys.readouterr()
    table, taken = evaluated()
    assert taken == ['sift'] and len(table) == 2
    assert evaluated() == (table, ['sift', 'orb'])
    (tmp_path / 'out' / 'sift' / 'report.html').unlink()  # as if it had been interrupted while it wrote
    assert evaluated()[1] == ['orb']
    assert evaluated('--set', 'pose.min_inliers=17')[1] == []  # other settings
    monkeypatch.setattr(results, 'commit', lambda: 'abc+')  # files differ from the commit: nothing is known
    assert evaluated('--set', 'pose.min_inliers=17')[1] == []
    assert cli.main(['evaluate', str(tmp_path / 'drive'), *mode, '--resume']) == 1
    assert '--resume needs a folder' in capsys.readouterr().err
