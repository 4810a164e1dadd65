"""Memory: what a stage needs, what it used, and which weights are resident when."""
