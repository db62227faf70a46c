"""The arguments of `latse margins`."""

from __future__ import annotations

import argparse

from latse.arguments import later

# The people of CASIA in insightface's format, faces_webface_112x112.
CLASSES = 10572
FIGURE_3 = ("normalised_softmax", "sphereface", "cosface", "arcface", "linearface")
run = later("latse.eval.margins_command")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the sub-commands of `latse margins`."""
    commands = parser.add_subparsers(dest="margins_command", required=True, metavar="COMMAND")
    listing = commands.add_parser(
        "list",
        help="show every loss, its parameters, and the principles that it fails",
        description="Show every loss that a recipe can name: its parameters with their defaults, the values "
        "at which those that are margins are loosest, and which of the paper's principles it fails with its "
        "defaults ('-': it has no target logit h(θ) that could be checked).",
    )
    check = commands.add_parser(
        "check",
        help="check a margin for the principles of the paper's section 3.1",
        description="Say for each principle of the paper's section 3.1 whether the margin meets it, and if "
        "not, on which θ in radians and by how much, in units of the logit. Exit status 0 if it meets all, "
        "else 1.",
    )
    check.add_argument("margin", metavar="NAME", help="a name of `latse margins list`, or FILE.py:CLASS")
    check.add_argument(
        "parameters",
        nargs="*",
        metavar="KEY=VALUE",
        help="parameters, such as a=0.88 (default: the margin's)",
    )
    check.add_argument("--json", metavar="FILE", help="write the findings, parameters and versions")
    plot = commands.add_parser(
        "plot",
        help="draw target logits, target probabilities and their gradients over θ (Figure 3)",
        description="Draw over θ the target logit h(θ), the target's probability while all other class "
        "centres are at π/2, and its derivative, as PNG and as SVG.",
    )
    plot.add_argument(
        "margins",
        nargs="*",
        default=FIGURE_3,
        metavar="NAME[,KEY=VALUE…]",
        help=f"margins with their parameters, such as linearface,a=1,b=1 (default: {' '.join(FIGURE_3)})",
    )
    plot.add_argument(
        "--out",
        required=True,
        metavar="FILE",
        help="FILE.png and FILE.svg are written; the suffix may be left out",
    )
    for command in (listing, check, plot):
        command.add_argument(
            "--classes",
            type=_classes,
            default=CLASSES,
            metavar="K",
            help="number of people, which sets AdaCos's scale and P (default: %(default)s)",
        )


def _classes(text: str) -> int:
    if not text.isdigit() or int(text) < 2:
        raise argparse.ArgumentTypeError(f"{text!r} is no whole number of at least 2")
    return int(text)
