"""What JPEG and PNG say of themselves is what OpenCV finds, and a lie costs nothing."""

import os
import subprocess
import sys

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from latse.data.images import AS_STORED, announced, is_cut_off, noting_damage


def encoded(ending, height, width, channels=3, dtype=np.uint8):
    shape = (height, width) if channels == 1 else (height, width, channels)
    return cv2.imencode(ending, np.random.default_rng(0).integers(0, 255, shape).astype(dtype))[1].tobytes()


@given(st.integers(1, 300), st.integers(1, 300))
def test_sizes_are_those_of_the_image(height, width):
    for ending in (".jpg", ".png"):
        found = announced(encoded(ending, height, width))
        assert (found.height, found.width, found.is_png) == (height, width, ending == ".png")


@pytest.mark.parametrize(
    "arguments, bits, kind",
    [
        ((".jpg", 5, 6), 8, 3),
        ((".jpg", 5, 6, 1), 8, 1),
        ((".png", 5, 6), 8, 2),
        ((".png", 5, 6, 1), 8, 0),
        ((".png", 5, 6, 4), 8, 6),
        ((".png", 5, 6, 3, np.uint16), 16, 2),
    ],
)
def test_bits_and_kind(arguments, bits, kind):
    found = announced(encoded(*arguments))
    assert (found.bits, found.kind) == (bits, kind)


def test_a_frame_that_ends_the_bytes_is_read_and_a_shorter_one_is_not():
    frame = b"\xff\xd8" + b"\xff\xc0\x00\x11\x08\x00\x07\x00\x05\x03"
    assert announced(frame) == (False, 7, 5, 8, 3)
    assert announced(frame[:-1]) is None


@pytest.mark.parametrize(
    "before",
    [
        b"\xff",  # a fill byte
        b"\xff\x01",  # a marker without a length
        b"\xff\xe0\x00\x0c\xff\xc0\x00\x11\x08\x00\x01\x00\x01\x03",  # data that look like a frame
        b"\xff\xe0\x00\x03\xff\xc0\x00\x11\x08\x00\x01\x00\x01\x03",  # so does the end of these
    ],
)
def test_what_stands_before_the_frame_is_stepped_over(before):
    frame = b"\xff\xc0\x00\x11\x08\x00\x07\x00\x05\x03"
    assert announced(b"\xff\xd8" + before + frame) == (False, 7, 5, 8, 3)


@given(st.binary(max_size=60), st.sampled_from([b"", b"\xff\xd8", b"\xff\xd8\xff\xc0", b"\x89PNG\r\n\x1a\n"]))
def test_any_bytes_have_an_answer(data, start):
    found = announced(start + data)
    assert found is None or found.height >= 0
    assert is_cut_off(start + data) in (True, False)


@pytest.mark.parametrize("ending", [".jpg", ".png"])
def test_only_a_png_that_ends_too_early_is_cut_off(ending):
    whole = encoded(ending, 20, 20)
    assert not is_cut_off(whole)
    assert is_cut_off(whole[:-20]) == (ending == ".png")


def test_damage_is_noted_of_the_image_that_has_it(capfd):
    whole = encoded(".jpg", 40, 40)
    damaged = whole[: len(whole) // 2] + bytes(60) + whole[len(whole) // 2 + 60 :]
    with noting_damage() as decode:
        found = [decode(content, AS_STORED) for content in (whole, damaged, whole, b"none")]
    assert [image is None for image, _ in found] == [False, False, False, True]
    assert [bool(damage) for _, damage in found] == [False, True, False, False]
    os.write(2, b"stderr is as it was")
    assert capfd.readouterr().err == "stderr is as it was"


def test_a_png_that_ends_before_its_pixels_is_cut_off():
    whole = encoded(".png", 20, 20)
    pixels, end = whole.index(b"IDAT") - 4, whole.index(b"IEND") - 4
    assert is_cut_off(whole[:pixels] + whole[end:] + whole[pixels:])
    assert not is_cut_off(whole + b"what follows the end")


CLAIM = """
import sys
import numpy as np
from latse.bench.protocol import resident
from latse.data.images import decode
from latse.errors import LatseError
data = sys.stdin.buffer.read()
before = resident("VmHWM")  # ru_maxrss begins at what the parent process held
try:
    decode(data, "it", (112, 112))
except LatseError as error:
    print(error)
print(int(resident("VmHWM") - before))
"""


def test_a_chunk_that_claims_gigabytes_costs_nothing():
    whole = encoded(".png", 112, 112)
    at = whole.index(b"IDAT") - 4
    lie = whole[:at] + (0x7FFFFFFF).to_bytes(4, "big") + whole[at + 4 :]
    done = subprocess.run([sys.executable, "-c", CLAIM], input=lie, capture_output=True, check=True)
    sentence, mebibytes = done.stdout.decode().splitlines()
    assert sentence == "it is not an image that can be decoded"
    assert int(mebibytes) < 50
