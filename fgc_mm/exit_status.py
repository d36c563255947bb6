"""Exit statuses of the commands."""

BAD_INPUT = 2
STOPPED = 75  # EX_TEMPFAIL of sysexits.h: not done, run it again
INTERRUPTED = 130  # by Ctrl-C, as a shell says
