"""Start the node with odometry of one camera, a stereo pair or an RGB-D camera.

Examples:
    ros2 launch loftr_ros odometry.launch.py rig:=stereo left:=/stereo/left right:=/stereo/right
    ros2 launch loftr_ros odometry.launch.py rig:=rgbd image_topic:=/camera/color/image_raw \
        camera_info_topic:=/camera/color/camera_info depth_topic:=/camera/aligned_depth_to_color/image_raw \
        base_from_camera:=forward bag:=BAG rviz:=true
    ros2 launch loftr_ros odometry.launch.py image_topic:=/camera/image_rect camera_info_topic:=/camera/camera_info

Results: /visual_odometry/odometry (nav_msgs/Odometry) and others, see README.md.
"""

from pathlib import Path

from ament_index_python.packages import get_package_share_directory
from launch.actions import ExecuteProcess
from launch_ros.actions import Node

from loftr_ros.ros.launching import AS_FILE, COMMON, MONO_TOPICS, STEREO_TOPICS, Argument, describe

DISCOVERY_S = '2.0'
"""Until node and player have found each other; images before are lost."""

YES_NO = ('', 'true', 'false')
ARGUMENTS = (
    Argument(
        'rig',
        '',
        f'mono: one camera, the unit of length is unknown; stereo; rgbd; {AS_FILE} (mono)',
        'odometry.rig',
        choices=('', 'mono', 'stereo', 'rgbd'),
    ),
    *MONO_TOPICS,
    Argument('depth_topic', 'depth/image', 'depth of the image (rig rgbd)', topic='depth/image'),
    Argument(
        'camera_from_depth',
        '',
        'empty: depth is registered to the image (aligned); else pose of the depth camera in the optical frame of the '
        'image, "x y z roll pitch yaw", or tf; the node then registers it',
        'odometry.camera_from_depth',
    ),
    Argument('depth_info_topic', 'depth/camera_info', 'camera_info of such depth', topic='depth/camera_info'),
    Argument(
        'speed',
        '',
        'type of the messages on speed_topic that give one camera its unit of length: Odometry, TwistStamped, '
        'TwistWithCovarianceStamped; empty: as config_file says (none)',
        'odometry.speed',
    ),
    Argument('speed_topic', 'speed', 'velocity of the robot, for example /wheel/odometry', topic='speed'),
    *STEREO_TOPICS,
    Argument('base_frame', '', f'odometry.base_frame; {AS_FILE} (base_link)', 'odometry.base_frame'),
    Argument('odom_frame', '', f'odometry.odom_frame; {AS_FILE} (odom)', 'odometry.odom_frame'),
    Argument(
        'base_from_camera',
        '',
        'pose of the (left) camera in base_frame: "x y z roll pitch yaw" [m, rad] of its optical frame; forward: at '
        'its origin, looking along x; empty: as config_file says, or from TF',
        'odometry.base_from_camera',
    ),
    Argument(
        'publish_odom_tf',
        '',
        f'publish odom_frame -> base_frame on /tf; {AS_FILE} (false)',
        'odometry.publish_odom_tf',
        choices=YES_NO,
    ),
    Argument(
        'process_every_frame',
        '',
        f'true: no image is dropped while the node is busy, for replay; {AS_FILE} (false)',
        'input.process_every_frame',
        choices=YES_NO,
    ),
    Argument('depth_transport', '', f'input.depth_transport (raw, compressed); {AS_FILE}', 'input.depth_transport'),
    *COMMON,
    Argument('bag', '', 'a bag to play with ros2 bag play --clock; the node then uses its time'),
    Argument('bag_rate', '1.0', 'speed of the bag'),
    Argument('rviz', 'false', 'true: open RViz with trajectory, points and matches', choices=YES_NO[1:]),
)


def _rviz(values):
    """Return RViz if it is asked for, and the parameters that a bag needs."""
    actions, parameters = [], {'use_sim_time': True} if values['bag'] else {}
    if values['rviz'] == 'true':
        config = Path(get_package_share_directory('loftr_ros')) / 'config' / 'odometry.rviz'
        arguments = ['-d', str(config)]
        actions.append(Node(package='rviz2', executable='rviz2', arguments=arguments, parameters=[parameters]))
    return actions, parameters


def _bag(values):
    """Return the player of the bag if there is one; its first images would be lost while the node loads."""
    if not values['bag']:
        return []
    command = ['ros2', 'bag', 'play', values['bag'], '--clock', '--delay', DISCOVERY_S, '--rate', values['bag_rate']]
    return [ExecuteProcess(cmd=command, output='screen')]


def generate_launch_description():
    """Return the arguments, the node, and bag and RViz where they are asked for."""
    return describe(ARGUMENTS, 'visual_odometry', {'input.pairing': 'odometry'}, _rviz, _bag)
