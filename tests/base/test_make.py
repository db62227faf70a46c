"""The Makefile's promises, with fake interpreters and without installing anything."""

import os
import re
import shutil
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from latse.train.training import inference

REPOSITORY = Path(__file__).parents[2]
TOOLS = ("bash", "awk", "sed", "rm", "touch", "mkdir", "chmod", "cat", "sh", "find")

# A python3.N that passes the real check by the real interpreter and makes a .venv whose pip only keeps a log.
PYTHON = """#!/bin/sh
if [ "$1" = -c ]; then exec {real} "$@"; fi
echo "{name} $*" >> log
mkdir -p .venv/bin
cat > .venv/bin/pip <<'END'
#!/bin/sh
echo "pip $*" >> log
case "$*" in *--editable*) echo "Collecting something>=1"; test ! -e broken;; esac
END
chmod +x .venv/bin/pip
"""
BROKEN_SHIM = '#!/bin/sh\necho "pyenv: python3.8: command not found" >&2\nexit 127\n'
TOO_NEW = '#!/bin/sh\nexec {real} -c "import sys; sys.version_info = (3, 12, 0); $2"\n'


class Checkout:
    """The Makefile alone in a folder, and a PATH of its own."""

    def __init__(self, folder):
        self.folder = folder
        self.path = folder / "bin"
        self.path.mkdir()
        for tool in TOOLS:
            (self.path / tool).symlink_to(shutil.which(tool))
        for name in ("Makefile", "setup.py"):
            shutil.copy(REPOSITORY / name, folder)

    def script(self, name, text):
        file = self.path / name
        file.write_text(text)
        file.chmod(file.stat().st_mode | stat.S_IXUSR)

    def python(self, name):
        self.script(name, PYTHON.format(real=sys.executable, name=name))

    def make(self, *arguments):
        return subprocess.run(
            [shutil.which("make"), *arguments],
            cwd=self.folder,
            env={"PATH": str(self.path)},
            capture_output=True,
            text=True,
            check=False,
        )

    def log(self):
        """What python and pip were asked since the last call."""
        file = self.folder / "log"
        lines = file.read_text().splitlines() if file.exists() else []
        file.unlink(missing_ok=True)
        return lines

    def change_setup(self):
        """Make setup.py newer than the stamp, by more than a tick of the file system's clock."""
        for stamp in self.folder.glob(".venv/ready-*"):
            os.utime(stamp, (0, 0))

    def ready(self):
        return sorted(path.name for path in self.folder.glob(".venv/ready-*"))


@pytest.fixture
def checkout(tmp_path):
    return Checkout(tmp_path)


@pytest.fixture
def installed(checkout):
    """A checkout after `make setup`."""
    checkout.python("python3.11")
    assert checkout.make("setup").returncode == 0
    checkout.log()
    return checkout


NEW_PIP = "pip install --quiet --upgrade pip>=21.3"


def install(build):
    return f"pip install --use-pep517 --editable .[{build},onnx,test]"


def test_no_suitable_python_is_one_sentence(checkout):
    checkout.script("python3.8", BROKEN_SHIM)
    checkout.script("python3", TOO_NEW.format(real=sys.executable))
    result = checkout.make("setup")
    assert result.returncode != 0
    said, of_make = result.stderr.splitlines()
    assert said.startswith("latse needs Python 3.8, 3.9, 3.10 or 3.11")
    assert of_make.startswith("make: *** ")
    assert result.stdout == ""
    assert not (checkout.folder / ".venv").exists()


def test_a_broken_shim_is_passed_over(checkout):
    checkout.script("python3.8", BROKEN_SHIM)
    checkout.python("python3.10")
    checkout.python("python3.11")
    result = checkout.make("setup")
    assert result.returncode == 0, result.stderr
    assert result.stderr == ""
    assert checkout.log()[0] == "python3.10 -m venv --clear .venv"


def test_plain_python3_will_do(checkout):
    checkout.python("python3")
    assert checkout.make("setup").returncode == 0
    assert checkout.log()[0] == "python3 -m venv --clear .venv"


def test_setup_runs_once_and_again_when_setup_py_changes(checkout):
    checkout.python("python3.9")
    first = checkout.make("setup")
    assert "something" in first.stdout
    ready, following, page = first.stdout.splitlines()[-3:]
    assert ready.startswith("latse is ready in .venv. Next: `make train-student` (AT&T faces), or ")
    assert following.strip() == 'export PATH="$PWD/.venv/bin:$PATH"'
    assert (REPOSITORY / page.split()[-1]).is_file()
    assert checkout.log()[1:] == [NEW_PIP, "pip uninstall -qq --yes mxnet-cu112", install("cpu")]
    assert checkout.make("setup").stdout.splitlines() == [ready, following, page]
    assert checkout.log() == []
    checkout.change_setup()
    assert checkout.make("setup").returncode == 0
    assert checkout.log() == [NEW_PIP, "pip uninstall -qq --yes mxnet-cu112", install("cpu")]


def test_a_failed_install_does_not_look_finished(checkout):
    checkout.python("python3.11")
    (checkout.folder / "broken").touch()
    assert checkout.make("setup").returncode != 0
    assert checkout.ready() == []
    (checkout.folder / "broken").unlink()
    assert checkout.make("setup").returncode == 0
    assert checkout.ready() == ["ready-cpu"]


def test_a_failed_reinstall_does_not_look_finished(installed):
    installed.change_setup()
    (installed.folder / "broken").touch()
    assert installed.make("setup").returncode != 0
    assert installed.log()[-1] == install("cpu")
    assert installed.ready() == []


def test_gpu_1_replaces_the_cpu_build_and_stays_until_gpu_0(installed):
    assert installed.make("setup", "GPU=1").returncode == 0
    assert installed.log() == [NEW_PIP, "pip uninstall -qq --yes mxnet", install("gpu")]
    assert installed.ready() == ["ready-gpu"]
    assert installed.make("setup").returncode == 0
    assert installed.log() == []
    assert installed.make("setup", "GPU=0").returncode == 0
    assert installed.log() == [NEW_PIP, "pip uninstall -qq --yes mxnet-cu112", install("cpu")]
    assert installed.ready() == ["ready-cpu"]


def test_asking_for_gpus_asks_for_the_gpu_build(installed):
    assert install("gpu") in installed.make("-n", "train-teacher", "GPUS=0,1").stdout.replace("'", "")


def test_the_check_of_gpus_asks_for_the_gpu_build_unless_it_is_for_cpus(installed):
    asked = installed.make("-n", "check-gpu").stdout.replace("'", "")
    assert install("gpu") in asked and asked.splitlines()[-1].strip() == ".venv/bin/latse check-gpu"
    assert commands(installed, "check-gpu", "GPUS=0,1")[-1] == ["check-gpu", "--gpus", "0,1"]
    assert commands(installed, "check-gpu", "CONTEXT=cpu") == [["check-gpu", "--cpus", "2", "--small"]]
    assert commands(installed, "check-gpu", "CONTEXT=cpu", "CPUS=3")[0][1:3] == ["--cpus", "3"]


def commands(checkout, *arguments):
    """The `latse` command lines that make would run, as lists of words."""
    result = checkout.make("-n", *arguments)
    assert result.returncode == 0, result.stderr
    lines = result.stdout.replace("\\\n", " ").splitlines()
    return [line.split()[1:] for line in lines if line.startswith(".venv/bin/latse ")]


def with_orl(checkout):
    folder = checkout.folder / "data/orl"
    folder.mkdir(parents=True)
    for name in ("train.rec", "train.idx", "property", "orl.bin", "orl.people.npy"):
        (folder / name).touch()
    return checkout


TRAIN_TEACHER = "train orl_teacher --data data/orl --out out/orl/teacher --seed 0 --resume"
TRAIN_STUDENT = (
    "train orl_student --data data/orl --out out/orl/student --seed 0 --resume"
    " --teacher out/orl/teacher/model,0"
)
JUDGE = (
    "eval --model student=out/orl/student/model,0 teacher=out/orl/teacher/model,0"
    " untrained=out/orl/student/untrained,0 pixels pca fisherfaces --train-data data/orl"
    " --pairs data/orl/*.bin"
    " --json out/orl/student/verification.json"
    " $(grep -qs '\"generated\"' out/orl/student/model-symbol.json"
    " && echo --figure out/orl/student/faces.png)"
)


def test_a_fresh_clone_makes_data_teacher_student_and_judgement(checkout):
    checkout.python("python3.11")
    result = checkout.make("-n", "train-student")
    assert (
        result.stdout.index("-m venv")
        < result.stdout.index("pip install")
        < result.stdout.index("latse data")
    )
    data, *_, teacher, student, judge = commands(checkout, "train-student")
    assert " ".join(data) == "data fetch-orl --out data/orl"
    assert [" ".join(words) for words in (teacher, student, judge)] == [TRAIN_TEACHER, TRAIN_STUDENT, JUDGE]


def test_plan_is_of_the_student_unless_said(installed):
    with_orl(installed)
    (planned,) = commands(installed, "plan", "CPUS=2")
    assert " ".join(planned) == (
        "plan orl_student --data data/orl --cpus 2"
        " --out out/orl/plan/memory-plan.json --json out/orl/plan/plan.json"
    )
    assert commands(installed, "plan", "RECIPE=mine.yaml")[0][1] == "mine.yaml"


def test_data_that_is_there_is_not_made_again(installed):
    assert commands(with_orl(installed), "train-teacher") == [TRAIN_TEACHER.split()]


def test_orl_is_not_put_into_a_folder_of_the_user(installed):
    faces = installed.folder / "faces"
    faces.mkdir()
    (faces / "lfw.bin").touch()
    teacher, student, judge = commands(installed, "train-student", "DATA=faces")
    assert teacher[teacher.index("--data") + 1] == student[student.index("--data") + 1] == "faces"
    assert judge[judge.index("--pairs") + 1] == "faces/*.bin"


@pytest.mark.parametrize("option", [[], ["-n"]])
def test_nothing_is_trained_where_there_is_nothing_to_judge_on(installed, option):
    sentence = "DATA=faces: there is no such folder"
    for _ in range(2):
        result = installed.make(*option, "train-student", "DATA=faces")
        assert result.returncode != 0
        assert sentence in result.stderr and "latse train" not in result.stdout
        (installed.folder / "faces").mkdir(exist_ok=True)
        sentence = "DATA=faces holds no .bin file to judge the student on: `latse data pairs` makes one"


def test_another_seed_elsewhere_has_its_own_teacher(installed):
    teacher, student, judge = commands(with_orl(installed), "train-student", "SEED=7", "OUT=there")
    assert teacher[teacher.index("--out") + 1] == "there/teacher"
    assert student[student.index("--out") + 1] == "there/student"
    assert student[student.index("--teacher") + 1] == "there/teacher/model,0"
    assert teacher[teacher.index("--seed") + 1] == student[student.index("--seed") + 1] == "7"
    assert "student=there/student/model,0" in judge


def test_recipe_is_of_the_target_being_made(installed):
    with_orl(installed)
    (teacher,) = commands(installed, "train-teacher", "RECIPE=mine.yaml")
    assert teacher[1] == "mine.yaml"
    teacher, student, _ = commands(installed, "train-student", "RECIPE=mine_student.yaml")
    assert (teacher[1], student[1]) == ("mine_teacher.yaml", "mine_student.yaml")
    teacher, student, _ = commands(
        installed, "train-student", "RECIPE=recipes/ms1mv2_student_arcface_schedule.yaml"
    )
    assert teacher[1] == "recipes/ms1mv2_teacher.yaml"
    teacher, student, _ = commands(installed, "train-student", "RECIPE=casia_student_ts")
    assert (teacher[1], student[1]) == ("casia_teacher", "casia_student_ts")
    teacher, student, _ = commands(installed, "train-student", "TEACHER_RECIPE=its.yaml")
    assert (teacher[1], student[1]) == ("its.yaml", "orl_student")


@pytest.mark.parametrize(
    ("variable", "option"),
    [("GPUS=0,1", ["--gpus", "0,1"]), ("CPUS=2", ["--cpus", "2"]), ("KVSTORE=nccl", ["--kvstore", "nccl"])],
)
def test_devices_reach_every_training(installed, variable, option):
    teacher, student, _ = commands(with_orl(installed), "train-student", "GPU=0", variable)
    for words in (teacher, student):
        position = words.index(option[0])
        assert words[position : position + 2] == option


@pytest.mark.parametrize(
    ("given", "launched", "kvstore"),
    [
        (("WORKERS=2",), "launch --workers 2 --", "dist_sync"),
        (("HOSTS=hosts", "SERVERS=3"), "launch --servers 3 --hosts hosts --", "dist_sync"),
        (
            ("WORKERS=2", "HOSTS=h", "KVSTORE=dist_sync_device"),
            "launch --workers 2 --hosts h --",
            "dist_sync_device",
        ),
    ],
)
def test_workers_are_launched(installed, given, launched, kvstore):
    teacher, student, *others = commands(with_orl(installed), "train-student", *given)
    for words in (teacher, student):
        text = " ".join(words)
        assert text.startswith(launched) and "latse train " in text and f"--kvstore {kvstore}" in text
    assert not any("launch" in words for words in others)


def test_help_names_every_target(checkout):
    text = (REPOSITORY / "Makefile").read_text()
    targets = [name for line in re.findall(r"^\.PHONY: (.*)$", text, re.MULTILINE) for name in line.split()]
    lines = checkout.make("help").stdout.splitlines()[1:]
    listed = [name for line in lines for name in line.split(":")[0].split()]
    assert sorted(listed) == sorted(targets)


def test_a_recipe_without_student_in_its_name_trains_without_a_teacher(installed):
    recipe = "recipes/casia_arcface.yaml"
    student, judge = commands(with_orl(installed), "train-student", f"RECIPE={recipe}")
    assert student == TRAIN_STUDENT.replace("orl_student", recipe).split(" --teacher")[0].split()
    assert judge == JUDGE.replace(" teacher=out/orl/teacher/model,0", "").split()
    teacher, *_ = commands(installed, "train-student", f"RECIPE={recipe}", "TEACHER_RECIPE=its.yaml")
    assert teacher[1] == "its.yaml"


@pytest.mark.parametrize("decoder", [True, False])
def test_make_knows_a_student_with_a_decoder_by_its_symbol(tiny_recipe, decoder):
    symbol = inference(tiny_recipe(f"decoder.enabled={str(decoder).lower()}")).tojson()
    assert ('"generated"' in symbol) == decoder


@pytest.mark.parametrize("status", [0, 1])
def test_the_page_of_the_benchmarks_is_written_though_one_fails(installed, status):
    latse = installed.folder / ".venv/bin/latse"
    latse.write_text(f'#!/bin/sh\necho "$*" >> log\ncase "$*" in "bench all"*) exit {status};; esac\n')
    latse.chmod(0o755)
    result = installed.make("bench", "PEERS=/their/code", "BENCH_OUT=there")
    assert (result.returncode != 0) == (status != 0)
    assert installed.log() == [
        "bench all there --peers /their/code",
        "bench page there --out there/performance.md --chart there/performance.png",
    ]
    assert installed.make("bench").returncode == result.returncode
    assert installed.log()[0] == "bench all out/bench"


TABLES = "--runs out/tables --seed 0"


def test_a_table_is_of_its_number(installed):
    (command,) = commands(installed, "table-4")
    assert " ".join(command) == f"tables --only 4 {TABLES}"
    (command,) = commands(installed, "tables")
    assert " ".join(command) == f"tables {TABLES}"
    assert installed.make("-n", "table-7").returncode != 0


def test_data_of_the_tables_reach_them(installed):
    given = "CASIA=/sets/casia", "MS1MV3=/sets/retina", "PROBES=/mega/probes", "DISTRACTORS=/mega/distractors"
    (command,) = commands(installed, "table-6", *given, "RUNS=there", "SEED=3", "CPUS=2", "KVSTORE=local")
    assert " ".join(command) == (
        "tables --only 6 --runs there --data CASIA=/sets/casia MS1MV3=/sets/retina --probes /mega/probes"
        " --distractors /mega/distractors --seed 3 --cpus 2 --kvstore local"
    )
    lists = "PROBE_LIST=p.json", "NOISY_PROBES=p.txt", "DISTRACTOR_LIST=d.json", "NOISY_DISTRACTORS=d.txt"
    (command,) = commands(installed, "tables", *given, *lists)
    assert " ".join(command).endswith(
        " --probes /mega/probes --probe-list p.json --noisy-probes p.txt --distractors /mega/distractors"
        " --distractor-list d.json --noisy-distractors d.txt --seed 0"
    )


def test_the_default_tests_leave_the_gpu_stack_out(installed):
    assert "pytest tests " in installed.make("-n", "test").stdout
    rooms = [path for path in (REPOSITORY / "tests").iterdir() if path.is_dir() and path.name != "gpu_stack"]
    others = [f"--ignore={room}" for room in rooms]
    result = subprocess.run(
        [sys.executable, "-m", "pytest", "--collect-only", "--noconftest", REPOSITORY / "tests", *others],
        capture_output=True,
        text=True,
        check=False,
        cwd=REPOSITORY,
    )
    assert result.returncode == pytest.ExitCode.NO_TESTS_COLLECTED, result.stdout


def test_what_lint_needs_is_installed_by_it_alone(installed):
    said = installed.make("-n", "lint").stdout.replace("'", "")
    assert (
        said.index("--editable .[lint]")
        < said.index(".venv/bin/ruff check .")
        < said.rindex("basedpyright --project")
    )
    assert "[lint]" not in installed.make("-n", "test").stdout


def test_clean_removes_what_a_build_leaves_and_nothing_else(installed):
    litter = (".venv/bin/pip", "build/lib/a.py", "dist/latse.whl", "src/latse.egg-info/PKG-INFO")
    litter += ("src/latse/__pycache__/a.pyc", "symbols/margins/__pycache__/a.pyc", "tests/.pytest_cache/x")
    stays = (
        "src/latse/a.py",
        "symbols/a.py",
        "eval/a.py",
        "recipes/a.yaml",
        "tests/a.py",
        "out/orl/a",
        "data/a",
    )
    for name in (*litter, *stays):
        (installed.folder / name).parent.mkdir(parents=True, exist_ok=True)
        (installed.folder / name).touch()
    (installed.folder / "src/latse/symbols").symlink_to("../../symbols")
    result = installed.make("clean")
    assert result.returncode == 0, result.stderr
    left = {path.relative_to(installed.folder).as_posix() for path in installed.folder.rglob("*")}
    assert {*stays, "src/latse/symbols"} <= left
    assert not left & {*litter, ".venv", "build", "dist", "src/latse.egg-info", "tests/.pytest_cache"}


@pytest.mark.parametrize("known", [True, False])
def test_a_report_identifies_people_where_it_is_known_who_they_are(installed, known):
    folder = installed.folder / "shards"
    folder.mkdir()
    for name in ("train.rec", "lfw.bin", *(["lfw.people.npy"] if known else [])):
        (folder / name).touch()
    latse = installed.folder / ".venv/bin/latse"
    latse.write_text('#!/bin/sh\necho "$*" >> log\n')
    latse.chmod(0o755)
    result = installed.make("report", "DATA=shards", "OUT=out/mine")
    assert result.returncode == 0, result.stderr
    *_, last_but_one, last = installed.log()
    assert last == "report out/mine --out out/mine/report.html"
    identify = (
        "identify --probes shards/lfw.bin --model student=out/mine/student/model,0"
        " teacher=out/mine/teacher/model,0 untrained=out/mine/student/untrained,0 pixels pca fisherfaces"
        " --train-data shards --json out/mine/student/identification.json"
    )
    assert (last_but_one == identify) == known
    assert last_but_one.startswith(("identify ", "figures "))
