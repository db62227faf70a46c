"""The command `latse data synth`."""

from __future__ import annotations

import argparse
import functools
import os
from pathlib import Path

from latse.files import write_json

SUMMARY = "draw any number of synthetic people: to train on, to verify, to identify"
DESCRIPTION = (
    "Render heads of synthetic people, align them and write an insightface data set (train.rec, train.idx, "
    "property), verification pairs of other people (plain.bin, frontal-profile.bin, cross-age.bin, "
    "cross-pose.bin, each with a .people.npy that says who is who), data sets of again other people for "
    "identification (identification/probes and identification/distractors) and a manifest synth.json. "
    "The bytes depend on the settings alone, on x86 processors with AVX2. A run that was killed goes on "
    "where it was; nothing is done if all is there already, made with the same settings. The shapes of the "
    "heads are fetched once, with pip, into ~/.cache/latse."
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    number = functools.partial(parser.add_argument, type=int)
    parser.add_argument("--out", required=True, metavar="FOLDER", help="made if it does not exist")
    number("--people", required=True, metavar="N", help="people to train on")
    number("--images", required=True, metavar="M", help="pictures of each of them")
    number("--seed", default=0, help="of the population and its pictures (default: %(default)s)")
    number(
        "--processes",
        default=len(os.sched_getaffinity(0)),
        metavar="P",
        help="how many draw at a time (default: one for each processor, %(default)s)",
    )
    number("--shards", default=1, metavar="K", help="files of the training set (default: %(default)s)")
    parser.add_argument(
        "--detect",
        action="store_true",
        help="align by the points that the detector finds instead of the known ones; a picture in which it "
        "finds no face is drawn again, which is counted in synth.json",
    )
    number("--quality", default=95, metavar="Q", help="of the JPEG files, 1 to 100 (default: %(default)s)")
    number(
        "--verification-people",
        default=100,
        metavar="V",
        help="people of each of the four verification sets, 12 pairs each, and of the probes, 5 pictures "
        "each: 0, or a multiple of 10 from 20 on (default: %(default)s)",
    )
    number(
        "--distractors", metavar="D", help="people of the distractors, one picture each (default: 10 times V)"
    )
    parser.add_argument("--sheet", metavar="FILE", help="draw a contact sheet of the sets, a PNG")
    parser.add_argument("--json", metavar="FILE", help="write what was drawn and how fast")


def run(args: argparse.Namespace) -> None:
    """Make the sets unless they are there; raise LatseError for bad input."""
    from latse.data.synth import sets
    from latse.data.synth.plan import SynthSettings
    from latse.data.synth.sheet import write_sheet

    people = args.verification_people
    distractors = 10 * people if args.distractors is None else args.distractors
    settings = SynthSettings(
        args.people, args.images, args.seed, args.shards, args.detect, args.quality, people, distractors
    )
    made = sets.make(args.out, settings, args.processes)
    if made is None:
        print(f"{args.out} is there already, made with the same settings")
    else:
        print(
            f"{args.out}: {args.people} people to train on, {people} in each verification set; "
            f"{made.images} images drawn in {made.seconds:.0f} s, {made.rate:.1f} per second of a core"
        )
    if args.json:
        drawn = None if made is None else {**made._asdict(), "images_per_cpu_second": made.rate}
        versions = sets.drawing_versions()
        write_json(args.json, {"settings": settings._asdict(), "drawn": drawn, "versions": versions})
    if args.sheet:
        write_sheet(Path(args.sheet), sets.sheet_of_sets(args.out))
