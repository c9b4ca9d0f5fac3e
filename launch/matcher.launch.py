"""Start the matcher node.

Examples:
    ros2 launch loftr_ros matcher.launch.py image_topic:=/camera/image_rect camera_info_topic:=/camera/camera_info
    ros2 launch loftr_ros matcher.launch.py pairing:=stereo left:=/stereo/left right:=/stereo/right
    ros2 launch loftr_ros matcher.launch.py pairing:=stereo left_image_topic:=/camera/infra1/image_rect_raw \
        left_camera_info_topic:=/camera/infra1/camera_info ...
"""

from loftr_ros.ros.launching import AS_FILE, COMMON, MONO_TOPICS, STEREO_TOPICS, Argument, describe

PAIRING = Argument(
    'pairing',
    '',
    f'temporal: one camera, keyframe with current frame; stereo: left with right; {AS_FILE} (temporal)',
    'input.pairing',
    choices=('', 'temporal', 'stereo'),
)


def generate_launch_description():
    """Return the arguments and the node."""
    return describe((PAIRING, *MONO_TOPICS, *STEREO_TOPICS, *COMMON), 'matcher')
