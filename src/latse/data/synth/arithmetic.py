"""The same roundings on every processor: numpy and OpenBLAS choose their code by what a processor can do."""

from __future__ import annotations

import contextlib
import importlib
import os
from typing import Iterator

COMMON = "AVX2", "FMA3"  # what a processor must have; what it has beyond that is not used
KERNELS = "Haswell"  # OpenBLAS's name of the kernels for these


@contextlib.contextmanager
def same_everywhere() -> Iterator[None]:
    """Let the processes that are started meanwhile compute as on any x86 processor with AVX2.

    Libraries read the variables when they are loaded, so that this process computes as before. On another
    processor nothing changes, and the last bit of a result may be another one.
    """
    numpy = importlib.import_module("numpy.core._multiarray_umath")
    found = numpy.__cpu_features__
    if not all(found.get(name) for name in COMMON):
        yield
        return
    beyond = [name for name in numpy.__cpu_dispatch__ if name.startswith("AVX512") and found[name]]
    kept = dict(os.environ)
    os.environ["OPENBLAS_CORETYPE"] = KERNELS
    if beyond:
        os.environ["NPY_DISABLE_CPU_FEATURES"] = " ".join(beyond)
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(kept)
