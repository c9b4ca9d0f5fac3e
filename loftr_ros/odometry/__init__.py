"""The front end, which computes matches and motion of sets of frames, with its keyframe and the order of stamps."""
