"""A trial of `latse data overlap` with known answers, made of any training set.

`python tests/paper/overlap_trial.py make SET OUT` takes the first two thirds of the people of SET for
OUT/train, but for the last two images of each. The pairs have the last two thirds: OUT/people.bin two images
of each, which are not in OUT/train; OUT/pictures.bin two others, changed. The middle third is in both.
`python tests/paper/overlap_trial.py score OUT REPORT.json` compares the report with the truth.
"""

import json
import sys
from pathlib import Path

import numpy as np
from picture_changes import CHANGES, changed

from latse.data.images import encode
from latse.data.pairs.pairs import write_pairs
from latse.data.shards.records import Shard
from latse.data.shards.shard_writer import write_shard
from latse.files import read_json, write_json

HELD_OUT = 2
TRIED = list(CHANGES)[:-1]


def make(folder, out):
    shard, out = Shard(folder), Path(out)
    people = np.unique(shard.labels)
    images = {person: np.flatnonzero(shard.labels == person) for person in people.tolist()}
    ends = len(people) // 3, len(people) // 3 * 2
    known = [(person, at) for person in people[: ends[1]].tolist() for at in images[person][:-HELD_OUT]]
    write_shard(out / "train", [(person, shard.content(at)) for person, at in known], shard.classes)
    tested = people[ends[0] :].tolist()
    truth = {"shared": people[ends[0] : ends[1]].tolist(), "changes": {}}
    held, again = {}, {}
    for number, person in enumerate(tested):
        held[person] = [shard.content(at).tobytes() for at in images[person][-HELD_OUT:]]
        again[person] = []
        for place, at in enumerate(images[person][:2]):
            name = TRIED[(2 * number + place) % len(TRIED)]
            picture = changed(shard.batch(np.array([at])).image[0], name)
            again[person].append(encode(picture.transpose(1, 2, 0)))
            if person in truth["shared"]:
                truth["changes"][str(4 * number + place)] = {
                    "name": name,
                    "position": known.index((person, at)),
                }
    for name, content in (("people", held), ("pictures", again)):
        one = [(image, person) for person in tested for image in content[person]]
        encoded, who, same = [], [], []
        for at in range(0, len(one), 2):  # images 2·at of the pairs are `one[at]`, 4 for each person
            pair = [one[at], one[at + 1], one[at], one[(at + 2) % len(one)]]
            encoded += [image for image, _ in pair]
            who += [person for _, person in pair]
            same += [True, False]
        write_pairs(out / f"{name}.bin", encoded, same, np.array(who))
    write_json(out / "truth.json", truth)


def score(out, report):
    truth, report = read_json(Path(out) / "truth.json"), read_json(report)
    records, shared = Shard(Path(out) / "train").records, {*truth["shared"]}
    for counts in report["sets"]:
        ours = [found for found in report["findings"] if found["pairs"] == counts["path"]]
        people = {(found["person"], found["label"]) for found in ours if found["kind"] == "person"}
        right = shared & {person for person, label in people if person == label}
        wrong = sum(
            found["matching"]
            for found in ours
            if found["kind"] == "person" and found["person"] != found["label"]
        )
        chance = f"{counts['matches_by_chance']:.1f} expected by chance"
        print(f"{counts['path']}: {len(right)} of {len(shared)} people; {wrong} matches of others, {chance}")
        pictures = [found for found in ours if found["kind"] != "person"]
        others = sum(found["person"] != found["label"] for found in pictures)
        print(f"  {len(pictures)} pictures, {others} of them of another person")
        if Path(counts["path"]).stem == "pictures":
            found = {(image, one["record"]) for one in pictures for image in one["images"]}
            missed = [
                change["name"]
                for image, change in truth["changes"].items()
                if (int(image), records[change["position"]]) not in found
            ]
            print(f"  {len(missed)} of {len(truth['changes'])} changed pictures missed: {missed}")
    print(json.dumps(report["threshold"]))


if __name__ == "__main__":
    {"make": make, "score": score}[sys.argv[1]](*sys.argv[2:])
