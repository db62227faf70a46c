"""The one exception that stands for a mistake in the input, not in the program."""


class LatseError(Exception):
    """Bad input: one clear sentence that names the file, record or key at fault.

    The command line prints it without a traceback (unless ``--debug``) and exits with status 1.
    """
