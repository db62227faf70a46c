"""Help and usage errors, which are to come at once."""

import subprocess
import sys

from latse.cli import COMMANDS

# Each takes longer to import than a parser may take to answer.
SLOW = ("mxnet", "cv2", "sklearn", "pandas", "matplotlib", "scipy", "skimage")
PARSE = f"""
import sys
from latse.cli import main

for words in sys.argv[1:]:
    try:
        main(words.split())
    except SystemExit as end:
        assert end.code == (0 if "--help" in words else 2), words
    slow = {set(SLOW)} & sys.modules.keys()
    assert not slow, f"{{words}} imports {{slow}}"
"""


def test_help_and_usage_errors_import_nothing_slow():
    """What costs the second that one would wait; all in one process, where the first to blame is named."""
    words = [text for name in COMMANDS for text in (f"{name} --help", f"{name} --unknown")]
    done = subprocess.run(
        [sys.executable, "-c", PARSE, "--help", "", "unknown", *words],
        capture_output=True,
        check=False,
        text=True,
    )
    assert done.returncode == 0, done.stderr.splitlines()[-1]
