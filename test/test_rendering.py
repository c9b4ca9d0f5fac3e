"""The renderer on scenes with known results: exact pixels, exact depth, two views that agree."""

import cv2
import numpy as np
import pytest

from loftr_ros.camera import Camera
from loftr_ros.errors import InputError
from loftr_ros.rendering import (
    Face,
    Scene,
    Texture,
    bake_light,
    box,
    furnished_room,
    height_field,
    look_along,
    render,
    room_trajectory,
)

CAMERA = Camera([[100, 0, 31.5], [0, 100, 23.5], [0, 0, 1]], 64, 48)
HERE = np.eye(4)  # world axes are the camera's


def random_image(height, width, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def plain(value):
    return Texture(np.full((4, 4, 3), value, np.uint8))


def plane(z, half_width, half_height, texture):
    """A plane square to the camera around its axis, the texture upright."""
    return Face((-half_width, -half_height, z), (2 * half_width, 0, 0), (0, 2 * half_height, 0), texture)


def aligned_plane(z, image, left, top):
    """A plane on which every texel covers exactly one pixel, its first texel at pixel (left, top)."""
    height, width = image.shape[:2]
    metre = z / 100
    # The edge of the plane is half a pixel outside the centre of its first texel.
    origin = ((left - 0.5 - 31.5) * metre, (top - 0.5 - 23.5) * metre, z)
    return Face(origin, (width * metre, 0, 0), (0, height * metre, 0), Texture(image))


@pytest.fixture(scope='module')
def room():
    return furnished_room(seed=0)


@pytest.fixture(scope='module')
def views(room):
    camera = Camera([[240, 0, 159.5], [0, 240, 119.5], [0, 0, 1]], 320, 240)
    poses = room_trajectory(4, seed=0)[[0, 3]]
    return camera, poses, [render(room, camera, pose) for pose in poses]


def test_a_plane_square_to_the_camera_shows_its_texture_pixel_by_pixel():
    image = random_image(20, 30)
    # 2 m is no power of two times the focal length: the agreement is not one of round numbers alone.
    shown, depth = render(Scene((aligned_plane(2.0, image, 10, 8),)), CAMERA, HERE, supersample=1)
    # cv2.remap rounds positions to 1/32 texel and float32 holds them to thousandths: at most the rounding differs.
    assert np.abs(shown[8:28, 10:40].astype(int) - image).max() <= 1
    assert np.allclose(depth[8:28, 10:40], 2.0, rtol=1e-7)


def test_pixels_count_from_the_centre_of_the_top_left_one():
    """A texture that grows by 10 a texel, moved by half a pixel, shows the values half way."""
    ramp = np.repeat(np.tile(np.arange(25, dtype=np.uint8) * 10, (20, 1))[..., None], 3, axis=2)
    face = aligned_plane(1.0, ramp, 10.5, 8)
    shown, _ = render(Scene((face,)), CAMERA, HERE, supersample=1)
    # Pixel 15 is at texel 15 - 10.5 = 4.5.
    assert np.abs(shown[15, 15].astype(int) - 45).max() <= 1


def test_nothing_is_drawn_beside_a_face_and_depth_is_zero_there():
    scene = Scene((aligned_plane(1.0, random_image(8, 8), 20, 16),), background=(7, 8, 9))
    image, depth = render(scene, CAMERA, HERE)
    assert (depth > 0).sum() == 64
    assert (image[depth == 0] == (7, 8, 9)).all()


def test_depth_is_z_and_not_the_length_of_the_ray():
    tilted = Face((-4, -4, 3), (8, 0, 2), (0, 8, 0), plain(100))  # z = 3 + (x + 4) / 4
    _, depth = render(Scene((tilted,)), CAMERA, HERE)
    x = (np.arange(64) - 31.5) / 100
    expected = 4 / (1 - x / 4)  # z = 4 + x z / 4
    assert np.allclose(depth, expected[None], rtol=1e-6)  # float32


def test_depth_of_the_faces_of_a_box_seen_in_world_axes():
    # A box of 1 m whose front is 2.5 m before a camera at its half height that looks along world x.
    scene = Scene(tuple(box((3, 0, 0), (1, 1, 1), plain(200))))
    _, depth = render(scene, CAMERA, look_along((0, 0, 0.5), yaw=0.0))
    assert depth[24, 32] == pytest.approx(2.5)
    assert set(np.unique(depth.round(5))) == {0.0, 2.5}  # the front hides the rest
    columns = np.flatnonzero(depth[24])
    # Its sides are at +-0.5 m * 100 px / 2.5 m = +-20 px of the centre 31.5.
    assert (columns[0], columns[-1]) == (12, 51)


def test_depth_of_a_roof_seen_from_above():
    """Two slopes h = 1 - 0.4 |x| below a camera 3 m up: a ray (X, Y, 1) meets them at z = (3 - 1) / (1 - 0.4 |X|)."""
    roof = height_field((-2, 1.5, 0), (4, 0, 0), (0, -3, 0), [[0.2, 1.0, 0.2]] * 3, plain(80))
    world_from_cam = np.array([[1, 0, 0, 0], [0, -1, 0, 0], [0, 0, -1, 3], [0, 0, 0, 1.0]])
    _, depth = render(Scene(tuple(roof)), CAMERA, world_from_cam)
    x = np.abs(np.arange(64) - 31.5) / 100
    assert np.allclose(depth, 2 / (1 - 0.4 * x)[None], rtol=1e-6)  # float32


def test_every_point_of_a_relief_lies_between_the_heights_around_it():
    heights = np.random.default_rng(0).uniform(0, 0.5, (6, 9))
    scene = Scene(tuple(height_field((-2, -1, 0), (4, 0, 0), (0, 2, 0), heights, plain(80))))
    world_from_cam = look_along((-1.8, 0.1, 1.2), yaw=0.2, pitch=0.6)
    _, depth = render(scene, CAMERA, world_from_cam)
    y, x = np.nonzero(depth)
    assert len(x) > 1500
    rays = np.linalg.inv(CAMERA.matrix) @ np.stack([x, y, np.ones_like(x)])
    world = world_from_cam[:3, :3] @ (rays * depth[y, x]) + world_from_cam[:3, 3:]
    u, v = (world[0] + 2) / 4 * 8, (world[1] + 1) / 2 * 5
    i, j = np.floor(v).astype(int), np.floor(u).astype(int)
    u, v = u - j, v - i
    upper = u + v > 1  # the half of the cell around its far corner
    near = heights[i, j] + u * (heights[i, j + 1] - heights[i, j]) + v * (heights[i + 1, j] - heights[i, j])
    far = heights[i + 1, j + 1]
    far = far + (1 - u) * (heights[i + 1, j] - far) + (1 - v) * (heights[i, j + 1] - far)
    assert upper.any() and not upper.all()
    assert np.abs(np.where(upper, far, near) - world[2]).max() < 1e-5  # float32 depth of 3 m along slanted rays


def test_the_texture_of_a_flat_relief_is_that_of_one_face():
    image = random_image(32, 48)
    one = aligned_plane(1.0, image, 6, 6)
    flat = height_field(one.origin, one.edge_u, one.edge_v, np.zeros((4, 5)), one.texture)
    (expected, _), (shown, depth) = (render(Scene(tuple(faces)), CAMERA, HERE, 1) for faces in ([one], flat))
    assert (depth[6:38, 6:54] == 1.0).all(), 'no pixel is lost between triangles'
    assert np.abs(shown.astype(int) - expected).max() <= 3  # cv2.remap rounds places to 1/32 texel


def test_look_along_keeps_ros_axes():
    """Yaw is to the left, pitch downwards; the image's right is the world's -y, its bottom -z."""
    for yaw, pitch, forward in ((0, 0, (1, 0, 0)), (np.pi / 2, 0, (0, 1, 0)), (0, np.pi / 2, (0, 0, -1))):
        world_from_cam = look_along((1, 2, 3), yaw, pitch)
        assert np.allclose(world_from_cam[:3, 2], forward)
        assert np.linalg.det(world_from_cam[:3, :3]) == pytest.approx(1)
        assert np.allclose(world_from_cam[:3, 3], (1, 2, 3))
    assert np.allclose(look_along((0, 0, 0), 0)[:3, :2], [[0, 0], [-1, 0], [0, -1]])


@pytest.mark.parametrize('order', [1, -1])
def test_the_nearer_face_hides_the_farther_whatever_their_order(order):
    near, far = plane(1.0, 0.1, 0.1, plain(250)), plane(2.0, 3, 3, plain(50))
    image, depth = render(Scene((near, far)[::order]), CAMERA, HERE)
    assert (image[24, 32] == 250).all() and depth[24, 32] == 1.0
    assert (image[2, 2] == 50).all() and depth[2, 2] == 2.0


def test_an_edge_inside_a_pixel_mixes_the_colours():
    half = Face((0, -9, 1), (9, 0, 0), (0, 18, 0), plain(200))  # right half of the view; the edge is at pixel 31.5
    camera = Camera([[100, 0, 31], [0, 100, 23.5], [0, 0, 1]], 64, 48)  # now at pixel 31
    image, depth = render(Scene((half,)), camera, HERE, supersample=2)
    assert (image[:, 31] == 100).all() and (image[:, 30] == 0).all() and (image[:, 32] == 200).all()
    assert set(np.unique(depth)) <= {0.0, 1.0}, 'depth must not be mixed'


def test_a_face_that_reaches_behind_the_camera_is_cut_and_not_turned_over():
    floor = Face((-50, 1, -50), (100, 0, 0), (0, 0, 100), plain(90))
    image, depth = render(Scene((floor,)), CAMERA, HERE)
    y = (np.arange(48) - 23.5) / 100
    expected = np.where(y > 0.02, 1 / np.maximum(y, 1e-9), 0)  # the floor ends 50 m ahead
    assert np.allclose(depth, expected[:, None], rtol=1e-6)
    assert (image[depth == 0] == 0).all() or image[23].any()  # only the mixed row at the floor's end


def test_a_far_texture_is_averaged_and_not_aliased():
    chequers = np.indices((256, 256)).sum(axis=0) % 2 * 255
    texture = Texture(np.repeat(chequers[..., None], 3, axis=2).astype(np.uint8))
    image, _ = render(Scene((plane(2.0, 0.2, 0.2, texture),)), CAMERA, HERE)
    inside = image[16:32, 24:40].astype(int)  # 256 texels on 20 pixels
    assert np.abs(inside - 127.5).max() <= 1


def test_a_tileable_texture_starts_again():
    image = random_image(8, 8)
    one = aligned_plane(1.0, image, 8, 8)
    face = Face(one.origin, 2 * one.edge_u, 2 * one.edge_v, Texture(image, tileable=True), tiles=(2, 2))
    shown, _ = render(Scene((face,)), CAMERA, HERE, supersample=1)
    assert np.abs(shown[8:24, 8:24].astype(int) - np.tile(image, (2, 2, 1))).max() <= 1


def test_a_lamp_throws_the_shadow_of_a_box():
    floor = Face((-2, 2, 0), (4, 0, 0), (0, -4, 0), plain(200))
    # The lamp stands 2 m above the floor at x = -1; the box at x = 0 is 1 m high, its far side at x = 0.25.
    scene = bake_light(
        Scene((floor, *box((0, 0, 0), (0.5, 0.5, 1.0), plain(200)))), [((-1.0, 0, 2.0), 1.0)], ambient=0.1
    )
    light = scene.faces[0].light
    rows, columns = light.shape

    def brightness(x, y):
        return light[round((2 - y) / 4 * (rows - 1)), round((x + 2) / 4 * (columns - 1))]

    # The top edge's shadow reaches -1 + 1.25 * 2 = 1.5 m; beyond, beside and before the box it is light.
    assert brightness(0.8, 0) == pytest.approx(0.1)
    assert min(brightness(1.9, 0), brightness(0.8, 1.5), brightness(-0.8, 0)) > 0.25


def test_light_multiplies_the_texture():
    scene = Scene((plane(1.0, 1, 1, plain(200)),))
    lit = bake_light(scene, [], ambient=0.25)
    assert (render(lit, CAMERA, HERE)[0] == 50).all()


def test_two_views_of_the_room_agree_by_depth_and_pose(views):
    """Warp the second view into the first: where both see the same place, only resampling differs."""
    camera, poses, ((image0, depth0), (image1, depth1)) = views
    y, x = np.indices(depth0.shape)
    rays = np.linalg.inv(camera.matrix) @ np.stack([x, y, np.ones_like(x)]).reshape(3, -1)
    cam1_from_cam0 = np.linalg.inv(poses[1]) @ poses[0]
    points = cam1_from_cam0[:3, :3] @ (rays * depth0.ravel()) + cam1_from_cam0[:3, 3:]
    u, v = ((camera.matrix @ points)[:2] / points[2]).reshape(2, *depth0.shape).astype(np.float32)
    warped = cv2.remap(image1, u, v, cv2.INTER_LINEAR)
    seen = cv2.remap(depth1, u, v, cv2.INTER_LINEAR)
    same = np.abs(seen - points[2].reshape(depth0.shape)) < 0.01 * seen
    error = np.abs(warped.astype(float) - image0).mean(axis=2)
    still = np.abs(image1.astype(float) - image0).mean(axis=2)
    assert same.mean() > 0.6, 'most of the view is shared after a quarter of a metre'
    # Two resamplings at mip level 0..1 of detailed textures: a few grey values; unaligned it is ten times as much.
    assert np.median(error[same]) < 5
    assert error[same].mean() < still[same].mean() / 3


def test_the_same_seed_gives_the_same_room_and_another_seed_another(room, views):
    camera, poses, ((image, depth), _) = views
    again = render(furnished_room(seed=0), camera, poses[0])
    assert (again[0] == image).all() and (again[1] == depth).all()
    other, _ = render(furnished_room(seed=1, light=False), camera, poses[0])
    assert np.abs(other.astype(float) - image).mean() > 10


def test_sensor_noise_has_the_stated_deviation_and_seed():
    scene = Scene((plane(1.0, 1, 1, plain(128)),))
    noisy, again, other = (render(scene, CAMERA, HERE, noise_sigma=4.0, seed=s)[0].astype(float) for s in (1, 1, 2))
    assert (noisy == again).all() and (noisy != other).any()
    # 9216 values: the deviation is known to 4 / sqrt(2 * 9216) = 0.03.
    assert noisy.std() == pytest.approx(4.0, abs=0.15)


def test_the_room_is_closed_furnished_and_textured(room):
    camera = Camera([[120, 0, 79.5], [0, 120, 59.5], [0, 0, 1]], 160, 120)
    for pose in room_trajectory(120, seed=0)[::24]:
        image, depth = render(room, camera, pose)
        assert depth.min() > 0.5, 'a wall everywhere, and nothing in the way of the robot'
        grey = cv2.cvtColor(image, cv2.COLOR_BGR2GRAY)
        blocks = grey.reshape(6, 20, 8, 20).swapaxes(1, 2).reshape(48, -1)
        assert np.median(blocks.std(axis=1)) > 8
        assert 50 < grey.mean() < 200


@pytest.mark.parametrize('seed', range(4))
def test_the_drive_is_smooth_and_level(seed):
    poses = room_trajectory(200, seed)
    steps = np.linalg.norm(np.diff(poses[:, :3, 3], axis=0), axis=1)
    assert np.allclose(steps, 0.07, atol=0.002)  # chords of the loop are a little shorter than its arcs
    turns = np.einsum('nji,njk->nik', poses[:-1, :3, :3], poses[1:, :3, :3])
    angles = np.degrees(np.arccos(np.clip((np.trace(turns, axis1=1, axis2=2) - 1) / 2, -1, 1)))
    assert angles.max() < 4.5 and angles.mean() > 1
    assert np.abs(np.diff(angles)).max() < 1
    heading, travel = poses[:-1, :3, 2], np.diff(poses[:, :3, 3], axis=0) / steps[:, None]
    assert ((heading * travel).sum(axis=1) > 0.97).all(), 'it looks where it drives'


def test_errors_say_what_to_do():
    with pytest.raises(InputError, match='distortion'):
        render(Scene(()), Camera(np.diag([100, 100, 1]), 8, 8, [0.1, 0, 0, 0]), HERE)
    with pytest.raises(InputError, match='no area'):
        Face((0, 0, 1), (1, 0, 0), (2, 0, 0), plain(1))
    with pytest.raises(InputError, match='heights must be'):
        height_field((0, 0, 0), (1, 0, 0), (0, 1, 0), [[1.0, 2.0]], plain(1))
    with pytest.raises(InputError, match='supersample'):
        render(Scene(()), CAMERA, HERE, supersample=0)


def test_an_empty_scene_is_background():
    image, depth = render(Scene((), background=(1, 2, 3)), CAMERA, HERE)
    assert (image == (1, 2, 3)).all() and not depth.any()
