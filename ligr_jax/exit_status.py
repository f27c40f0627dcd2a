"""Exit statuses of `ligr`, which tell schedulers and scripts what to do next.

    0      done
    1      failed: the message says why; running the same command again fails again
    2      usage: an unknown command, option or value
    75     busy: another process is training this run
    85     stopped by a signal: run the same command again to continue
    130    Ctrl-C in a command that saves nothing, or pressed twice
    134    another process of the same run was lost: run the same command again in all of them

After a signal, `ligr prepare` and other commands that save nothing exit with 128 plus the number of
the signal, as shells report it: 130 for SIGINT, 143 for SIGTERM, 129 for SIGHUP.
"""

DONE = 0
FAILED = 1
USAGE = 2
BUSY = 75
PREEMPTED = 85
INTERRUPTED = 130
PEER_LOST = 134

# The short form of the table above, for `ligr --help`.
TABLE = """\
exit status:
  0 done   1 failed   2 usage   75 another process trains this run
  85 stopped by a signal, run again   130 interrupted   134 a process was lost, run again
"""
