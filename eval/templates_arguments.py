"""The arguments of `latse templates`."""

from __future__ import annotations

import argparse

from latse.arguments import later
from latse.eval.model_arguments import add_model_arguments

run = later("latse.eval.templates_command")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of `latse templates`."""
    parser.description = "Judge templates of several images of a person, 1:1 and 1:N (IJB-B, IJB-C)."
    parser.add_argument(
        "--data",
        required=True,
        metavar="FOLDER",
        help="a set in insightface's layout, such as IJBC: meta/ with the lists ijbc_name_5pts_score.txt and "
        "ijbc_face_tid_mid.txt; ijbc_template_pair_label.txt for 1:1; ijbc_1N_gallery_*.csv and "
        "ijbc_1N_probe_mixed.csv for 1:N; and the photographs in loose_crop/",
    )
    parser.add_argument(
        "--photographs", metavar="FOLDER", help="where the photographs are (default: FOLDER/loose_crop)"
    )
    parser.add_argument(
        "--no-detector-score",
        action="store_true",
        help="let all faces of a media count alike (default: by the detector's score, as insightface)",
    )
    parser.add_argument("--json", metavar="FILE", help="write all results with their provenance")
    add_model_arguments(parser)
