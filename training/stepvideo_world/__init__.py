"""A procedural world of coloured shapes that move, with captions in English and Chinese.

Everything follows from seeds: scenes, frames, captions, and which combinations of colour, shape and
motion are kept out of training.
"""
