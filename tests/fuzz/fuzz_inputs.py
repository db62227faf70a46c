"""Damaged and made-up records, indices and pairs for what reads them; each a function of its seed."""

import io
import json
import pickle
import pickletools
import struct
import tempfile
from pathlib import Path

import cv2
import mxnet as mx
import numpy as np
from mxnet.gluon import nn

from latse.child import in_child
from latse.data.pairs.pairs import read_encoded, read_pairs, write_pairs
from latse.data.shards import verdict_file
from latse.data.shards.check import check_set
from latse.data.shards.recordio import MAGIC
from latse.data.shards.records import Shard
from latse.data.shards.shard_writer import write_shard
from latse.models import checkpoint
from latse.models.embedding import Network
from latse.plan import memonger
from latse.symbols.encoders import Encoder
from latse.symbols.layers import PReLU, batch_norm
from latse.symbols.networks import trace
from latse.train import state

SIZE = (8, 8)
NUMBERS = [
    0,
    1,
    2,
    3,
    7,
    8,
    24,
    127,
    128,
    255,
    256,
    0x7FFF,
    0xFFFF,
    2**24,
    2**29 - 1,
    2**29,
    2**31 - 1,
    2**31,
]
NUMBERS += [2**32 - 1, 2**32, 2**53, 2**63 - 1, 2**63, 2**64 - 1, MAGIC]


def picture(number, size=SIZE, ending=".jpg"):
    pixels = np.random.default_rng(number).integers(0, 256, (2, 2, 3), dtype=np.uint8)
    return cv2.imencode(ending, cv2.resize(pixels, size))[1].tobytes()


# Mutations of bytes: each takes (random, data, another seed's data) and returns bytes.


def flip_bits(random, data, _other):
    data = bytearray(data)
    for _ in range(random.choice((1, 1, 2, 8, 64)) if data else 0):
        data[random.randrange(len(data))] ^= 1 << random.randrange(8)
    return bytes(data)


def set_bytes(random, data, _other):
    data = bytearray(data)
    for _ in range(random.choice((1, 1, 2, 8)) if data else 0):
        data[random.randrange(len(data))] = random.choice((0, 1, 0x7F, 0x80, 0xFF, random.randrange(256)))
    return bytes(data)


def set_number(random, data, _other):
    """A length, position or count of 2, 4 or 8 bytes, at a multiple of 4 or anywhere."""
    width, step = random.choice((2, 4, 4, 4, 8)), random.choice((1, 4))
    at = random.randrange(len(data) // step + 1) * step
    number = random.choice((random.choice(NUMBERS), len(data), random.randrange(1024))) + random.choice(
        (-1, 0, 0, 1)
    )
    field = (number % 2 ** (8 * width)).to_bytes(width, random.choice(("little", "little", "big")))
    return data[:at] + field + data[at + width :]


def set_float(random, data, _other):
    at = random.randrange(len(data) // 4 + 1) * 4
    number = random.choice((0.0, -1.0, 1.5, 3.0, 1e30, float("nan"), float("inf"), float("-inf"), 2.0**24))
    return data[:at] + struct.pack("<f", number) + data[at + 4 :]


def cut_off(random, data, _other):
    return data[: random.randrange(len(data) + 1)]


def cut_out(random, data, _other):
    start = random.randrange(len(data) + 1)
    return data[:start] + data[start + random.choice((1, 4, random.randrange(200))) :]


def double(random, data, _other):
    start = random.randrange(len(data) + 1)
    part = data[start : start + random.choice((1, 4, random.randrange(1, 200)))]
    return data[:start] + part * random.choice((1, 2, 10, 300)) + data[start:]


def splice(random, data, other):
    start = random.randrange(len(other) + 1)
    part = other[start : start + random.randrange(1, 300)]
    at = random.randrange(len(data) + 1)
    return data[:at] + part + data[at + random.choice((0, len(part))) :]


def join(random, data, other):
    return data[: random.randrange(len(data) + 1)] + other[random.randrange(len(other) + 1) :]


def edit_lines(random, data, _other):
    """Repeat, drop, swap or renumber lines of text."""
    lines = data.split(b"\n")
    at, to = random.randrange(len(lines)), random.randrange(len(lines))
    what = random.randrange(4)
    if what == 0:
        lines.insert(to, lines[at])
    elif what == 1:
        del lines[at]
    elif what == 2:
        lines[at], lines[to] = lines[to], lines[at]
    else:
        fields = lines[at].split(random.choice((b"\t", b",")))
        words = [b"-1", b"", b"nan", b"1e5", b"0x10", b"1_0", b"\xd9\xa1", b"9" * 25, b"+1", b" 1", b"00"]
        words += [str(number).encode() for number in NUMBERS]
        fields[random.randrange(len(fields))] = random.choice(words)
        lines[at] = b"\t".join(fields)
    return b"\n".join(lines)


MUTATIONS = [flip_bits, set_bytes, set_number, set_number, set_float, cut_off, cut_out, double, splice, join]


def mutate(random, data, other, mutations):
    for _ in range(random.choice((1, 1, 1, 2, 3, 6))):
        data = random.choice(mutations)(random, data, other)
        data = data[:100_000]
    return data


# Pickles made of instructions.

NAMES = [
    "numpy.core.multiarray _reconstruct",
    "numpy.core.multiarray scalar",
    "numpy.core.numeric _frombuffer",
]
NAMES += [
    "numpy ndarray",
    "numpy dtype",
    "_codecs encode",
    "builtins bytes",
    "builtins bytearray",
    "os system",
]
NAMES += ["__builtin__ bytes", "numpy._core.multiarray scalar", "builtins getattr", "copyreg _reconstructor"]
WORDS = [
    b"u1",
    b"i1",
    b"b1",
    b"O",
    b"O8",
    b"f8",
    b"latin1",
    b"latin-1",
    b"C",
    b"",
    b"\xff\xd8\xff",
    b"\xc3\xa9",
    b"|",
    b">",
    b"i8",
]


def made_pickle(random):
    """Mostly sensible sequences: values, collections of what is there, and calls of what may be called."""
    steps = [_value, _value, _value, _collection, _collection, _memo, _call, _array, _anything]
    parts = [random.choice((b"", b"\x80\x02", b"\x80\x04", b"\x80\x05"))]
    parts += [random.choice(steps)(random) for _ in range(random.randrange(1, 30))]
    ends = (b".", b".", b"l.", b"t.", b"\x86.", b"]\x88\x88\x86.", b"")
    return b"".join([*parts, random.choice(ends)])


def _text(random):
    return _sized(random, random.choice((b"X", b"\x8c", b"\x8d")), random.choice(WORDS))


def _sized(random, code, data):
    width = {b"X": 4, b"\x8c": 1, b"\x8d": 8, b"U": 1, b"T": 4, b"B": 4, b"C": 1, b"\x8e": 8, b"\x96": 8}[
        code
    ]
    length = random.choice(NUMBERS) if random.random() < 0.05 else len(data)
    return code + (length % 2 ** (8 * width)).to_bytes(width, "little") + data


def _value(random):
    data = random.choice((*WORDS, b"x" * random.randrange(300)))[:255]
    return random.choice(
        (
            _text(random),
            _sized(random, random.choice((b"U", b"T", b"B", b"C", b"\x8e", b"\x96")), data),
            b"\x88",
            b"\x89",
            b"N",
            b"]",
            b")",
            b"(",
            b"I%d\n" % random.choice(NUMBERS),
            b"L%dL\n" % -random.choice(NUMBERS),
            b"I0%d\n" % random.randrange(3),
            random.choice((b"F1.0\n", b"Fnan\n", b"F1e\n", b"G" + struct.pack(">d", random.choice(NUMBERS)))),
            b"K" + bytes([random.randrange(256)]),
            b"\x8a" + bytes([random.randrange(12)]) + bytes(random.randrange(256) for _ in range(8)),
            b"S%r\n" % data.decode("latin1")
            if random.random() < 0.5
            else b"V" + data.replace(b"\n", b"") + b"\n",
        )
        if random.random() < 0.9
        else (_anything(random),)
    )


def _collection(random):
    return random.choice((b"l", b"t", b"e", b"a", b"\x85", b"\x86", b"\x87", b"(" + _value(random) + b"t"))


def _memo(random):
    key = random.randrange(4)
    return random.choice(
        (b"\x94", b"q%c" % key, b"h%c" % key, b"h%c" % key, b"p%d\n" % key, b"g%d\n" % key, b"b")
    )


def _call(random):
    module, name = random.choice(NAMES).split()
    asked = f"c{module}\n{name}\n".encode()
    arguments = b"".join(_value(random) for _ in range(random.randrange(4)))
    return asked + b"(" + arguments + b"t" + random.choice((b"R", b"R", b"R", b"b", b"\x81", b"o"))


def _array(random):
    data = bytes(random.randrange(256) for _ in range(random.randrange(8)))
    shape = random.choice((len(data), len(data), len(data), random.choice(NUMBERS), -1))
    dtype = b"cnumpy\ndtype\n" + _sized(random, b"U", random.choice(WORDS[:6])) + b"K\0K\1\x87R"
    dtype += random.choice((b"", b"(K\3" + _sized(random, b"U", random.choice((b"<", b">", b"|"))) + b"tb"))
    state = b"(K\1I%d\n\x85" % shape + dtype + b"\x89" + _sized(random, b"U", data) + b"t"
    return b"cnumpy.core.multiarray\n_reconstruct\n(cnumpy\nndarray\nK\0\x85U\1btR" + state + b"b"


def _anything(random):
    opcode = random.choice(pickletools.opcodes)
    return opcode.code.encode("latin1") + bytes(random.randrange(256) for _ in range(random.randrange(10)))


# Targets: each has seeds, writes an input into a folder, and reads it.


class Records:
    """Sets of records, of which one file is damaged: the .rec, the .idx or `property`."""

    def __init__(self):
        with tempfile.TemporaryDirectory() as folder:
            self.seeds = [self._made(Path(folder, kind), kind) for kind in ("insightface", "shards", "plain")]

    def _made(self, folder, kind):
        folder.mkdir()
        images = [
            (label, picture(n, ending=".png" if n % 3 else ".jpg"))
            for n, label in enumerate((0, 0, 1, 1, 1, 2))
        ]
        if kind == "plain":
            self._write_plain(folder, images)
        else:
            write_shard(folder, images, 3, SIZE, shards=2 if kind == "shards" else 1)
        return {file.name: file.read_bytes() for file in sorted(folder.iterdir())}

    def _write_plain(self, folder, images):
        """No header record; labels of several numbers; images with the magic number in them."""
        output = mx.recordio.MXIndexedRecordIO(str(folder / "train.idx"), str(folder / "train.rec"), "w")
        for number, (label, content) in enumerate(images):
            header = mx.recordio.IRHeader(0, [label, 5.0] if number % 2 else float(label), number, 0)
            split = content + b"\0" * (-len(content) % 4) + struct.pack("<I", MAGIC) * (number % 3)
            output.write_idx(number, mx.recordio.pack(header, split))
        output.close()
        (folder / "property").write_text("3,8,8\n")

    def write(self, random, folder):
        seed, other = random.choice(self.seeds), random.choice(self.seeds)
        damaged = random.choice([*seed, *2 * [name for name in seed if name != "property"]])
        mutations = MUTATIONS if damaged.endswith(".rec") else [*MUTATIONS, *[edit_lines] * 10]
        for file in folder.iterdir():
            if file.name not in seed:
                file.unlink()
        for name, data in seed.items():
            if name == damaged:
                data = mutate(random, data, other.get(name, data), mutations)  # noqa: PLW2901
                if (
                    name.endswith(".rec") and random.random() < 0.7
                ):  # else its size alone tells of most damage
                    data += b"\0" * (-len(data) % 4)  # noqa: PLW2901
            (folder / name).write_bytes(data)

    def read(self, folder):
        shard = Shard(folder)
        shard.digest()
        for position in range(min(len(shard), 8)):
            shard.content(position)
        shard.read(0)
        shard.read(len(shard) - 1)


class Checked(Records):
    """The same sets before `check`, which refuses nothing that has a record file."""

    def read(self, folder):
        check_set(folder)


class PairFiles:
    """Files of pairs: pickles of Python 2 and 3 and .npz, damaged, and pickles made of instructions."""

    def __init__(self):
        images = [picture(number, (112, 112)) for number in range(4)]
        flags = [True, False]
        arrays = [np.frombuffer(image, np.uint8) for image in images]
        contents = [
            (images, flags),
            (arrays, np.array(flags)),
            (np.array(images, object), tuple(np.array(flags))),
            (images, np.array(flags, ">i8")),
            (images, list(np.array(flags, np.float32))),
            (images, [1.0, 0]),
        ]
        self.seeds = [pickle.dumps(content, protocol) for content in contents for protocol in range(6)]
        self.seeds += [
            pickle.dumps(([image[:60] for image in images], flags), protocol) for protocol in range(6)
        ]
        # As Python 2's pickle of a list of str.
        strings = b"".join(b"T" + struct.pack("<i", len(image)) + image for image in images[:2])
        self.seeds.append(b"\x80\x02](" + strings + b"e]\x88a\x86.")
        with tempfile.TemporaryDirectory() as folder:
            write_pairs(Path(folder, "a.npz"), images, flags)
            self.plain = [Path(folder, "a.npz").read_bytes()]
            write_pairs(Path(folder, "b.npz"), [image[:60] for image in images], flags)
            self.plain.append(Path(folder, "b.npz").read_bytes())

    def write(self, random, folder):
        kind = random.randrange(5)
        if kind < 2:
            content = mutate(
                random, random.choice(self.seeds), random.choice(self.seeds), [*MUTATIONS, edit_lines]
            )
        elif kind < 3:
            content = mutate(random, random.choice(self.plain), random.choice(self.plain), MUTATIONS)
            if random.random() < 0.5:
                content = with_checksums(content)
        else:
            content = made_pickle(random)
        (folder / "a.bin").write_bytes(content)

    def read(self, folder):
        content = read_encoded(folder / "a.bin")
        if len(content.pairs) < 8:
            read_pairs(folder / "a.bin")


def with_checksums(content):
    """Put right the checksums of a zip file, so that damage gets past them."""
    import zipfile
    import zlib

    data = bytearray(content)
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            members = [(member.header_offset, member.file_size, member.CRC) for member in archive.infolist()]
    except Exception:
        return content  # too damaged to be put right
    for offset, size, checksum in members:
        lengths = data[offset + 26 : offset + 30]
        if len(lengths) == 4 and size < len(data):
            start = offset + 30 + sum(struct.unpack("<HH", lengths))
            right = struct.pack("<I", zlib.crc32(bytes(data[start : start + size])))
            data = data.replace(struct.pack("<I", checksum), right)
    return bytes(data)


def made_checkpoint(folder):
    """Write a small checkpoint, a state of a run and a plan, as they are trained and written."""

    class Small(Encoder):
        def features(self):
            body = nn.HybridSequential(prefix="")
            body.add(nn.Conv2D(2, 16, 16, prefix="conv_"), batch_norm("bn_"), PReLU(2, "relu_"))
            return body

    symbol = trace(Small())
    shapes, _, aux = symbol.infer_shape(data=(1, 3, 112, 112))
    names = dict(zip(symbol.list_arguments(), shapes))
    args = {name: mx.nd.ones(shape) for name, shape in names.items() if name != "data"}
    auxiliary = {name: mx.nd.ones(shape) for name, shape in zip(symbol.list_auxiliary_states(), aux)}
    checkpoint.save(folder / "model", 0, symbol, args, auxiliary)
    state.save(folder, state.RunState(7, args, auxiliary, args))
    plan = memonger.plan(symbol, {"data": (1, 3, 112, 112)}, mx.cpu())
    memonger.write_plan(folder / "plan.json", plan, {"command": "latse plan"})


class Checkpoints:
    """A checkpoint, a state and a memory plan, of which one file is damaged."""

    def __init__(self):
        with tempfile.TemporaryDirectory() as folder:
            in_child("a checkpoint", made_checkpoint, Path(folder))
            self.seed = {file.name: file.read_bytes() for file in sorted(Path(folder).iterdir())}

    def write(self, random, folder):
        damaged = random.choice([*self.seed])
        for name, data in self.seed.items():
            if name == damaged and name.endswith(".json") and random.random() < 0.7:
                data = edited_json(random, data)  # noqa: PLW2901
            elif name == damaged:
                data = mutate(random, data, data, MUTATIONS)  # noqa: PLW2901
            (folder / name).write_bytes(data)

    def read(self, folder):
        state.load(folder)
        symbol, _, _ = checkpoint.load(folder / "model", 0)
        Network(folder / "model", 0, "fc1_output", [mx.cpu()], 1)(np.zeros((1, 3, 112, 112), np.uint8))
        memonger.read_plan(folder / "plan.json", symbol)


def edited_json(random, data):
    """Change some values of a JSON file to others, of the same kind or not."""
    content = json.loads(data)
    for _ in range(random.choice((1, 1, 2, 4))):
        place = content
        while True:
            keys = [*place] if isinstance(place, dict) else [*range(len(place))]
            if not keys:
                break
            key = random.choice(keys)
            if isinstance(place[key], (dict, list)) and place[key] and random.random() < 0.95:
                place = place[key]
                continue
            place[key] = random.choice(
                (
                    random.choice((-1, 0, 1, 2, 3, 7, 2**31, 2**63, 1e300, None, True, [], {})),
                    random.choice(
                        ("", "0", "-1", "(0, 0)", "(-1, -1)", "9" * 30, "nan", "None", "null", "data")
                    ),
                    random.choice(("Custom", "BatchNorm", "Concat", "split", "_copy", "Pooling", "Reshape")),
                )
            )
            break
    return json.dumps(content).encode()


def made_verdicts(path, binding):
    """Write verdicts on five images."""
    file = verdict_file.VerdictWriter(path, binding, (1, 3), 5)
    file.put(np.arange(5), np.zeros((5, 2), np.int64))
    file.finish()


class VerdictFiles:
    """Files of verdicts, damaged; the digest at the end is put right in some."""

    def __init__(self):
        with tempfile.TemporaryDirectory() as folder:
            path, binding = Path(folder, "a.keep"), dict.fromkeys(verdict_file.BINDING, "00" * 16)
            in_child("verdicts", made_verdicts, path, binding)
            self.seed = path.read_bytes()

    def write(self, random, folder):
        data = mutate(random, self.seed[: -verdict_file.DIGEST], self.seed, [*MUTATIONS, edit_lines])
        data += verdict_file._digest(data) if random.random() < 0.7 else self.seed[-verdict_file.DIGEST :]
        (folder / "a.keep").write_bytes(data)

    def read(self, folder):
        verdicts = verdict_file.read(folder / "a.keep")
        verdicts.check(1)
        verdicts.keeps(1, np.arange(5), np.zeros(5, bool))


TARGETS = {
    "records": Records,
    "check": Checked,
    "pairs": PairFiles,
    "checkpoints": Checkpoints,
    "verdicts": VerdictFiles,
}
