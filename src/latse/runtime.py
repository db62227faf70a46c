"""What must happen before mxnet is imported, and what the installed build of mxnet can do."""

from __future__ import annotations

import ctypes
import importlib.util
import os
import platform
from importlib import metadata
from pathlib import Path

from latse.errors import LatseError

# Set unless the user has set them. VERBOSE=0 silences "Subgraph backend MKLDNN is activated" at every bind.
DEFAULTS = {"MXNET_SUBGRAPH_VERBOSE": "0"}

# The build of mxnet that setup.py's extra `gpu` installs.
GPU_BUILD = "mxnet-cu112"

# What its libmxnet.so links (readelf -d) and the nvidia-*-cu11 wheels hold, each after what it links itself.
CUDA_LIBRARIES = (
    "cuda_runtime/lib/libcudart.so.11.0",
    "cuda_nvrtc/lib/libnvrtc.so.11.2",
    "nvtx/lib/libnvToolsExt.so.1",
    "cublas/lib/libcublasLt.so.11",
    "cublas/lib/libcublas.so.11",
    "cufft/lib/libcufft.so.10",
    "curand/lib/libcurand.so.10",
    "cusolver/lib/libcusolver.so.11",
    "cudnn/lib/libcudnn.so.8",
    "nccl/lib/libnccl.so.2",
)

OPENBLAS = "libopenblas.so.0"  # comes with mxnet
OPENBLAS_CORE = "OPENBLAS_CORETYPE"

FEATURES = ("CUDA", "CUDNN", "NCCL", "DIST_KVSTORE")


def prepare() -> None:
    """Make the process ready for `import mxnet`; called once by `import latse`, without importing mxnet.

    Sets `DEFAULTS` where the user has set nothing, and OMP_NUM_THREADS to `threads()`. Chooses the kernels of
    mxnet's OpenBLAS. With the GPU build it loads the CUDA 11 libraries of the nvidia wheels: the loader then
    finds them by their sonames when it loads libmxnet.so, so that neither a system CUDA nor LD_LIBRARY_PATH
    is needed. A library without its wheel is left to the system.
    """
    for name, value in DEFAULTS.items():
        os.environ.setdefault(name, value)
    # By itself MXNet takes every second processor for a hyperthread, whether it is one or not.
    # It ends the process at what is no number, such as OpenMP's list for nested teams.
    os.environ["OMP_NUM_THREADS"] = str(threads())
    _load_openblas()
    if _is_gpu_build():
        for library in _wheel_libraries():
            ctypes.CDLL(str(library))


def cores(topology: Path = Path("/sys/devices/system/cpu")) -> int:
    """Return how many physical cores this process may run on, at least 1.

    Where the machine does not tell which processors share a core, each counts as one.
    """
    usable = os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else range(os.cpu_count() or 1)
    siblings = (topology / f"cpu{number}" / "topology" / "thread_siblings_list" for number in usable)
    return len({path.read_text().strip() if path.exists() else path for path in siblings})


def threads() -> int:
    """Return how many threads this process is to compute with: OMP_NUM_THREADS, without it `cores()`.

    Of a list for nested teams, as in `4,2`, the first counts. What OpenMP would pass over (a word, a number
    below 1) is passed over here too.
    """
    first = os.environ.get("OMP_NUM_THREADS", "").split(",")[0].strip()
    return (int(first) if first.isascii() and first.isdigit() else 0) or cores()


def require_mxnet() -> None:
    """Check, without importing it, that mxnet can be imported.

    Raises LatseError if it is not installed, or if its GPU build is and the NVIDIA driver is missing.
    """
    if importlib.util.find_spec("mxnet") is None:
        raise LatseError("mxnet is not installed in this environment: run `make setup` (with GPU=1 for CUDA)")
    if not _is_gpu_build():
        return
    try:
        ctypes.CDLL("libcuda.so.1")
    except OSError as error:
        raise LatseError(
            f"{GPU_BUILD} needs the NVIDIA driver, whose libcuda.so.1 is not found here: "
            "install the driver, or the CPU build with `make setup GPU=0`"
        ) from error


def features() -> dict[str, bool]:
    """Tell which of `FEATURES`, such as CUDA, mxnet was built with; raises as `require_mxnet`."""
    require_mxnet()
    from mxnet.runtime import Features

    built = Features()
    return {name: built.is_enabled(name) for name in FEATURES}


def mxnet_build() -> str:
    """Say version and features of the installed mxnet: `mxnet 1.9.1: CUDA off, …`; raises as `features`."""
    states = ", ".join(f"{name} {'on' if on else 'off'}" for name, on in features().items())
    import mxnet

    return f"mxnet {mxnet.__version__}: {states}"


def versions() -> dict[str, str]:
    """Return the versions that decide a result: latse, python, and the packages that compute."""
    import latse

    packages = ("numpy", "opencv-python", "gluoncv", "scikit-image", "scikit-learn")
    known = {"latse": latse.__version__, "python": platform.python_version()}
    build = GPU_BUILD if _is_gpu_build() else "mxnet"
    return {**known, **{package: metadata.version(package) for package in (build, *packages)}}


def _load_openblas(cpu: Path = Path("/proc/cpuinfo")) -> None:
    """Load the OpenBLAS that mxnet links, with its kernels for AVX2 where the processor has that.

    It is of 2020. A processor that it does not know, Intel's from 2021 on, it takes for one of 2004, and a
    product of matrices takes twice as long. The user's OPENBLAS_CORETYPE counts; other libraries, numpy's
    OpenBLAS among them, go by their own choice.
    """
    package = importlib.util.find_spec("mxnet")
    library = package and Path(package.origin).with_name(OPENBLAS)
    if OPENBLAS_CORE in os.environ or not (library and library.exists() and cpu.exists()):
        return
    if " avx2 " in cpu.read_text():
        os.environ[OPENBLAS_CORE] = "Haswell"
        ctypes.CDLL(str(library))
        del os.environ[OPENBLAS_CORE]


def _is_gpu_build() -> bool:
    return bool([*metadata.distributions(name=GPU_BUILD)])


def _wheel_libraries() -> list[Path]:
    """Return those of `CUDA_LIBRARIES` that the installed wheels hold, in that order."""
    wheels = importlib.util.find_spec("nvidia")
    folders = [Path(folder) for folder in wheels.submodule_search_locations] if wheels else []
    candidates = (folder / library for library in CUDA_LIBRARIES for folder in folders)
    return [path for path in candidates if path.exists()]
