"""The stand-in for cv_bridge, on messages made by hand, and the choice between it and an installed one."""

import array
import os
import sys
import types

import cv2
import numpy as np
import pytest

from loftr_ros.ros import compat
from loftr_ros.ros.compat.bridge import CvBridge, CvBridgeError

BRIDGE = CvBridge()
RGB = np.array([[[250, 20, 10], [0, 255, 0]], [[0, 0, 255], [255, 255, 255]], [[1, 2, 3], [90, 80, 70]]], np.uint8)
"""3 rows of 2 pixels, all channels different."""
BAYER_SITES = {'rggb': (0, 0), 'bggr': (1, 1), 'gbrg': (1, 0), 'grbg': (0, 1)}
"""Row and column of the first red site of each pattern; blue is across."""


def message(pixels, encoding, padding=0, big_endian=False, as_type=array.array):
    """Return an image message with `padding` odd bytes behind each row."""
    pixels = np.asarray(pixels)
    height, width = pixels.shape[:2]
    stored = pixels.astype(pixels.dtype.newbyteorder('>' if big_endian else '<'))
    rows = np.frombuffer(stored.tobytes(), np.uint8).reshape(height, -1)
    rows = np.pad(rows, ((0, 0), (0, padding)), constant_values=77)
    data = rows.tobytes() if as_type is bytes else array.array('B', rows.tobytes())
    return types.SimpleNamespace(
        height=height, width=width, encoding=encoding, is_bigendian=int(big_endian), step=rows.shape[1], data=data
    )


def mosaic(pattern, red, green, blue, dtype):
    """Return an 8x8 mosaic of one colour."""
    row, column = BAYER_SITES[pattern]
    image = np.full((8, 8), green, dtype)
    image[row::2, column::2] = red
    image[1 - row :: 2, 1 - column :: 2] = blue
    return image


@pytest.fixture(autouse=True)
def image_messages(monkeypatch):
    """Give plain objects in place of sensor_msgs where ROS is not installed."""
    try:
        import sensor_msgs.msg  # noqa: F401
    except ImportError:
        module = types.ModuleType('sensor_msgs.msg')
        module.Image = module.CompressedImage = types.SimpleNamespace
        monkeypatch.setitem(sys.modules, 'sensor_msgs', types.ModuleType('sensor_msgs'))
        monkeypatch.setitem(sys.modules, 'sensor_msgs.msg', module)


# Passthrough


@pytest.mark.parametrize('padding', [0, 1, 7])
@pytest.mark.parametrize('big_endian', [False, True])
@pytest.mark.parametrize(
    ('encoding', 'dtype', 'channels'),
    [
        ('mono8', 'uint8', 1),
        ('mono16', 'uint16', 1),
        ('rgb8', 'uint8', 3),
        ('bgr8', 'uint8', 3),
        ('rgba8', 'uint8', 4),
        ('bgra8', 'uint8', 4),
        ('rgb16', 'uint16', 3),
        ('bgr16', 'uint16', 3),
        ('rgba16', 'uint16', 4),
        ('bgra16', 'uint16', 4),
        ('bayer_rggb8', 'uint8', 1),
        ('bayer_bggr16', 'uint16', 1),
        ('yuv422', 'uint8', 2),
        ('uyvy', 'uint8', 2),
        ('yuv422_yuy2', 'uint8', 2),
        ('yuyv', 'uint8', 2),
        ('8UC1', 'uint8', 1),
        ('8UC2', 'uint8', 2),
        ('8UC3', 'uint8', 3),
        ('8UC4', 'uint8', 4),
        ('8SC2', 'int8', 2),
        ('16UC1', 'uint16', 1),
        ('16SC3', 'int16', 3),
        ('32SC1', 'int32', 1),
        ('32FC1', 'float32', 1),
        ('32FC3', 'float32', 3),
        ('64FC1', 'float64', 1),
        ('8UC10', 'uint8', 10),
    ],
)
def test_passthrough_gives_the_pixels_that_were_stored(encoding, dtype, channels, padding, big_endian):
    shape = (3, 5) if channels == 1 else (3, 5, channels)
    values = np.random.default_rng(1).integers(0, 256, (*shape, np.dtype(dtype).itemsize), np.uint8)
    pixels = values.view(dtype)[..., 0] if np.dtype(dtype).kind != 'f' else values[..., 0].astype(dtype) / 3
    image = BRIDGE.imgmsg_to_cv2(message(pixels, encoding, padding, big_endian))
    assert BRIDGE.encoding_to_dtype_with_channels(encoding) == (dtype, channels)
    assert image.dtype == np.dtype(dtype) and image.dtype.isnative and image.flags.c_contiguous
    np.testing.assert_array_equal(image, pixels)


def test_rows_without_padding_share_the_memory_of_the_message():
    msg = message(RGB, 'rgb8')
    image = BRIDGE.imgmsg_to_cv2(msg)
    msg.data[0] = 99
    assert image[0, 0, 0] == 99


def test_read_only_data_give_a_read_only_image():
    assert not BRIDGE.imgmsg_to_cv2(message(RGB, 'rgb8', as_type=bytes)).flags.writeable


def test_a_list_of_bytes_is_taken_too():
    msg = message(RGB, 'rgb8')
    msg.data = list(msg.data)
    np.testing.assert_array_equal(BRIDGE.imgmsg_to_cv2(msg), RGB)


# Conversions


@pytest.mark.parametrize('source', ['rgb8', 'bgr8', 'rgba8', 'bgra8'])
@pytest.mark.parametrize('target', ['rgb8', 'bgr8', 'rgba8', 'bgra8', 'rgb16', 'bgr16', 'rgba16', 'bgra16'])
def test_colour_orders_change_into_each_other_with_opaque_alpha(source, target):
    def stored(encoding, dtype, scale):
        rgba = np.dstack([RGB, np.full(RGB.shape[:2], 255, np.uint8)]).astype(dtype) * scale
        order = encoding.rstrip('0123456789')
        return rgba[..., ['rgba'.index(letter) for letter in order]]

    dtype, scale = (np.uint8, 1) if target.endswith('8') else (np.uint16, 257)
    image = BRIDGE.imgmsg_to_cv2(message(stored(source, np.uint8, 1), source), target)
    assert image.dtype == dtype
    np.testing.assert_array_equal(image, stored(target, dtype, dtype(scale)))


def test_grey_becomes_equal_channels():
    image = BRIDGE.imgmsg_to_cv2(message(np.uint8([[5, 200]]), 'mono8', padding=3), 'bgr8')
    assert image.tolist() == [[[5, 5, 5], [200, 200, 200]]]


@pytest.mark.parametrize(
    ('encoding', 'order'), [('rgb8', 'RGB'), ('bgr8', 'BGR'), ('rgba8', 'RGBA'), ('bgra8', 'BGRA')]
)
def test_colour_becomes_grey_by_the_weights_of_bt601(encoding, order):
    pixels = np.zeros((1, 3, len(order)), np.uint8)
    for i, letter in enumerate('RGB'):
        pixels[0, i, order.index(letter)] = 200
    # 0.299 R + 0.587 G + 0.114 B; OpenCV's fixed point is within half a grey level.
    np.testing.assert_array_equal(BRIDGE.imgmsg_to_cv2(message(pixels, encoding), 'mono8'), [[60, 117, 23]])


def test_sixteen_bits_become_eight_by_255_over_65535_for_every_value():
    values = np.arange(65536, dtype=np.uint16).reshape(256, 256)
    expected = np.rint(values * (255 / 65535)).astype(np.uint8)
    np.testing.assert_array_equal(BRIDGE.imgmsg_to_cv2(message(values, 'mono16'), 'mono8'), expected)


def test_eight_bits_become_sixteen_so_that_white_stays_white():
    image = BRIDGE.imgmsg_to_cv2(message(np.uint8([[0, 1, 255]]), 'mono8'), 'mono16')
    assert image.dtype == np.uint16
    assert image.tolist() == [[0, 257, 65535]]


@pytest.mark.parametrize('big_endian', [False, True])
def test_sixteen_bit_colour_becomes_eight_bit_colour_of_another_order(big_endian):
    msg = message(RGB.astype(np.uint16) * 257, 'rgb16', padding=2, big_endian=big_endian)
    np.testing.assert_array_equal(BRIDGE.imgmsg_to_cv2(msg, 'bgr8'), RGB[..., ::-1])


@pytest.mark.parametrize('pattern', BAYER_SITES)
@pytest.mark.parametrize(('bits', 'scale'), [(8, 1), (16, 257)])
def test_a_mosaic_of_one_colour_becomes_that_colour(pattern, bits, scale):
    pixels = mosaic(pattern, 200 * scale, 100 * scale, 50 * scale, f'uint{bits}')
    msg = message(pixels, f'bayer_{pattern}{bits}', padding=6)
    for target, colour in (('bgr8', (50, 100, 200)), ('rgb8', (200, 100, 50))):
        image = BRIDGE.imgmsg_to_cv2(msg, target)
        assert image.shape == (8, 8, 3)
        assert (image[2:-2, 2:-2] == colour).all()
    # 0.299 * 200 + 0.587 * 100 + 0.114 * 50 = 124.2
    assert (BRIDGE.imgmsg_to_cv2(msg, 'mono8')[2:-2, 2:-2] == 124).all()


@pytest.mark.parametrize(
    ('encoding', 'luma', 'chroma'), [('yuv422', 1, 0), ('uyvy', 1, 0), ('yuv422_yuy2', 0, 1), ('yuyv', 0, 1)]
)
def test_yuv422_becomes_colour_and_its_luma_grey(encoding, luma, chroma):
    # Pairs of pixels: red, white, black in BT.601 limited range, (Y, U, V).
    pixels = np.zeros((2, 6, 2), np.uint8)
    for pair, (y, u, v) in enumerate([(81, 90, 240), (235, 128, 128), (16, 128, 128)]):
        pixels[:, 2 * pair : 2 * pair + 2, luma] = y
        pixels[:, 2 * pair, chroma], pixels[:, 2 * pair + 1, chroma] = u, v
    msg = message(pixels, encoding, padding=4)
    colours = BRIDGE.imgmsg_to_cv2(msg, 'bgr8')[:, ::2].astype(int)
    # The (Y, U, V) above are rounded, which moves a channel by up to 2 levels.
    assert abs(colours - [(0, 0, 255), (255, 255, 255), (0, 0, 0)]).max() <= 2
    np.testing.assert_array_equal(BRIDGE.imgmsg_to_cv2(msg, 'mono8'), pixels[..., luma])
    np.testing.assert_array_equal(BRIDGE.imgmsg_to_cv2(msg, 'rgb8'), BRIDGE.imgmsg_to_cv2(msg, 'bgr8')[..., ::-1])
    assert (BRIDGE.imgmsg_to_cv2(msg, 'bgra8')[..., 3] == 255).all()


def test_a_colour_kept_under_the_name_of_its_type_is_not_changed():
    np.testing.assert_array_equal(BRIDGE.imgmsg_to_cv2(message(RGB, 'rgb8'), '8UC3'), RGB)


def test_numbers_change_depth_by_rounding_and_saturating():
    values = np.float32([[-3.0, 0.5, 1.5, 254.6, 300.0]])
    assert BRIDGE.imgmsg_to_cv2(message(values, '32FC1'), '8UC1').tolist() == [[0, 0, 2, 255, 255]]
    assert BRIDGE.imgmsg_to_cv2(message(np.int16([[-5, 7]]), '16SC1'), '32FC1').tolist() == [[-5.0, 7.0]]


@pytest.mark.parametrize(
    ('encoding', 'target', 'words'),
    [
        ('8UC1', 'mono8', 'not a color format'),
        ('16UC1', 'mono8', 'not a color format'),
        ('32FC1', 'bgr8', 'not a color format'),
        ('mono8', '8UC3', 'number must be equal'),
        ('16UC1', '16UC2', 'number must be equal'),
        ('bgr8', 'bayer_rggb8', 'unsupported conversion'),
        ('bgr8', 'yuv422', 'unsupported conversion'),
        ('bayer_rggb8', 'bgra8', 'unsupported conversion'),
        ('bayer_rggb16', 'bayer_rggb8', 'unsupported conversion'),
        ('bgr8', 'purple', "unrecognized image encoding 'purple'"),
    ],
)
def test_what_upstream_refuses_is_refused(encoding, target, words):
    dtype, channels = BRIDGE.encoding_to_dtype_with_channels(encoding)
    msg = message(np.zeros((4, 4) if channels == 1 else (4, 4, channels), dtype), encoding)
    with pytest.raises(CvBridgeError, match=words):
        BRIDGE.imgmsg_to_cv2(msg, target)


@pytest.mark.parametrize('encoding', ['nv12', 'nv21', 'nv24', 'jpeg', '', '8uc3', '8UC', '8UC0', '24UC1'])
def test_an_encoding_without_a_meaning_is_named(encoding):
    with pytest.raises(CvBridgeError, match=f"unrecognized image encoding '{encoding}'"):
        BRIDGE.imgmsg_to_cv2(message(RGB, encoding))


# Messages that do not hold what they say


@pytest.mark.parametrize(
    ('change', 'words'),
    [
        ({'data': array.array('B', bytes(17))}, 'data has 17 bytes .* needs 18'),
        ({'data': array.array('B')}, 'data has 0 bytes'),
        ({'step': 5}, 'step is 5 bytes but 2 pixels of rgb8 need 6'),
        ({'step': 0}, 'step is 0 bytes'),
        ({'height': 0}, 'image is empty: 2x0'),
        ({'width': 0}, 'image is empty: 0x3'),
    ],
)
def test_a_message_that_is_too_short_says_found_and_needed(change, words):
    msg = message(RGB, 'rgb8')
    vars(msg).update(change)
    with pytest.raises(CvBridgeError, match=words):
        BRIDGE.imgmsg_to_cv2(msg)


def test_cv_bridge_errors_are_type_errors_as_upstream():
    assert issubclass(CvBridgeError, TypeError)


# Images to messages


@pytest.mark.parametrize(
    ('encoding', 'dtype', 'channels'),
    [('mono8', 'uint8', 1), ('bgr8', 'uint8', 3), ('rgba16', 'uint16', 4), ('32FC1', 'float32', 1)],
)
def test_a_message_made_of_an_image_gives_the_image_back(encoding, dtype, channels):
    image = (np.arange(24 * channels) * 3).astype(dtype).reshape((4, 6) if channels == 1 else (4, 6, channels))
    image = image[:, ::2]  # not contiguous
    msg = BRIDGE.cv2_to_imgmsg(image, encoding)
    assert (msg.height, msg.width, msg.encoding) == (4, 3, encoding)
    assert msg.step == 3 * channels * np.dtype(dtype).itemsize
    assert len(msg.data) == 4 * msg.step
    np.testing.assert_array_equal(BRIDGE.imgmsg_to_cv2(msg), image)


def test_passthrough_names_the_opencv_type():
    assert BRIDGE.cv2_to_imgmsg(np.zeros((2, 2, 3), np.uint8)).encoding == '8UC3'
    assert BRIDGE.cv2_to_imgmsg(np.zeros((2, 2), np.float32)).encoding == '32FC1'


def test_a_big_endian_image_is_marked_as_such():
    image = np.array([[1, 500]], '>u2')
    msg = BRIDGE.cv2_to_imgmsg(image, 'mono16')
    assert msg.is_bigendian == 1
    assert list(msg.data) == [0, 1, 1, 244]
    np.testing.assert_array_equal(BRIDGE.imgmsg_to_cv2(msg), image)


def test_the_header_is_handed_on():
    try:
        from std_msgs.msg import Header
    except ImportError:
        Header = types.SimpleNamespace  # noqa: N806
    header = Header(frame_id='camera_optical')
    assert BRIDGE.cv2_to_imgmsg(RGB, 'rgb8', header).header.frame_id == 'camera_optical'


@pytest.mark.parametrize(
    ('image', 'encoding', 'words'),
    [
        (np.zeros((2, 2), np.uint8), 'bgr8', 'bgr8, but image has incompatible type 8UC1'),
        (np.zeros((2, 2, 3), np.uint16), 'bgr8', 'incompatible type 16UC3'),
        (np.zeros((2, 2), np.int64), 'passthrough', 'images of int64 have no encoding'),
        (np.zeros((0, 2), np.uint8), 'mono8', 'not empty'),
        (np.zeros(4, np.uint8), 'mono8', r'must be \(H, W\)'),
        ([[1, 2]], 'mono8', 'numpy array, got list'),
    ],
)
def test_an_image_that_the_encoding_cannot_hold_is_refused(image, encoding, words):
    with pytest.raises(CvBridgeError, match=words):
        BRIDGE.cv2_to_imgmsg(image, encoding)


# Compressed


def smooth(channels=3, dtype=np.uint8):
    ramp = np.linspace(0, 255, 32, dtype=np.uint8)
    image = np.dstack([np.tile(ramp, (32, 1)), np.tile(ramp[:, None], (1, 32)), np.full((32, 32), 90, np.uint8)])
    image = np.dstack([image, np.full((32, 32), 255, np.uint8)]) if channels == 4 else image[..., :channels]
    image = np.squeeze(image).astype(dtype)
    return image * dtype(257) if dtype is np.uint16 else image


@pytest.mark.parametrize(
    ('channels', 'dtype'), [(1, np.uint8), (3, np.uint8), (4, np.uint8), (1, np.uint16), (3, np.uint16)]
)
def test_png_gives_the_same_image_back(channels, dtype):
    image = smooth(channels, dtype)
    msg = BRIDGE.cv2_to_compressed_imgmsg(image, 'png')
    assert msg.format == 'png'
    back = BRIDGE.compressed_imgmsg_to_cv2(msg)
    assert back.dtype == image.dtype
    np.testing.assert_array_equal(back, image)


def test_jpeg_is_the_default_and_near():
    msg = BRIDGE.cv2_to_compressed_imgmsg(smooth())
    assert msg.format == 'jpg'
    back = BRIDGE.compressed_imgmsg_to_cv2(msg, 'rgb8')
    # Loss of JPEG at quality 95 on a smooth ramp.
    assert abs(back[..., ::-1].astype(int) - smooth()).mean() < 3


@pytest.mark.parametrize(('channels', 'target'), [(1, 'bgr8'), (1, 'mono8'), (3, 'mono8'), (4, 'bgr8')])
def test_compressed_images_convert_from_the_channels_that_they_have(channels, target):
    image = smooth(channels)
    expected = {
        (1, 'bgr8'): lambda: np.dstack([image] * 3),
        (1, 'mono8'): lambda: image,
        (3, 'mono8'): lambda: cv2.cvtColor(image, cv2.COLOR_BGR2GRAY),
        (4, 'bgr8'): lambda: image[..., :3],
    }[channels, target]()
    back = BRIDGE.compressed_imgmsg_to_cv2(BRIDGE.cv2_to_compressed_imgmsg(image, 'png'), target)
    np.testing.assert_array_equal(back, expected)


@pytest.mark.parametrize('data', [b'', b'no image at all', b'\xff\xd8\xff\xe0'])
def test_data_that_are_no_image_are_refused(data):
    with pytest.raises(CvBridgeError, match=f'cannot decode {len(data)} bytes'):
        BRIDGE.compressed_imgmsg_to_cv2(types.SimpleNamespace(format='jpeg', data=array.array('B', data)))


def test_a_format_that_opencv_does_not_write_is_refused():
    with pytest.raises(CvBridgeError, match='as docx'):
        BRIDGE.cv2_to_compressed_imgmsg(RGB, 'docx')


# Types


@pytest.mark.parametrize(
    ('encoding', 'constant'),
    [('mono8', 'CV_8UC1'), ('bgr8', 'CV_8UC3'), ('rgba16', 'CV_16UC4'), ('32FC1', 'CV_32FC1'), ('64FC2', 'CV_64FC2')],
)
def test_encodings_name_opencv_types_and_back(encoding, constant):
    cvtype = BRIDGE.encoding_to_cvtype2(encoding)
    assert cvtype == getattr(cv2, constant)
    assert BRIDGE.cvtype2_to_dtype_with_channels(cvtype) == BRIDGE.encoding_to_dtype_with_channels(encoding)
    dtype, channels = BRIDGE.encoding_to_dtype_with_channels(encoding)
    assert 'CV_' + BRIDGE.dtype_with_channels_to_cvtype2(np.dtype(dtype), channels) == constant


# The choice

BROKEN = """
class CvBridgeError(TypeError): pass
class CvBridge:
    def imgmsg_to_cv2(self, msg, encoding='passthrough'):
        {body}
"""
WORKS = 'import numpy; return numpy.array([[[10, 20, 250]]], "uint8")'


@pytest.fixture
def install(tmp_path, monkeypatch):
    """Return a function that puts a module on the path, also of child processes."""

    def write(name, text):
        (tmp_path / f'{name}.py').write_text(text)
        monkeypatch.syspath_prepend(tmp_path)
        monkeypatch.setenv('PYTHONPATH', f'{tmp_path}{os.pathsep}{os.environ.get("PYTHONPATH", "")}')
        monkeypatch.delitem(sys.modules, name, raising=False)

    yield write
    for name in ('cv_bridge', 'message_filters'):
        if getattr(sys.modules.get(name), '__file__', '').startswith(str(tmp_path)):
            del sys.modules[name]


def test_an_installed_cv_bridge_that_works_is_taken(install):
    install('cv_bridge', BROKEN.format(body=WORKS))
    module, reason = compat.choose_bridge()
    assert module.__name__ == 'cv_bridge'
    assert reason.startswith('cv_bridge: installed one, ')


@pytest.mark.parametrize('numpy_version', ['1.26.4', '2.4.0'])
@pytest.mark.parametrize(
    ('text', 'words'),
    [
        (BROKEN.format(body='raise AttributeError("_ARRAY_API not found")'), '_ARRAY_API not found'),
        ('raise ImportError("numpy.core.multiarray failed to import")', 'numpy.core.multiarray failed to import'),
        (BROKEN.format(body='return __import__("numpy").array([[[250, 20, 10]]])'), 'turns the rgb8 pixel'),
        ('class Bridge: pass', 'has no CvBridge: another package of the same name'),
    ],
)
def test_a_cv_bridge_that_does_not_work_gives_way_with_its_reason(install, monkeypatch, numpy_version, text, words):
    monkeypatch.setattr(compat.np, '__version__', numpy_version)
    install('cv_bridge', text)
    module, reason = compat.choose_bridge()
    assert module.__name__ == 'loftr_ros.ros.compat.bridge'
    assert 'own stand-in, the installed one does not work' in reason
    assert words in reason


def test_a_cv_bridge_that_kills_its_process_under_numpy_2_gives_way(install, monkeypatch):
    monkeypatch.setattr(compat.np, '__version__', '2.4.0')
    install('cv_bridge', BROKEN.format(body='import os; os.abort()'))
    module, reason = compat.choose_bridge()
    assert module.__name__ == 'loftr_ros.ros.compat.bridge'
    assert 'a trial run ended with -6' in reason


def test_message_filters_of_another_kind_give_way(install):
    install('message_filters', 'class Subscriber: pass')
    module, reason = compat.choose_filters()
    assert module.__name__ == 'loftr_ros.ros.compat.filters'
    assert 'has no SimpleFilter, Cache' in reason


def test_message_filters_that_need_rospy_give_way(install):
    install('message_filters', 'import rospy_of_ros_1')
    module, reason = compat.choose_filters()
    assert module.__name__ == 'loftr_ros.ros.compat.filters'
    assert "No module named 'rospy_of_ros_1'" in reason


def test_the_choice_is_said_in_a_line_for_each_package():
    lines = compat.describe()
    assert [line.split(':')[0] for line in lines] == ['message_filters', 'cv_bridge']
