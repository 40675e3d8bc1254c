"""Errors whose message is meant for the person at the terminal."""


class UserError(Exception):
    """A mistake that the user can mend; the command line prints its one-line message and exits with 2.

    The message says what is wrong and what to do. `WorkError` is for work that was asked for rightly and failed.
    """


class WorkError(Exception):
    """Work failed although the arguments were right (nothing usable, loss not finite, …): one line, exit 1."""


# Exit code of a run that was preempted, or whose peers were lost: start the same command again (EX_TEMPFAIL).
EXIT_RESTART = 75


class RestartError(Exception):
    """Work stopped through no fault of its own; the same command goes on with it: one line, exit EXIT_RESTART."""
