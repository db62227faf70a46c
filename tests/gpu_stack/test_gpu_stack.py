"""`make setup GPU=1` in a copy of the repository, on a machine without CUDA and GPU (make test-gpu-stack)."""

import json
import os
import shutil
import subprocess
import tempfile
from pathlib import Path

import pytest

pytestmark = [pytest.mark.gpu_stack, pytest.mark.slow]

HERE = Path(__file__).parent
REPOSITORY = HERE.parents[1]
CUDA_LIBRARIES = (
    "libcudart",
    "libnvrtc",
    "libnvToolsExt",
    "libcublas",
    "libcufft",
    "libcurand",
    "libcusolver",
    "libcudnn",
    "libnccl",
)
INSTALLED = ("Makefile", "setup.py", "src", "symbols", "eval", "recipes")

REPORT = """
import json, latse
features = latse.features()
import mxnet
total = float(mxnet.nd.ones(3).sum().asscalar())
print(json.dumps({"features": features, "gpus": mxnet.context.num_gpus(), "sum": total}))
"""


@pytest.fixture(scope="module")
def checkout():
    """A copy of the repository with the CUDA 11 stack in its .venv (4 GB), removed afterwards."""
    with tempfile.TemporaryDirectory(prefix="latse-gpu-stack-") as folder:
        for name in INSTALLED:
            source = REPOSITORY / name
            if source.is_dir():
                shutil.copytree(source, Path(folder, name), symlinks=True)  # src/latse/symbols is a link
            else:
                shutil.copy(source, folder)
        make(folder, "setup", "GPU=1")
        yield Path(folder)


@pytest.fixture(scope="module")
def driver(tmp_path_factory):
    """The folder of a libcuda.so.1 that knows no device."""
    folder = tmp_path_factory.mktemp("driver")
    library = folder / "libcuda.so.1"
    command = ["gcc", "-shared", "-fPIC", "-Wl,-soname,libcuda.so.1", "-o", library, HERE / "stub_driver.c"]
    subprocess.run(command, check=True)
    return folder


def make(folder, *arguments):
    subprocess.run(["make", "-C", folder, *arguments], check=True, env=environment())


def environment(loader_path=None):
    """This environment without what the make that runs this test, or a system CUDA, has set."""
    taken = ("MAKEFLAGS", "MAKELEVEL", "MFLAGS", "GPU", "GPUS", "LD_LIBRARY_PATH", "PYTHONPATH")
    kept = {name: value for name, value in os.environ.items() if name not in taken}
    return {**kept, "LD_LIBRARY_PATH": str(loader_path)} if loader_path else kept


def run(checkout, *command, loader_path=None):
    return subprocess.run(
        [checkout / ".venv/bin" / command[0], *command[1:]],
        env=environment(loader_path),
        cwd=checkout.parent,
        capture_output=True,
        text=True,
        check=False,
    )


def test_import_latse_reports_the_cuda_stack(checkout, driver):
    result = run(checkout, "python", "-c", REPORT, loader_path=driver)
    assert result.returncode == 0, result.stderr
    assert json.loads(result.stdout) == {
        "features": {"CUDA": True, "CUDNN": True, "NCCL": True, "DIST_KVSTORE": True},
        "gpus": 0,
        "sum": 3.0,
    }


def test_version_tells_the_features(checkout, driver):
    result = run(checkout, "latse", "--version", loader_path=driver)
    assert result.returncode == 0, result.stderr
    assert "mxnet 1.9.1: CUDA on, CUDNN on, NCCL on, DIST_KVSTORE on" in result.stdout


def test_the_cuda_libraries_come_from_the_wheels(checkout, driver):
    """Not one of them from a system CUDA, if there is one."""
    listing = "import latse, mxnet; print(open('/proc/self/maps').read())"
    maps = run(checkout, "python", "-c", listing, loader_path=driver).stdout
    loaded = {line.split()[-1] for line in maps.splitlines() if ".so" in line}
    for library in CUDA_LIBRARIES:
        folders = {str(Path(path).parent) for path in loaded if Path(path).name.startswith(library + ".so")}
        assert len(folders) == 1, (library, folders)
        assert folders.pop().startswith(f"{checkout.resolve()}/.venv/"), library


def test_a_missing_driver_is_one_sentence(checkout):
    result = run(checkout, "latse", "--version")
    if result.returncode == 0:
        pytest.skip("this machine has an NVIDIA driver")
    assert result.returncode == 1
    assert result.stderr.startswith(
        "latse: mxnet-cu112 needs the NVIDIA driver, whose libcuda.so.1 is not found"
    )
    assert len(result.stderr.splitlines()) == 1


def test_gpu_0_goes_back_to_the_cpu_build(checkout):
    """The last test: it changes the environment."""
    make(checkout, "setup", "GPU=0")
    result = run(checkout, "latse", "--version")
    assert result.returncode == 0, result.stderr
    assert "CUDA off, CUDNN off, NCCL off, DIST_KVSTORE on" in result.stdout
