"""The command `latse data pack`."""

from __future__ import annotations

import argparse
from typing import Any, Iterator

from latse.arguments import add_processes_argument
from latse.data.photographs import align_command
from latse.files import write_json

SUMMARY = "make a training set of photographs: find, align, encode, write shards"
DESCRIPTION = """\
Make an insightface data set (train.rec, train.idx, property) of photographs: find the face and its five
points, align it to 112x112, encode it as JPEG, and write it under its person's label. A report, pack.json,
names every photograph that was left out and why, every photograph with several faces and the one that was
taken, and the people in the order of their labels.

PHOTOS is a folder with a folder for each person: every file in it, at any depth, is a photograph of that
person, whatever its name ends in; links are followed; names that begin with a dot are passed over. Or PHOTOS
is a list, in any order, paths relative to its folder or to --root. Its lines are PATH<TAB>PERSON, im2rec's
NUMBER<TAB>LABEL<TAB>PATH, or insightface's 0|1<TAB>PATH<TAB>LABEL; which it is, is recognised and said.

People are numbered in the order of their names (by code points), or of the labels of a list, from 0; those
without a face get no number and are named in the report. The photographs of a person come in the order of
their paths, or of the list.

Photographs can be whatever OpenCV reads (JPEG, PNG, WebP, TIFF, BMP, PNM and others); they are turned as
their EXIF data say; grey becomes RGB, CMYK RGB, 16 bits 8, and transparency is dropped. Truncated and
damaged images are left out. Of several faces the one that is largest and nearest to the middle is taken; the
report states the rule.

A run that was interrupted or killed goes on when the command is given again, and gives the same set to the
byte. Until the end the finished faces lie in OUT/.pack, so the disk must hold the set twice. If photographs
or settings have changed meanwhile, it says so instead. The number of processes changes nothing but the time.
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments and options."""
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("photographs", metavar="PHOTOS", help="folder of people's folders, or list file")
    parser.add_argument("out", metavar="OUT", help="folder of the set; it must not hold another one")
    parser.add_argument("--root", metavar="FOLDER", help="what paths of a list are relative to")
    align_command.add_face_arguments(parser)
    parser.add_argument(
        "--aligned",
        action="store_true",
        help="the photographs are faces of 112x112 already: nothing is detected; a JPEG, grey or colour, "
        "keeps its bytes, anything else is encoded; other sizes are left out",
    )
    parser.add_argument(
        "--quality", type=int, default=95, metavar="Q", help="of the JPEG, 1 to 100 (default: %(default)s)"
    )
    parser.add_argument(
        "--shards",
        type=int,
        default=1,
        metavar="N",
        help="write N files train-00000.rec, … of like size (default: the one file train.rec)",
    )
    add_processes_argument(parser, "how many work at once")
    parser.add_argument(
        "--leave-out",
        action="append",
        default=[],
        metavar="PATH",
        help="do not look at this photograph, which may have ended an earlier run; can be repeated",
    )
    parser.add_argument("--json", metavar="FILE", help="write the summary here too")


def run(args: argparse.Namespace) -> None:
    """Make the set and say what became of the photographs; raise LatseError for bad input."""
    from latse.data.photographs import pack

    settings = pack.PackSettings(args.detector, args.landmarks, args.aligned, args.smallest, args.quality)
    report = pack.pack(
        args.photographs,
        args.out,
        settings,
        args.root,
        args.shards,
        args.processes,
        args.leave_out,
        print,
    )
    if report is None:
        print(f"{args.out} is there already, made of the same photographs with the same settings")
        return
    for line in _lines(args.out, report):
        print(line)
    if args.json:
        write_json(args.json, report)


def _lines(out: str, report: dict[str, Any]) -> Iterator[str]:
    from latse.data.photographs import photographs

    yield f"{out}: {report['images']} images of {report['classes']} people"
    reasons = ", ".join(f"{number} {reason}" for reason, number in report["left_out_by_reason"].items())
    if reasons:
        left_out = sum(report["left_out_by_reason"].values())
        total = report["photographs_found"]
        yield f"{left_out} of {total} photographs were left out: {reasons}; {out}/pack.json names them"
    if report["other_files"]["count"]:
        yield photographs.told(**report["other_files"])
    several = report["photographs_with_several_faces"]
    if several:
        yield f"{several} photographs hold several faces; the largest and nearest to the middle was taken"
    without = report["people_without_image"]
    if without:
        names = ", ".join(without[:5]) + (", …" if len(without) > 5 else "")
        yield f"{len(without)} people have no image and no label: {names}"
