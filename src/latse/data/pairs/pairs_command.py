"""The command `latse data pairs`."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Iterator

from latse.arguments import add_processes_argument
from latse.errors import LatseError, check_range

SUMMARY = "make a verification set (.bin or .npz) of photographs"
DESCRIPTION = (
    "Make a verification set of PHOTOS, a folder with a folder for each person: pairs of one person and of "
    "two, drawn by --seed, as many of either unless --same or --different says otherwise, or the pairs of a "
    "list (--list). The photographs are aligned JPEG or PNG faces of 112x112 pixels, taken over as they are, "
    "or any photographs with --align. Files that are no images are passed over, which is said. OUT is "
    "insightface's .bin, or the plain format if it ends in .npz; FILE.people.npy beside it says who is on "
    "each image, where that is known. The same input gives the same bytes. No file is replaced."
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument("photos", metavar="PHOTOS", help="folder with a folder for each person")
    parser.add_argument("out", metavar="OUT", help="the file to write, FILE.bin or FILE.npz")
    what = parser.add_mutually_exclusive_group()
    what.add_argument(
        "--pairs",
        type=int,
        metavar="N",
        help="draw N pairs, half of each kind (default: 6000, or as many as there are)",
    )
    what.add_argument(
        "--list",
        metavar="FILE",
        help="take the pairs of a list: LFW's pairs.txt ('10 300', 'N' or neither, then lines 'NAME N M' of "
        "one person and 'NAME N OTHER M' of two; photographs are PHOTOS/NAME/NAME_0001.jpg, or of another "
        "ending), or lines 'PATH PATH 0|1' with paths in PHOTOS, 1 for one person",
    )
    for kind, whose in (("--same", "one person"), ("--different", "two people")):
        parser.add_argument(
            kind,
            type=int,
            metavar="N",
            help=f"draw N pairs of {whose} (default: 3000, or as many as there are of both kinds)",
        )
    parser.add_argument(
        "--folds",
        type=int,
        default=10,
        metavar="N",
        help="equal parts of the drawn pairs (default: %(default)s)",
    )
    parser.add_argument("--seed", type=int, default=0, help="draws the pairs (default: %(default)s)")
    parser.add_argument(
        "--align", action="store_true", help="find the face of each photograph and align it, by MTCNN"
    )
    add_processes_argument(parser, "how many align at once, which changes nothing but the time")


def run(args: argparse.Namespace) -> None:
    """Make the set; raise LatseError for bad input."""
    from latse.data.pairs import pair_lists
    from latse.data.pairs.pairs import refuse_pairs, write_pairs

    if Path(args.out).suffix not in (".bin", ".npz"):
        raise LatseError(f"{args.out} ends neither in .bin nor in .npz")
    drawn_by_kind = args.same is not None or args.different is not None
    if drawn_by_kind and (args.pairs is not None or args.list):
        raise LatseError(
            "--same and --different stand in the place of --pairs or --list: give one or the other"
        )
    check_range("--processes", args.processes, 1, 4096)
    refuse_pairs(args.out)
    if args.list:
        chosen = pair_lists.read_pair_list(args.list, args.photos)
        print(f"{args.list} is read as {chosen.read_as}")
    else:
        chosen = pair_lists.draw(args.photos, *_numbers(args), args.folds, args.seed)
    used = sorted({int(number) for number in chosen.pairs.ravel()})
    faces = dict(zip(used, [*_faces([chosen.files[number] for number in used], args)]))
    people = None if chosen.person is None else chosen.person[chosen.pairs]
    encoded = [faces[number] for number in chosen.pairs.ravel().tolist()]
    write_pairs(args.out, encoded, chosen.issame, people)
    same, pairs = int(chosen.issame.sum()), len(chosen.issame)
    print(f"{args.out}: {same} pairs of one person, {pairs - same} of two, {len(used)} photographs")
    if not (args.list or args.pairs or drawn_by_kind) and pairs < 2 * pair_lists.USUAL:
        usual = pair_lists.USUAL
        print(f"the usual {2 * usual}, {usual} of each kind, would need more photographs")


def _numbers(args: argparse.Namespace) -> tuple[int | None, int | None]:
    """Return how many pairs of one person and of two to draw, None for as many as there are."""
    if args.pairs is None:
        return args.same, args.different
    if args.pairs % 2:
        raise LatseError(f"--pairs {args.pairs} is odd: half of the pairs are of one person")
    return args.pairs // 2, args.pairs // 2


def _faces(files: list[Path], args: argparse.Namespace) -> Iterator[bytes]:
    """Iterate the encoded faces of files; raise LatseError at one without a face."""
    from tqdm import tqdm

    from latse.data.images import encode
    from latse.data.photographs.faces import align_files, read_aligned

    bar = tqdm(files, desc="align" if args.align else "read", unit="photo", delay=1)
    if not args.align:
        yield from (read_aligned(file)[0] for file in bar)
        return
    for _, face in zip(bar, align_files(files, args.processes)):
        if isinstance(face, LatseError):
            raise face
        yield encode(face)
