"""An independent float64 oracle for stepvideo's operators, in NumPy."""
