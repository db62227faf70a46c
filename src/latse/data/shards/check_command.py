"""The command `latse data check`."""

from __future__ import annotations

import argparse
import textwrap
from collections import Counter
from typing import Any

from latse.arguments import add_processes_argument
from latse.errors import check_range
from latse.files import write_json

SUMMARY = "find all that is wrong with an insightface set, and write a clean copy"
DESCRIPTION = (
    "Read every record of a set (train.rec, train.idx, property, or train-00000.rec, train-00001.rec, …). A "
    "fault is what training refuses, or what it takes and learns something wrong from: property against "
    "content, index against records, header and identity records, labels, images that do not decode or have "
    "another size, pictures that stand under several people, two sets in one folder. What can be trained on "
    "is only remarked: people with one image, classes without any, a picture that a person has twice, an "
    "index out of order or without some records, rounded ranges, grey, CMYK, 16-bit or transparent images. "
    "Exit status: 0 if there is no fault, 1 if there is one."
)
SHOWN = 3  # examples of each kind
BAR = 40  # characters


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument("folder", metavar="FOLDER")
    parser.add_argument("--json", metavar="FILE", help="write everything that was found, with all places")
    parser.add_argument(
        "--repair",
        metavar="OUT",
        help="write a clean copy into this folder, outside FOLDER, which is never touched, and without a "
        "set in it. Only broken images are dropped, and all copies of a picture that stands under several "
        "people, as nobody knows whose it is; OUT/repair.json lists them. Records that the index does not "
        "name come back if the index is at fault elsewhere. People keep their numbers, images get new record "
        "numbers. What is assumed where the set contradicts itself is printed and stands in OUT/repair.json",
    )
    add_processes_argument(parser, "that decode images")


def run(args: argparse.Namespace) -> int:
    """Check, print, repair; return 0 if the set is sound, otherwise 1; LatseError if it is unreadable."""
    from latse.data.shards.check import check_set
    from latse.data.shards.repair import repair
    from latse.data.shards.staging import refuse_set

    check_range("--processes", args.processes, 1)
    if args.repair:  # before the set is read, which takes long
        refuse_set(args.repair, args.folder)
    report = check_set(args.folder, args.processes)
    content = report.as_json()
    print("\n".join(_summary(content)))
    if args.json:
        write_json(args.json, content)
    if args.repair:
        dropped = repair(report, args.repair)
        for assumption in report.assumptions:
            print(f"assumed: {assumption}")
        print(f"{args.repair}: {content['sound_images']} images; {dropped} dropped, listed in repair.json")
    return 0 if report.sound else 1


def _summary(report: dict[str, Any]) -> list[str]:
    """Return the lines that a person reads, of what `Report.as_json` returned."""
    height, width = report["image_size"]
    files = f" in {len(report['files'])} files" if len(report["files"]) > 1 else ""
    lines = [
        f"{report['folder']}: {report['images']} images{files}, {report['sound_images']} of them sound, of "
        f"{report['people']} people; {report['classes']} classes, {height}x{width} pixels",
        *_distribution(report["people_by_images"]),
    ]
    for title in ("faults", "remarks"):
        lines += [f"{title}:" if report[title] else f"no {title}"]
        for kind in report[title]:
            lines += [f"  {kind['count']:>9,}  {kind['meaning']} ({kind['kind']})"]
            lines += [f"{'':13}{_place(place)}" for place in kind["places"][:SHOWN]]
            lines += [f"{'':13}…"] * (len(kind["places"]) > SHOWN)
    return lines


def _distribution(people_by_images: dict[str, int]) -> list[str]:
    """Return a histogram of images per person, in classes that double."""
    counts: Counter[int] = Counter()
    for images, people in people_by_images.items():
        counts[int(images).bit_length() - 1] += people
    lines = ["images per person:"] if counts else []
    for power in sorted(counts):
        low, high = 1 << power, (2 << power) - 1
        name = str(low) if low == high else f"{low}-{high}"
        bar = "#" * -(-BAR * counts[power] // max(counts.values()))
        lines.append(f"  {name:>11}  {counts[power]:>9,} people  {bar}")
    return lines


def _place(place: dict[str, Any]) -> str:
    where = [str(place["file"])] if "file" in place else []
    where += [
        f"{key} {place[key]}" for key in ("record", "offset", "line", "person", "classes") if key in place
    ]
    text = ", ".join(where) + (f": {place['detail']}" if "detail" in place else "")
    return textwrap.shorten(text, 200, placeholder="…")
