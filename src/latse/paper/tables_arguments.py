"""The arguments of `latse tables`."""

from __future__ import annotations

import argparse

from latse.arguments import KVSTORES, add_device_arguments, add_set_argument, later

NUMBERS = range(1, 7)
# What `latse identify` takes MegaFace from -> what each needs beside it, and what it is.
MEGAFACE_INPUTS = {
    "probes": (None, "probes and mates"),
    "probe_list": ("probes", "which of the files in --probes, and who"),
    "noisy_probes": ("probe_list", "insightface's facescrub_noises.txt, left out"),
    "distractors": ("probes", "distractors"),
    "distractor_list": ("distractors", "which of the files in --distractors"),
    "noisy_distractors": ("distractor_list", "insightface's megaface_noises.txt, left out"),
}
run = later("latse.paper.tables_command")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of `latse tables`."""
    parser.add_argument(
        "--only",
        nargs="+",
        type=int,
        choices=NUMBERS,
        default=NUMBERS,
        metavar="N",
        help="which (default: all)",
    )
    parser.add_argument(
        "--runs",
        default="out/tables",
        metavar="FOLDER",
        help="where runs are looked for, at any depth, and kept (default: %(default)s)",
    )
    parser.add_argument("--json", metavar="FILE", help="write the tables, or the dry runs")
    training = parser.add_argument_group("what is missing is trained and judged where its data are given")
    training.add_argument(
        "--data",
        nargs="+",
        default=[],
        metavar="NAME=FOLDER",
        help="shards of the paper's training sets: CASIA (faces_webface_112x112), MS1MV2 (faces_emore), "
        "MS1MV3 (ms1m-retinaface-t1)",
    )
    training.add_argument(
        "--pairs",
        nargs="+",
        metavar="FILE.bin",
        help="sets to judge on, of lfw, cfp_fp, agedb_30, calfw, cplfw (default: those in each folder of "
        "--data)",
    )
    for name, (_, what) in MEGAFACE_INPUTS.items():
        training.add_argument(option(name), metavar="PATH", help=f"{what}, as for `latse identify`")
    training.add_argument("--dry-run", action="store_true", help="train nothing, say what each recipe takes")
    training.add_argument("--seed", type=int, default=0, help="default 0")
    training.add_argument("--kvstore", metavar="NAME", help=f"one of {', '.join(KVSTORES)}")
    add_set_argument(training, "change one key in every recipe; the tables then say so")
    add_device_arguments(training)


def option(name: str) -> str:
    """Return the option of an entry of `MEGAFACE_INPUTS`."""
    return f"--{name.replace('_', '-')}"
