"""Sets of frames in, matches and motion out: the front end, its keyframe and the order of stamps."""
