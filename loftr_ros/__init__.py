"""Learned image matching for ROS 2: match arrays and relative pose from camera topics."""

# colcon installs the generated loftr_ros.msg in another folder; this joins the two.
__path__ = __import__('pkgutil').extend_path(__path__, __name__)
