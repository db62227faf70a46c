"""The same roundings on every processor: libraries choose their code by what a processor can do."""

from __future__ import annotations

import contextlib
import importlib
import os
from typing import Iterator

COMMON = "AVX2", "FMA3"  # what a processor must have; what it has beyond that is not used
BEYOND = "AVX512"  # how numpy calls all of that


@contextlib.contextmanager
def same_everywhere() -> Iterator[None]:
    """Let the processes that are started meanwhile compute as on any x86 processor with AVX2.

    Libraries read the variables when they are loaded, so that this process computes as before. On another
    processor nothing changes, and the last bit of a result may be another one.
    """
    numpy = importlib.import_module("numpy.core._multiarray_umath")
    features = numpy.__cpu_features__
    if not all(features.get(name) for name in COMMON):
        yield
        return
    settings = {
        "OPENBLAS_CORETYPE": "Haswell",
        "OPENBLAS_NUM_THREADS": "1",  # several add up in another order
        "OPENCV_IPP": "avx2",
    }
    off = [name for name in numpy.__cpu_dispatch__ if name.startswith(BEYOND) and features[name]]
    if off:  # numpy and OpenCV complain of what is not there
        own = os.environ.get("NPY_DISABLE_CPU_FEATURES", "")
        settings.update(NPY_DISABLE_CPU_FEATURES=" ".join([own, *off]), OPENCV_CPU_DISABLE="AVX512-SKX")
    before = {name: os.environ.get(name) for name in settings}
    os.environ.update(settings)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value
