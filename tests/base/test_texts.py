"""Every text file that a user may hand over is read alike, whichever editor wrote it."""

import json
import shutil

import cv2
import mxnet as mx
import numpy as np
import pytest

from latse import recipe
from latse.bench.page_command import read_notes
from latse.data.pairs.pair_lists import read_pair_list
from latse.data.photographs import landmarks, photographs
from latse.data.shards.check import check_set
from latse.data.shards.records import Shard
from latse.data.shards.shard_writer import write_shard
from latse.errors import LatseError
from latse.eval import figures, megaface, template_lists
from latse.files import read_object
from latse.graph.nodes import Graph
from latse.models.checkpoint import load_symbol
from latse.own_class import Registry
from latse.plan.file import KIND, digest, read_plan
from latse.study.study_file import read_study

POINTS = "1,2,3,4,5,6,7,8,9,10"
FACE = f"{POINTS.replace(',', ' ')} 0.9"
GRAPH = mx.sym.var("x") * 2
PLAN = {"kind": KIND, "graph": digest(Graph.read(GRAPH)), "recomputed": [], "kept": [0], "read": []}


def read_template_set(path):
    return template_lists.read_set(path.parents[1])


def read_photographs(path):
    return list(photographs.listed(path))


def read_pairs(path):
    return read_pair_list(path, path.parent)


def read_set(path):
    report = check_set(path.parent)
    return Shard(path.parent).digest(), report.faults, report.remarks


# Name of a file -> what is in it, and the function of its path that returns what is read of it. The lists of
# one set stand together, and what is None is written by the test.
TEXTS = {
    "recipe.yaml": ("train:\n  iterations: 7\nmargin:\n  s: 32\n", recipe.load),
    "study.yaml": ("recipe: orl_teacher\nseeds: [0, 1]\nrows:\n  line: {}\n", read_study),
    "property": (None, read_set),
    "train.idx": (None, read_set),
    "people.txt": ("a/ä b.jpg\tAnn\nb.jpg\tB ö\n", read_photographs),
    "im2rec.lst": ("0\t3.0\tä b.jpg\n1\t2\tb.jpg\n", read_photographs),
    "insightface.lst": ("1\tä b.jpg\t3\n0\tb.jpg\t2\n", read_photographs),
    "points.csv": (f"path,x1\nä b.jpg,{POINTS}\nb.jpg,{POINTS}\n", lambda path: dict(landmarks.read(path))),
    "pairs.txt": ("1\nAnn\t1\t2\nAnn\t1\tB ö\t1\n", read_pairs),
    "paths.txt": ("Ann/Ann_0001.jpg\tB ö/B ö_0001.jpg\t0\n", read_pairs),
    "megaface.json": ('{"path": ["a/ä.jpg",\n"b.jpg"],\n"id": ["a", "b"]}\n', megaface.read_image_list),
    "noises.txt": ("m.0/ä 1.jpg\n# no\n7\tb.jpg\n", lambda path: sorted(megaface.read_noise(path))),
    "ijbc_name_5pts_score.txt": (f"1.jpg {FACE}\nä.jpg {FACE}\n", read_template_set),
    "ijbc_face_tid_mid.txt": ("1.jpg 4 7\nä.jpg 5 8\n", read_template_set),
    "ijbc_template_pair_label.txt": ("4 5 0\n4 4 1\n", read_template_set),
    "ijbc_1N_gallery_G1.csv": ("TEMPLATE_ID,SUBJECT_ID\n4,30\n", read_template_set),
    "ijbc_1N_probe_mixed.csv": ("TEMPLATE_ID,SUBJECT_ID\n5,30\n", read_template_set),
    "metrics.jsonl": ('{"iteration": 1, "loss": 2}\n{"iteration": 2}\n', figures.read_metrics),
    "run.json": ('{"seed": 1,\n"from": "ä"}\n', read_object),
    "plan.json": (json.dumps(PLAN, indent=1) + "\n", lambda path: read_plan(path, GRAPH).tojson()),
    "model-symbol.json": (GRAPH.tojson() + "\n", lambda path: load_symbol(path).tojson()),
    "note.md": ("A nöte.\n", lambda path: read_notes(path.parent)),
    "own.py": ("class Own:\n    said = 'ä'\n", lambda path: OWN.find(f"{path}:Own").said),
}
OWN = Registry("thing", {}, object, "of any kind")
# Their lines hold paths, whose bytes need not be UTF-8.
OF_PATHS = {
    "people.txt",
    "im2rec.lst",
    "insightface.lst",
    "points.csv",
    "pairs.txt",
    "paths.txt",
    *(name for name in TEXTS if name.startswith("ijbc")),
}


def dressed(text, end):
    """The text with white space at the ends of its lines, and empty lines."""
    return "".join(f"{line} \t{end}\t{end}{end}" for line in text.strip().split("\n"))


EDITORS = {
    "Windows": lambda text: dressed(text, "\r\n").encode("utf-8-sig"),
    "Windows in UTF-16": lambda text: dressed(text, "\r\n").encode("utf-16"),
    "UTF-16, the high byte first": lambda text: f"\ufeff{text}".encode("utf-16-be"),
    "an old Macintosh": lambda text: dressed(text, "\r").encode(),
    "one that ends no line": lambda text: text.strip().encode(),
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """All files of TEXTS, and what they name."""
    folder = tmp_path_factory.mktemp("texts") / "meta"
    face = cv2.imencode(".png", np.zeros((112, 112, 3), np.uint8))[1].tobytes()
    write_shard(folder, [(label, face) for label in (0, 0, 1)], 2)
    for path in ("Ann/Ann_0001.jpg", "Ann/Ann_0002.jpg", "B ö/B ö_0001.jpg"):
        (folder / path).parent.mkdir(exist_ok=True)
        (folder / path).write_bytes(b"")
    for name, (text, _) in TEXTS.items():
        if text is not None:
            (folder / name).write_text(text, "utf-8")
    return folder


@pytest.mark.parametrize(
    ("name", "editor"),
    [
        (n, e) for n in TEXTS for e in EDITORS if not (n == "own.py" and "UTF-16" in e)
    ],  # Python knows no UTF-16
)
def test_it_does_not_matter_which_editor_wrote_a_text(folder, name, editor):
    path, read = folder / name, TEXTS[name][1]
    content, plain = path.read_bytes(), repr(read(path))
    try:
        path.write_bytes(EDITORS[editor](content.decode()))
        assert repr(read(path)) == plain
    finally:
        path.write_bytes(content)


@pytest.mark.parametrize("name", sorted(TEXTS.keys() - OF_PATHS - {"own.py"}))
def test_a_byte_that_is_no_text_is_named(folder, name):
    path, read = folder / name, TEXTS[name][1]
    content = path.read_bytes()
    try:
        path.write_bytes(content + b"\r\n\xe9\r\n")
        line = content.count(b"\n") + 2
        with pytest.raises(LatseError, match=f"{path}, line {line}: the byte 0xe9 is no text in UTF-8$"):
            read(path)
    finally:
        path.write_bytes(content)


@pytest.mark.parametrize("name", ["people.txt", "im2rec.lst", "insightface.lst", "points.csv"])
def test_paths_may_be_of_any_bytes(folder, name):
    path, read = folder / name, TEXTS[name][1]
    content, plain = path.read_bytes(), repr(read(path))
    try:
        path.write_bytes(content.replace("ä".encode(), b"\xe4"))
        assert repr(read(path)) == plain.replace("ä", r"\udce4")
    finally:
        path.write_bytes(content)


def test_photographs_of_a_template_may_be_of_any_bytes(folder, tmp_path):
    shutil.copytree(folder, tmp_path / "meta")
    for path in (tmp_path / "meta").glob("ijbc*"):
        path.write_bytes(path.read_bytes().replace("ä".encode(), b"\xe4"))
    assert template_lists.read_set(tmp_path).faces.photographs.tolist() == ["1.jpg", "\udce4.jpg"]


def test_lines_of_a_template_list_are_counted_as_an_editor_does(folder, tmp_path):
    shutil.copytree(folder, tmp_path / "meta")
    (tmp_path / "meta" / "ijbc_template_pair_label.txt").write_text("\n4 5 0\n\n4 4 2\n")
    with pytest.raises(LatseError, match=r"pair_label\.txt, line 4 has the label 2, neither 0 nor 1"):
        template_lists.read_set(tmp_path)


def test_only_line_ends_end_a_line(tmp_path):
    names = ["a\x0bb", "a\x0cb", "a\x1cb", "a\x85b", "a\u2028b", "a\xa0"]
    (tmp_path / "list").write_text("".join(f"{name}.jpg\t{name}\n" for name in names), "utf-8")
    found = photographs.listed(tmp_path / "list")
    assert sorted((one.path, one.person) for one in found) == sorted((f"{name}.jpg", name) for name in names)
