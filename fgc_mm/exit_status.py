"""Exit statuses of the commands."""

BAD_INPUT = 2
STOPPED = 75  # EX_TEMPFAIL of sysexits.h: not done, run it again
INTERRUPTED = 130  # by Ctrl-C: 128 + SIGINT, as in a shell
BROKEN_PIPE = 141  # 128 + SIGPIPE

# Environment variable: path of a file that a run creates when it exits with
# STOPPED, for a launcher that does not see the exit status.
STOP_FILE = 'FGC_STOP_FILE'
