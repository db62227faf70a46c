"""The operator of the classifier in a process that ends."""

import subprocess
import sys

LEAVES = """
import mxnet as mx
from latse.symbols.margins.head import other_classes

embedding, centres, label = mx.nd.ones((64, 512)), mx.nd.ones((20000, 512)), mx.nd.zeros(64)
mx.nd.waitall()
for _ in range(3):
    other_classes(mx.nd, embedding, centres, label)
raise SystemExit(3)
"""


def test_a_process_that_exits_while_the_operator_is_at_work_ends():
    """As one does whose training loop raised: without its handler it waits for ever, at every attempt."""
    assert subprocess.run([sys.executable, "-c", LEAVES], timeout=120, check=False).returncode == 3
