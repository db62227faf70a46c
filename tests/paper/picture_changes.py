"""Changes of a picture that `latse data overlap` sees through, and how well it does.

`python tests/paper/picture_changes.py SET [N]` changes N images of a training set (default: 300), looks for
them in the set, and prints a table: which share is found, and which other pictures are taken for them.
"""

import sys

import cv2
import numpy as np

from latse.data.shards.records import Shard
from latse.eval.verification import distinct_images
from latse.paper import overlap_pictures
from latse.paper.near_pictures import gray
from latse.text_table import markdown

SIDE = 112


def encoded_again(image, quality):
    return cv2.imdecode(cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, quality])[1], 1)


def resized(image, side):
    small = cv2.resize(image, (side, side), interpolation=cv2.INTER_AREA)
    return cv2.resize(small, (SIDE, SIDE), interpolation=cv2.INTER_LINEAR)


def lit(image, contrast, brightness):
    return np.clip((image - 128.0) * contrast + 128 + brightness, 0, 255).astype(np.uint8)


def bent(image, gamma):
    return (255 * (image / 255.0) ** gamma).astype(np.uint8)


def moved(image, angle, scale, shift):
    """Turned by degrees, enlarged, and shifted by pixels, as another alignment does."""
    matrix = cv2.getRotationMatrix2D((55.5, 55.5), angle, scale)
    matrix[:, 2] += shift
    return cv2.warpAffine(image, matrix, (SIDE, SIDE), borderMode=cv2.BORDER_REPLICATE)


def everything(image, draw):
    image = moved(
        image[:, ::-1].copy(), draw.uniform(-4, 4), draw.uniform(0.95, 1.05), draw.uniform(-3, 3, 2)
    )
    image = lit(resized(image, 72), draw.uniform(0.8, 1.2), draw.uniform(-20, 20))
    return encoded_again(bent(image, draw.uniform(0.8, 1.25)), 50)


# Name -> function of an image, uint8 (112, 112, 3), and numpy's generator.
CHANGES = {
    "JPEG of quality 95": lambda image, draw: encoded_again(image, 95),
    "JPEG of quality 50": lambda image, draw: encoded_again(image, 50),
    "JPEG of quality 30": lambda image, draw: encoded_again(image, 30),
    "84 pixels and back": lambda image, draw: resized(image, 84),
    "56 pixels and back": lambda image, draw: resized(image, 56),
    "40 pixels and back": lambda image, draw: resized(image, 40),
    "brightness ±40": lambda image, draw: lit(image, 1, draw.choice([-40, 40])),
    "contrast 0.6 or 1.4": lambda image, draw: lit(image, draw.choice([0.6, 1.4]), 0),
    "gamma 0.6 or 1.6": lambda image, draw: bent(image, draw.choice([0.6, 1.6])),
    "grey": lambda image, draw: np.repeat(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)[..., None], 3, 2),
    "mirrored": lambda image, draw: image[:, ::-1].copy(),
    "shifted by up to 4 pixels each way": lambda image, draw: moved(image, 0, 1, draw.uniform(-4, 4, 2)),
    "turned by up to 4°, 5 % larger or smaller, shifted by 3": lambda image, draw: moved(
        image, draw.uniform(-4, 4), draw.uniform(0.95, 1.05), draw.uniform(-3, 3, 2)
    ),
    "mirrored, moved so, 72 pixels, light, gamma, JPEG 50": everything,
    "turned by 8°, 10 % larger or smaller, shifted by 5": lambda image, draw: moved(
        image, draw.choice([-8, 8]), draw.choice([0.9, 1.1]), draw.uniform(-5, 5, 2)
    ),
}


def changed(image, name):
    """The image, uint8 (3, 112, 112), changed; the same for the same image."""
    draw = np.random.default_rng(int(image.sum()))
    return CHANGES[name](np.ascontiguousarray(image.transpose(1, 2, 0)), draw).transpose(2, 0, 1)


def found_in(shard, images):
    """The (image, position) that are one picture by their look alone."""
    pictures = np.stack([gray(image) for image in images])
    return {(match.image, match.position) for match in overlap_pictures.find(shard, pictures, {}, {})}


def main(folder, count=300):
    shard = Shard(folder)
    positions = np.linspace(0, len(shard) - 1, min(int(count), len(shard))).astype(int)
    images = shard.batch(positions).image
    rows = [["change", "found %", "other pictures"]]
    for name in CHANGES:
        found = found_in(shard, [changed(image, name) for image in images])
        right = {(image, position) for image, position in enumerate(positions)}
        rows.append([name, f"{100 * len(found & right) / len(right):.1f}", str(len(found - right))])
    print(markdown(rows))
    every = shard.batch(np.arange(len(shard))).image
    same = distinct_images(every)[1]
    pairs = {
        (one, other) for one, other in found_in(shard, every) if one < other and same[one] != same[other]
    }
    strangers = sum(shard.labels[one] != shard.labels[other] for one, other in pairs)
    counts = np.bincount(shard.labels)
    print(
        f"{len(pairs)} of {(counts * (counts - 1) // 2).sum()} pairs of two pictures of one person are taken"
    )
    print(f"for one picture, or of two people: {strangers}; {sorted(pairs)}")


if __name__ == "__main__":
    main(*sys.argv[1:])
