"""The command `latse data pairs`."""

from __future__ import annotations

import argparse
from pathlib import Path

from latse.errors import LatseError

SUMMARY = "make a verification set (.bin or .npz) of photographs"
DESCRIPTION = (
    "Make a verification set of PHOTOS, a folder with a folder for each person: as many pairs of one person "
    "as of two, drawn by --seed, or the pairs of a list as LFW's (--list). The photographs are aligned "
    "JPEG or PNG faces of 112x112 pixels, taken over as they are, or any photographs with --align. Files "
    "that are no images are passed over. OUT is insightface's .bin, or the plain format if it ends "
    "in .npz; FILE.people.npy beside it says who is on each image. The same input gives the same bytes. No "
    "file is replaced."
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument("photos", metavar="PHOTOS", help="folder with a folder for each person")
    parser.add_argument("out", metavar="OUT", help="the file to write, FILE.bin or FILE.npz")
    what = parser.add_mutually_exclusive_group()
    what.add_argument(
        "--pairs",
        type=int,
        default=6000,
        metavar="N",
        help="draw N pairs, half of each kind (default: %(default)s)",
    )
    what.add_argument(
        "--list",
        metavar="FILE",
        help="take the pairs of a list as LFW's pairs.txt: '10 300' or 'N', then lines 'NAME N M' of one "
        "person and 'NAME N OTHER M' of two; photographs are PHOTOS/NAME/NAME_0001.jpg, or of another ending",
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


def run(args: argparse.Namespace) -> None:
    """Make the set; raise LatseError for bad input."""
    from latse.data.pairs import pair_lists
    from latse.data.pairs.pairs import refuse_pairs, write_pairs, write_people

    if Path(args.out).suffix not in (".bin", ".npz"):
        raise LatseError(f"{args.out} ends neither in .bin nor in .npz")
    refuse_pairs(args.out)
    if args.list:
        chosen = pair_lists.read_pair_list(args.list, args.photos)
    else:
        chosen = pair_lists.draw(args.photos, args.pairs, args.folds, args.seed)
    used = sorted({int(number) for number in chosen.pairs.ravel()})
    faces = dict(zip(used, _faces([chosen.files[number] for number in used], args.align)))
    write_people(args.out, chosen.person[chosen.pairs])  # first: where there are pairs, they are whole
    write_pairs(args.out, [faces[number] for number in chosen.pairs.ravel().tolist()], chosen.issame)
    same = int(chosen.issame.sum())
    print(
        f"{args.out}: {same} pairs of one person, {len(chosen.issame) - same} of two, {len(used)} photographs"
    )


def _faces(files: list[Path], align: bool) -> list[bytes]:
    from tqdm import tqdm

    from latse.data.images import encode
    from latse.data.photographs.align import Aligner

    aligner = Aligner() if align else None
    bar = tqdm(files, desc="align" if align else "read", unit="photo", delay=1)
    return [encode(aligner.align_file(file)) if aligner else _as_it_is(file) for file in bar]


def _as_it_is(file: Path) -> bytes:
    from latse.data.images import decode
    from latse.data.pairs.pairs import SIZE
    from latse.data.photographs.align import naming, read_photograph

    with naming(file):
        content = read_photograph(file)
    try:
        decode(content, str(file), SIZE)
    except LatseError as error:
        raise LatseError(f"{error}: without --align, only aligned JPEG or PNG faces are taken") from error
    return content
