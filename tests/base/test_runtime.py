"""What `import latse` does before mxnet, and what it says about the installed build."""

import ctypes
import os
import subprocess
import sys
from importlib import metadata
from pathlib import Path

import pytest

import latse
from latse import cli, runtime
from latse.errors import LatseError

BIND = """
import latse, mxnet as mx
symbol = mx.sym.Convolution(mx.sym.var("data"), kernel=(1, 1), num_filter=1)
module = mx.mod.Module(symbol, label_names=None)
module.bind([("data", (1, 1, 2, 2))], for_training=False)
"""


OURS = {*runtime.DEFAULTS, runtime.OPENBLAS_CORE}  # variables that these tests set themselves


def python(code, **variables):
    environment = {name: value for name, value in os.environ.items() if name not in OURS}
    return subprocess.run(
        [sys.executable, "-c", code],
        env={**environment, **variables},
        capture_output=True,
        text=True,
        check=True,
    )


@pytest.fixture
def loaded(monkeypatch):
    """The libraries that ctypes.CDLL was asked for, none of them really loaded."""
    monkeypatch.delenv(runtime.OPENBLAS_CORE, raising=False)
    names = []
    monkeypatch.setattr(ctypes, "CDLL", lambda name, *_, **__: names.append(name))
    return names


@pytest.fixture
def gpu_build(tmp_path, monkeypatch):
    """Metadata of an installed mxnet-cu112, and the (empty) libraries of two nvidia wheels."""
    metadata_file = tmp_path / "mxnet_cu112-1.9.1.dist-info/METADATA"
    metadata_file.parent.mkdir()
    metadata_file.write_text("Metadata-Version: 2.1\nName: mxnet-cu112\nVersion: 1.9.1\n")
    for name in ("nccl/lib/libnccl.so.2", "cublas/lib/libcublas.so.11", "cublas/lib/libcublasLt.so.11"):
        library = tmp_path / "nvidia" / name
        library.parent.mkdir(parents=True, exist_ok=True)
        library.touch()
    monkeypatch.syspath_prepend(str(tmp_path))
    return tmp_path


def test_import_latse_does_not_import_mxnet():
    python("import latse, sys; assert 'mxnet' not in sys.modules")


def test_help_does_not_import_mxnet():
    code = "import sys; from latse.cli import main\ntry: main(['--help'])\nexcept SystemExit: pass\n"
    assert "usage: latse" in python(code + "assert 'mxnet' not in sys.modules").stdout


def test_bind_is_silent_unless_the_user_wants_mxnets_notice():
    assert "Subgraph backend" not in python(BIND).stderr
    assert "Subgraph backend" in python(BIND, MXNET_SUBGRAPH_VERBOSE="1").stderr


def test_what_the_user_has_set_stays(monkeypatch):
    monkeypatch.setenv("MXNET_SUBGRAPH_VERBOSE", "7")
    runtime.prepare()
    assert os.environ["MXNET_SUBGRAPH_VERBOSE"] == "7"
    monkeypatch.delenv("MXNET_SUBGRAPH_VERBOSE")
    runtime.prepare()
    assert os.environ["MXNET_SUBGRAPH_VERBOSE"] == "0"


CORE = """
import latse, ctypes, os, mxnet
library = ctypes.CDLL(os.path.join(os.path.dirname(mxnet.__file__), "libopenblas.so.0"))
library.openblas_get_corename.restype = ctypes.c_char_p
print(library.openblas_get_corename().decode(), os.environ.get("OPENBLAS_CORETYPE"))
"""


@pytest.mark.skipif(
    " avx2 " not in Path("/proc/cpuinfo").read_text(), reason="there are other kernels for this processor"
)
def test_mxnets_matrix_products_use_avx2_unless_the_user_says_otherwise():
    """By itself, its OpenBLAS has kernels of SSE3 for a processor that is newer than it."""
    assert python(CORE).stdout.split() == ["Haswell", "None"]
    assert python(CORE, OPENBLAS_CORETYPE="Nehalem").stdout.split() == ["Nehalem", "Nehalem"]


def test_without_avx2_openblas_chooses_by_itself(loaded, tmp_path):
    cpu = tmp_path / "cpuinfo"
    cpu.write_text("flags\t\t: fpu avx sse4_1 \n")
    runtime._load_openblas(cpu)
    runtime._load_openblas(tmp_path / "missing")
    assert loaded == []


def test_features_are_those_that_mxnet_tells():
    from mxnet.runtime import feature_list

    told = {feature.name: feature.enabled for feature in feature_list()}
    assert latse.features() == {name: told[name] for name in ("CUDA", "CUDNN", "NCCL", "DIST_KVSTORE")}
    assert latse.features()["DIST_KVSTORE"]


def test_version_tells_mxnet_and_its_features(capsys):
    with pytest.raises(SystemExit) as ended:
        cli.main(["--version"])
    assert ended.value.code == 0
    cuda = "on" if latse.features()["CUDA"] else "off"
    said = capsys.readouterr().out
    assert said.startswith(f"latse {metadata.version('latse')}, mxnet 1.9.1: CUDA {cuda}, CUDNN {cuda}, ")
    assert len(said.splitlines()) == 1


def test_the_cpu_build_loads_no_cuda(loaded, monkeypatch):
    monkeypatch.setattr(runtime, "GPU_BUILD", "no-such-distribution")
    runtime.prepare()
    assert [name for name in loaded if not name.endswith(runtime.OPENBLAS)] == []


def test_the_gpu_build_loads_the_wheels_libraries_after_what_they_link(gpu_build, loaded):
    runtime.prepare()
    here = [name for name in loaded if name.startswith(str(gpu_build))]
    assert here == [
        str(gpu_build / "nvidia" / name)
        for name in ("cublas/lib/libcublasLt.so.11", "cublas/lib/libcublas.so.11", "nccl/lib/libnccl.so.2")
    ]


def test_a_missing_driver_is_one_sentence(gpu_build, monkeypatch, capsys):
    def missing(name, *_, **__):
        raise OSError(f"{name}: cannot open shared object file: No such file or directory")

    monkeypatch.setattr(ctypes, "CDLL", missing)
    with pytest.raises(LatseError, match=r"needs the NVIDIA driver, whose libcuda\.so\.1 is not found"):
        latse.features()
    assert cli.main(["--version"]) == 1
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err.startswith("latse: mxnet-cu112 needs the NVIDIA driver")
    assert len(said.err.splitlines()) == 1


def test_a_missing_mxnet_is_one_sentence(monkeypatch, capsys):
    monkeypatch.setattr(runtime.importlib.util, "find_spec", lambda name: None)
    assert cli.main(["train", "recipe.yaml"]) == 1
    said = capsys.readouterr().err
    assert said.startswith("latse: mxnet is not installed in this environment: run `make setup`")
    assert len(said.splitlines()) == 1


def test_threads_are_the_physical_cores_unless_the_user_says_otherwise():
    tell = "import os, latse; print(os.environ['OMP_NUM_THREADS'])"
    environment = {name: value for name, value in os.environ.items() if name != "OMP_NUM_THREADS"}
    found = subprocess.run(
        [sys.executable, "-c", tell], env=environment, capture_output=True, text=True, check=True
    )
    assert int(found.stdout) == runtime.cores() >= 1
    assert python(tell, OMP_NUM_THREADS="7").stdout.strip() == "7"


@pytest.mark.parametrize(
    ("text", "expected"),
    [("3", 3), ("2,1", 2), (" 4 , 2", 4), ("0", None), ("-2", None), ("many", None), ("٣", None), ("", None)],
)
def test_threads_are_counted_as_openmp_reads_them(monkeypatch, text, expected):
    monkeypatch.setenv("OMP_NUM_THREADS", text)
    assert runtime.threads() == (expected or runtime.cores())
    monkeypatch.delenv("OMP_NUM_THREADS")
    assert runtime.threads() == runtime.cores()


def test_mxnet_lives_with_what_openmp_takes_for_a_number_of_threads():
    code = "import latse, os, mxnet as mx; mx.nd.ones(3).asnumpy(); print(os.environ['OMP_NUM_THREADS'])"
    assert python(code, OMP_NUM_THREADS="2,1").stdout.strip() == "2"


@pytest.mark.parametrize(
    ("siblings", "expected"),
    [({0: "0-1", 1: "0-1", 2: "2-3", 3: "2-3"}, 2), ({0: "0", 1: "1", 2: "2", 3: "3"}, 4), ({}, 4)],
)
def test_cores_are_counted_by_their_hyperthreads(tmp_path, monkeypatch, siblings, expected):
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0, 1, 2, 3})
    for number, text in siblings.items():
        folder = tmp_path / f"cpu{number}" / "topology"
        folder.mkdir(parents=True)
        (folder / "thread_siblings_list").write_text(text + "\n")
    assert runtime.cores(tmp_path) == expected
