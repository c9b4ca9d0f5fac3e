"""The ROS 2 part: the only folder that may import rclpy or a message package."""
