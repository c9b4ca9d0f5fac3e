"""Matches as files of hloc and COLMAP, in the conventions of these programs."""

import sqlite3
import sys

import numpy as np
import pytest

from loftr_ros.camera import Camera, CameraModel
from loftr_ros.datatypes import Matches
from loftr_ros.errors import InputError, MissingDependencyError
from loftr_ros.exports import colmap_camera, index_keypoints, write_colmap, write_hdf5
from loftr_ros.geometry import rotation_from_vector

CAMERA = Camera.from_focal(400.0, 640, 480)

PAIRS = {
    ('a/0.png', '1.png'): Matches([[10, 20], [30, 40], [50, 60]], [[11, 20], [31, 40], [51, 60]], [0.9, 0.8, 0.7]),
    ('1.png', '2.png'): Matches([[31.3, 40.2], [70, 80]], [[32, 40], [71, 80]], [0.5, 0.6]),
}
"""The second match of the first pair and the first match of the second pair have a point of 1.png in common."""


def test_a_point_of_two_pairs_is_one_keypoint_at_the_more_confident_place():
    keypoints, scores, numbers = index_keypoints(PAIRS, cell_px=1.0)
    assert {name: len(points) for name, points in keypoints.items()} == {'a/0.png': 3, '1.png': 4, '2.png': 2}
    shared = numbers['a/0.png', '1.png'][0][:, 1].tolist()
    again = numbers['1.png', '2.png'][0][:, 0].tolist()
    (common,) = set(shared) & set(again)
    assert keypoints['1.png'][common].tolist() == [31, 40] and scores['1.png'][common] == np.float32(0.8)


def test_every_match_keeps_its_points_where_no_points_are_joined():
    keypoints, _, numbers = index_keypoints(PAIRS, cell_px=0)
    assert len(keypoints['1.png']) == 5
    for names, matches in PAIRS.items():
        indices, confidence = numbers[names]
        found = np.column_stack([keypoints[name][indices[:, side]] for side, name in enumerate(names)])
        expected = np.column_stack([matches.keypoints0, matches.keypoints1])
        order = np.argsort(-matches.confidence)
        np.testing.assert_array_equal(found[np.argsort(-confidence)], expected[order])


def test_a_keypoint_is_in_one_match_of_a_pair_the_most_confident():
    crowd = Matches([[10, 10], [10.2, 10], [50, 50]], [[20, 20], [40, 40], [20.1, 20]], [0.5, 0.9, 0.4])
    keypoints, _, numbers = index_keypoints({('a', 'b'): crowd}, cell_px=1.0)
    indices, confidence = numbers['a', 'b']
    assert sorted(confidence.tolist()) == [np.float32(0.4), np.float32(0.9)]
    best = indices[np.argmax(confidence)]
    assert keypoints['a'][best[0]].tolist() == [np.float32(10.2), 10] and keypoints['b'][best[1]].tolist() == [40, 40]


@pytest.mark.parametrize('wrong', [('1.png', 'a/0.png'), ('2.png', '2.png')])
def test_a_duplicate_pair_is_refused(wrong):
    with pytest.raises(InputError, match='once'):
        index_keypoints({**PAIRS, wrong: Matches.empty()}, cell_px=1.0)


def test_hdf5_has_the_layout_of_hloc(tmp_path):
    h5py = pytest.importorskip('h5py')
    features, matches = tmp_path / 'features.h5', tmp_path / 'matches.h5'
    write_hdf5(features, matches, PAIRS, cell_px=0)
    with h5py.File(features) as file, h5py.File(matches) as links:
        keypoints0, keypoints1 = (file[name]['keypoints'][()] for name in ('a/0.png', '1.png'))
        group = links['a-0.png/1.png']  # names_to_pair of hloc
        matches0, scores0 = group['matches0'][()], group['matching_scores0'][()]
    assert len(matches0) == len(scores0) == 3 and len(keypoints1) == 5
    order = np.argsort(-scores0)
    expected = PAIRS['a/0.png', '1.png']
    np.testing.assert_array_equal(keypoints0[order], expected.keypoints0)
    np.testing.assert_array_equal(keypoints1[matches0[order]], expected.keypoints1)


def test_a_keypoint_without_a_match_has_minus_one(tmp_path):
    h5py = pytest.importorskip('h5py')
    write_hdf5(tmp_path / 'f.h5', tmp_path / 'm.h5', PAIRS)
    with h5py.File(tmp_path / 'm.h5') as links:
        matches0 = links['1.png/2.png']['matches0'][()]
    assert len(matches0) == 4 and np.count_nonzero(matches0 == -1) == 2


def test_without_h5py_the_error_says_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, 'h5py', None)
    with pytest.raises(MissingDependencyError, match='pip install h5py'):
        write_hdf5(tmp_path / 'f.h5', tmp_path / 'm.h5', PAIRS)


def test_the_database_has_the_origin_and_the_order_of_colmap(tmp_path):
    """COLMAP's pixels begin at the corner of the image, and the image of the smaller number is the first of a pair."""
    pairs = {('b', 'a'): Matches([[1, 2]], [[3, 4]]), ('a', 'c'): Matches([[5, 6]], [[7, 8]])}
    write_colmap(tmp_path / 'database.db', pairs, CAMERA)
    database = sqlite3.connect(tmp_path / 'database.db')
    ids = {name: number for number, name in database.execute('SELECT image_id, name FROM images')}
    points = {
        number: np.frombuffer(data, np.float32).reshape(rows, cols)
        for number, rows, cols, data in database.execute('SELECT * FROM keypoints')
    }
    for names, matches in pairs.items():
        first, second = sorted(ids[name] for name in names)
        pair_id = (2**31 - 1) * first + second
        ((data,),) = database.execute('SELECT data FROM matches WHERE pair_id = ?', (pair_id,))
        indices = dict(zip((first, second), np.frombuffer(data, np.uint32), strict=True))
        for name, expected in zip(names, (matches.keypoints0, matches.keypoints1), strict=True):
            np.testing.assert_array_equal(points[ids[name]][indices[ids[name]]], expected[0] + 0.5)
    assert database.execute('SELECT count(*) FROM cameras').fetchone() == (1,)


@pytest.mark.parametrize(
    ('distortion', 'model', 'number', 'coefficients'),
    [
        ([], CameraModel.PLUMB_BOB, 1, []),
        ([0.1, 0.2, 0.3, 0.4], CameraModel.PLUMB_BOB, 4, [0.1, 0.2, 0.3, 0.4]),
        ([0.1, 0.2, 0.3, 0.4, 0.5], CameraModel.PLUMB_BOB, 6, [0.1, 0.2, 0.3, 0.4, 0.5, 0, 0, 0]),
        (np.arange(1, 9), CameraModel.RATIONAL_POLYNOMIAL, 6, np.arange(1, 9)),
        ([0, 0, 0, 0], CameraModel.EQUIDISTANT, 5, [0, 0, 0, 0]),
    ],
)
def test_a_camera_becomes_the_model_of_colmap(distortion, model, number, coefficients):
    found, parameters = colmap_camera(Camera(CAMERA.matrix, 640, 480, distortion, model))
    assert found == number
    np.testing.assert_array_equal(parameters, [400, 400, 320, 240, *coefficients])


def test_a_camera_that_colmap_does_not_have_is_refused():
    matrix = CAMERA.matrix.copy()
    matrix[0, 1] = 2
    with pytest.raises(InputError, match='skew'):
        colmap_camera(Camera(matrix, 640, 480))
    with pytest.raises(InputError, match='undistort'):
        colmap_camera(Camera(CAMERA.matrix, 640, 480, np.arange(1, 13), CameraModel.RATIONAL_POLYNOMIAL))


def test_an_image_without_a_camera_is_named(tmp_path):
    with pytest.raises(InputError, match=r'1 of 3 images have no camera \(\[.2.png.\]\)'):
        write_colmap(tmp_path / 'database.db', PAIRS, {'a/0.png': CAMERA, '1.png': CAMERA})
    assert not (tmp_path / 'database.db').exists()


@pytest.mark.slow
def test_colmap_reconstructs_the_true_cameras(tmp_path):
    """Five cameras on a line turn towards 300 points; the projections are exact, so the poses must be."""
    pycolmap = pytest.importorskip('pycolmap')
    world = np.random.default_rng(0).uniform([-3, -2, 6], [3, 2, 10], (300, 3))
    poses = [(rotation_from_vector([0, 0.06 * (i - 2), 0]), np.array([-0.5 * (i - 2), 0.1 * i, 0])) for i in range(5)]
    pixels = []
    for rotation, translation in poses:
        points = (world @ rotation.T + translation) @ CAMERA.matrix.T
        pixels.append(points[:, :2] / points[:, 2:])
    pairs = {(f'{i}.png', f'{j}.png'): Matches(pixels[i], pixels[j]) for i in range(5) for j in range(i + 1, 5)}
    database = tmp_path / 'database.db'
    write_colmap(database, pairs, CAMERA)
    (tmp_path / 'pairs.txt').write_text(''.join(f'{a} {b}\n' for a, b in pairs))
    pycolmap.verify_matches(database, tmp_path / 'pairs.txt')
    options = pycolmap.IncrementalPipelineOptions()
    options.ba_refine_focal_length = options.ba_refine_extra_params = False
    (model,) = pycolmap.incremental_mapping(database, tmp_path, tmp_path / 'model', options).values()
    found = {image.name: image.cam_from_world() for image in model.images.values()}
    assert len(found) == 5

    def baseline(i, j, cam_from_world):
        (r0, t0), (r1, t1) = cam_from_world(i), cam_from_world(j)
        rotation = r1 @ r0.T
        return rotation, t1 - rotation @ t0

    def reconstructed(i):
        pose = found[f'{i}.png']
        return pose.rotation.matrix(), pose.translation

    scale = np.linalg.norm(baseline(0, 4, poses.__getitem__)[1]) / np.linalg.norm(baseline(0, 4, reconstructed)[1])
    for i in range(1, 5):
        (true_rotation, true), (rotation, translation) = (baseline(0, i, p) for p in (poses.__getitem__, reconstructed))
        # float32 pixels are exact to 3e-5 px, which is below 1e-5 in angles and in metres at 8 m.
        np.testing.assert_allclose(rotation, true_rotation, atol=1e-4)
        np.testing.assert_allclose(scale * translation, true, atol=1e-3)
