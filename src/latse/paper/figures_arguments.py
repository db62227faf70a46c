"""The arguments of `latse figures`."""

from __future__ import annotations

import argparse

from latse.arguments import add_batch_size_argument, add_device_arguments, later
from latse.models.run_folder import named_checkpoint

DESCRIPTION = """\
Draw figures of the paper from a run (a folder with student/ and teacher/, as make train-student leaves it):

  1  people of the pairs, the frontal faces that the student's decoder restores, and the difference
  3  target logits of the losses, that of the student among them, over the angle
  4  what the filter kept and what it refused, label by label, of the training data; where the data were
     made by `latse data noise`, verdicts are marked right or wrong
  5  one person's images, restored from the embeddings of an early, a middle and the last checkpoint by
     the last decoder

Without --only, a figure that the run lacks something for (a decoder for 1 and 5, a filter and a teacher for
4, three checkpoints for 5) is left out, which is said. FOLDER/figures.json holds files, captions and
provenance of what this command drew.
"""
run = later("latse.paper.figures_command")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of `latse figures`."""
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.description = DESCRIPTION
    parser.add_argument(
        "--run", required=True, metavar="FOLDER", dest="run_folder", help="holds student/ and teacher/"
    )
    parser.add_argument(
        "--data", required=True, metavar="FOLDER", help="train.rec, train.idx and property, for Figure 4"
    )
    parser.add_argument(
        "--pairs", required=True, metavar="FILE.bin", help="pairs of other people, for Figures 1 and 5"
    )
    parser.add_argument("--out", required=True, metavar="FOLDER", help="of the figures; made if need be")
    parser.add_argument(
        "--only", nargs="+", choices=("1", "3", "4", "5"), metavar="N", help="which figures, of 1 3 4 5"
    )
    kept = parser.add_argument_group("Figure 4")
    kept.add_argument(
        "--verdicts", metavar="FILE", help="verdicts that `latse filter` made (default: the teacher is asked)"
    )
    kept.add_argument(
        "--teacher",
        type=named_checkpoint,
        metavar="PREFIX,N",
        help="who is asked, a checkpoint or the folder of a run (default: teacher/ of the run)",
    )
    kept.add_argument(
        "--asked",
        type=int,
        default=2000,
        metavar="N",
        help="about how many images the teacher is asked, all of some labels, drawn evenly (default: 2000)",
    )
    kept.add_argument(
        "--k",
        type=int,
        metavar="N",
        help="the label must be among the N likeliest people (default: filter.k of the recipe)",
    )
    stages = parser.add_argument_group("Figure 5")
    stages.add_argument(
        "--person",
        type=int,
        metavar="N",
        help="number of the person as they come in the pairs, from 0 (default: one with the most images)",
    )
    stages.add_argument(
        "--stages",
        nargs=3,
        type=int,
        metavar=("EARLY", "MIDDLE", "LAST"),
        help="checkpoints by their iterations (default: the first, the middle and the last stored one)",
    )
    add_device_arguments(parser)
    add_batch_size_argument(parser)
