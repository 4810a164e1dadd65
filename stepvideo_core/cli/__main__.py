"""`python -m stepvideo_core.cli`, for where the console script is not on the path."""

from stepvideo_core.cli import main

main()
