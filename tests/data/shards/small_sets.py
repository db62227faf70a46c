"""Small made-up sets whose pictures tell their numbers."""

import cv2
import numpy as np

from latse.data.shards.shard_writer import write_shard

SIZE = (8, 6)


def picture(number, size=SIZE):
    """A PNG that tells its number."""
    pixels = np.random.default_rng(number).integers(0, 256, (*size, 3), dtype=np.uint8)
    return cv2.imencode(".png", pixels)[1].tobytes()


def write_people(folder, images_of_people, first=0, shards=1, size=SIZE):
    """A set with so many images of each person; the pictures are numbered from `first`."""
    labels = [person for person, images in enumerate(images_of_people) for _ in range(images)]
    images = [(label, picture(first + number, size)) for number, label in enumerate(labels)]
    write_shard(folder, images, len(images_of_people), size, shards)
    return folder
