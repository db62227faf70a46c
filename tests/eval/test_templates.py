"""Templates on a made-up set in the format of IJB-B and IJB-C, against the protocol written down in loops."""

import json
import math

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from latse.cli import main
from latse.errors import LatseError
from latse.eval import template_lists
from latse.eval.roc import FAR_TARGETS
from latse.eval.template_lists import Faces, Subjects, TemplatePairs
from latse.eval.templates import (
    FPIR_TARGETS,
    Templates,
    identify_templates,
    pool,
    verify_templates,
)

SUBJECTS, DIMENSIONS = 8, 16
SHIFT = np.float32([20, 9])  # of the face in each photograph
# Where insightface puts the eyes, the nose and the mouth's corners.
POINTS = [[38.2946, 51.6963], [73.5318, 51.5014], [56.0252, 71.7366], [41.5493, 92.3655], [70.7299, 92.2041]]


def gallery_name(subject):
    return "G1" if subject % 2 else "G2"


def people_of(rng):
    """Rows (template, media, subject, kind): templates out of order, media with several images."""
    rows = []
    for subject in range(SUBJECTS):
        for number in range(4):
            template = 900 - 7 * (4 * subject + number)
            for media in range(1 + (subject + number) % 3):
                rows += [(template, 50 + media, subject, number)] * (1 + int(rng.integers(0, 3)))
    return rows


def write_lists(folder, rows, scores, prefix="ijbc"):
    """Write the lists; of a subject's templates the first is in a gallery, the next two are probes."""
    meta = folder / "meta"
    meta.mkdir(parents=True)
    points = " ".join(f"{value:.4f}" for value in (POINTS + SHIFT).ravel())
    names = [f"{number + 1}.png" for number in range(len(rows))]
    lines = [f"{name} {points} {score:.6f}" for name, score in zip(names, scores)]
    (meta / f"{prefix}_name_5pts_score.txt").write_text("\n".join(lines) + "\n")
    lines = [f"{name} {template} {media}" for name, (template, media, *_) in zip(names, rows)]
    (meta / f"{prefix}_face_tid_mid.txt").write_text("\n".join(lines) + "\n")
    subject_of = {template: subject for template, _, subject, _ in rows}
    numbers = sorted(subject_of)
    pairs = [(a, b, int(subject_of[a] == subject_of[b])) for a in numbers for b in numbers if a < b]
    (meta / f"{prefix}_template_pair_label.txt").write_text("".join(f"{a} {b} {c}\n" for a, b, c in pairs))
    lists = {"gallery_G1": [], "gallery_G2": [], "probe_mixed": []}
    for template, media, subject, kind in rows:
        where = {0: f"gallery_{gallery_name(subject)}", 1: "probe_mixed", 2: "probe_mixed"}.get(kind)
        if where:
            lists[where].append(f"{template},{1000 + subject},img/{template}.jpg,{media}")
    for name, lines in lists.items():
        (meta / f"{prefix}_1N_{name}.csv").write_text(
            "\n".join(["TEMPLATE_ID,SUBJECT_ID,FILE,MEDIA", *lines])
        )
    return subject_of, pairs


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A set with features of its faces; some of them are bad and have a low detector's score."""
    rng = np.random.default_rng(5)
    folder, rows = tmp_path_factory.mktemp("ijbc"), people_of(rng)
    centres = rng.normal(size=(SUBJECTS, DIMENSIONS))
    scores = np.round(rng.uniform(0.3, 1, len(rows)), 6)
    features = np.array([centres[row[2]] for row in rows]) + rng.normal(size=(len(rows), DIMENSIONS))
    features[scores < 0.4] = 3 * rng.normal(size=(int((scores < 0.4).sum()), DIMENSIONS))
    subject_of, pairs = write_lists(folder, rows, scores)
    np.save(folder / "features-ijbc.npy", features.astype(np.float32))
    return folder, rows, scores, features.astype(np.float32).astype(np.float64), subject_of, pairs


def pooled_in_loops(rows, features, scores):
    """Template -> unit feature, as the protocol says: images, media, template."""
    pooled = {}
    for template in {row[0] for row in rows}:
        total = np.zeros(features.shape[1])
        for media in {row[1] for row in rows if row[0] == template}:
            mine = [i for i, row in enumerate(rows) if row[:2] == (template, media)]
            total += sum(features[i] * np.float64(np.float32(scores[i])) for i in mine) / len(mine)
        pooled[template] = total / np.linalg.norm(total)
    return pooled


def tar_in_loops(wanted, unwanted, rate):
    """The best share of `wanted` above any threshold that at most `rate` of `unwanted` are above."""
    best = 0.0
    for threshold in [-2, *unwanted]:
        if sum(score > threshold for score in unwanted) <= rate * len(unwanted) + 1e-9:
            best = max(best, sum(score > threshold for score in wanted) / len(wanted))
    return best


def judge(folder, *arguments):
    path = folder / "templates.json"
    assert main(["templates", "--data", str(folder), "--json", str(path), *map(str, arguments)]) == 0
    return json.loads(path.read_text())


@pytest.fixture(scope="module")
def report(made):
    return judge(made[0], "--model", f"mine={made[0]}/features-{{set}}.npy")


def test_the_report_says_what_and_whence(made, report):
    assert (report["kind"], report["set"]) == ("templates", "ijbc")
    assert report["provenance"]["command"].startswith("latse templates ")
    assert list(report["models"]) == ["mine"]
    assert report["models"]["mine"]["origin"]["source"].endswith("features-{set}.npy")


def test_pairs_of_templates_by_loops(made, report):
    _, rows, scores, features, _, pairs = made
    pooled = pooled_in_loops(rows, features, scores)
    score = np.array([pooled[a] @ pooled[b] for a, b, _ in pairs])
    same = np.array([label == 1 for *_, label in pairs])
    mine = report["models"]["mine"]
    different = score[~same]
    for far in FAR_TARGETS:
        assert mine["tar_at_far"][str(far)] == tar_in_loops(score[same], different, far)
    assert mine["unresolved_far"] == [str(far) for far in FAR_TARGETS if far * len(different) < 1]
    assert 0.2 < mine["tar_at_far"]["0.01"] < 1  # the task is neither trivial nor hopeless


def test_insightfaces_rule_takes_the_nearest_rate_of_the_curve(made, report):
    """All thresholds, less those in the middle of a straight piece, which scikit-learn's curve leaves out."""
    _, rows, scores, features, _, pairs = made
    pooled = pooled_in_loops(rows, features, scores)
    score = np.array([pooled[a] @ pooled[b] for a, b, _ in pairs])
    same = np.array([label == 1 for *_, label in pairs])
    points = [(0.0, 0.0)]
    for threshold in np.sort(score)[::-1]:
        points.append((np.mean(score[~same] >= threshold), np.mean(score[same] >= threshold)))
    far, tar = np.array(points).T
    bends = np.abs(np.diff(far, 2)) + np.abs(np.diff(tar, 2)) > 1e-12
    keep = np.r_[True, bends, True]
    far, tar = far[keep][::-1], tar[keep][::-1]
    for target in FAR_TARGETS:
        nearest = np.abs(far - target).argmin()
        assert report["models"]["mine"]["tar_at_nearest_far"][str(target)] == pytest.approx(tar[nearest])


def searched_in_loops(pooled, gallery, probes):
    """Of each probe: the mate's score or None, its rank, all other scores."""
    found = []
    for template, subject in probes.items():
        scores = {entry: pooled[template] @ pooled[entry] for entry in gallery}
        mates = [entry for entry, whose in gallery.items() if whose == subject]
        mate = scores.pop(mates[0]) if mates else None
        others = sorted(scores.values(), reverse=True)
        rank = 1 + sum(score >= mate for score in others) if mates else None
        found.append((mate, rank, others))
    return found


def test_search_by_loops(made, report):
    _, rows, scores, features, subject_of, _ = made
    pooled = pooled_in_loops(rows, features, scores)
    gallery = {row[0]: row[2] for row in rows if row[3] == 0}
    probes = {row[0]: row[2] for row in rows if row[3] in (1, 2)}
    found = searched_in_loops(pooled, gallery, probes)
    mine = report["models"]["mine"]
    for rank in (1, 5, 10):
        assert mine["rank"][str(rank)] == np.mean([place <= rank for _, place, _ in found])
    assert 0.3 < mine["rank"]["1"] < 1
    others = sorted((score for *_, rest in found for score in rest), reverse=True)
    for fpir in FPIR_TARGETS:
        threshold = others[math.ceil(len(probes) * fpir) - 1]
        expected = np.mean([mate > threshold for mate, *_ in found])
        assert mine["tpir_at_fpir"][str(fpir)] == expected
    for name in ("G1", "G2"):
        part = {template: who for template, who in gallery.items() if gallery_name(who) == name}
        found = searched_in_loops(pooled, part, probes)
        first = [mate if rank == 1 else -2 for mate, rank, _ in found if rank]
        unmated = [rest[0] for _, rank, rest in found if not rank]
        mine = report["models"]["mine"]["open_set"][name]
        assert (mine["mated"], mine["non_mated"]) == (len(first), len(unmated)) == (8, 8)
        for fpir in FPIR_TARGETS:
            best = max(
                np.mean([score > max(threshold, -1.5) for score in first])
                for threshold in [-1.5, *unmated]
                if sum(score > threshold for score in unmated) <= fpir * len(unmated)
            )
            assert mine["tpir_at_fpir"][str(fpir)] == best


def test_without_the_detectors_scores(made, report):
    folder, rows, scores, features, _, pairs = made
    plain = judge(folder, "--model", f"mine={folder}/features-ijbc.npy", "--no-detector-score")
    pooled = pooled_in_loops(rows, features, np.ones(len(rows)))
    score = np.array([pooled[a] @ pooled[b] for a, b, _ in pairs])
    same = np.array([label == 1 for *_, label in pairs])
    assert plain["models"]["mine"]["tar_at_far"]["0.01"] == tar_in_loops(score[same], score[~same], 0.01)
    assert plain["models"]["mine"]["tar_at_far"] != report["models"]["mine"]["tar_at_far"]


def test_the_tables_name_sets_and_models(made, capsys):
    judge(made[0], "--model", f"a={made[0]}/features-ijbc.npy", f"b={made[0]}/features-ijbc.npy")
    printed = capsys.readouterr().out
    for text in ("ijbc 1:1, ", "ijbc 1:N, 16 probes", "1:N in G1 alone", "1:N in G2 alone", "1e-06"):
        assert text in printed
    assert "resolve no finer" in printed
    assert "different pairs: TAR at FAR\n" in printed
    assert "different pairs: TAR at the nearest FAR, insightface's rule\n" in printed


def test_the_report_is_written_before_the_tables_are_printed(made, capsys, monkeypatch):
    def refuse(*_):
        raise LatseError("no space")

    monkeypatch.setattr("latse.eval.templates_command.write_json", refuse)
    folder = str(made[0])
    given = ["--data", folder, "--model", f"{folder}/features-ijbc.npy", "--json", f"{folder}/never.json"]
    assert main(["templates", *given]) == 1
    printed = capsys.readouterr()
    assert printed.out == "" and "no space" in printed.err


def test_features_stand_in_the_order_of_the_faces_however_they_are_cut(photographed, monkeypatch):
    folder, crops = photographed
    report = folder / "templates.json"
    found = []
    for at_once in (7, len(crops)):
        monkeypatch.setattr("latse.eval.templates_command.IMAGES_AT_ONCE", at_once)
        assert main(["templates", "--data", str(folder), "--model", "pixels", "--json", str(report)]) == 0
        found.append(json.loads(report.read_text())["models"]["pixels"])
    assert found[0] == found[1]


@pytest.fixture
def photographed(tmp_path):
    """A set of photographs larger than a face, the face `SHIFT` off its corner; and the faces."""
    rng = np.random.default_rng(2)
    rows = people_of(rng)
    write_lists(tmp_path, rows, np.ones(len(rows)), prefix="ijbb")
    (tmp_path / "loose_crop").mkdir()
    faces = {}
    for subject in range(SUBJECTS):
        noise = cv2.GaussianBlur(rng.normal(size=(112, 112, 3)), (0, 0), 12)
        faces[subject] = np.clip(128 + 60 * noise / noise.std(), 0, 255).astype(np.uint8)
    crops = np.zeros((len(rows), 112, 112, 3), np.uint8)
    for number, (crop, row) in enumerate(zip(crops, rows)):
        photograph = np.full((150, 150, 3), 77, np.uint8)
        x, y = SHIFT.astype(int)
        photograph[y : y + 112, x : x + 112] = faces[row[2]]
        crop[:] = photograph[y : y + 112, x : x + 112]
        cv2.imwrite(str(tmp_path / "loose_crop" / f"{number + 1}.png"), photograph)
    return tmp_path, crops[..., ::-1].transpose(0, 3, 1, 2)


def test_photographs_are_aligned_to_the_template(photographed):
    folder, crops = photographed
    faces = template_lists.read_set(folder).faces
    found = template_lists.read_aligned(folder / "loose_crop", faces, 3, 9)
    assert found.dtype == np.uint8
    difference = np.abs(found.astype(int) - crops[3:9])
    assert difference.mean() < 0.5  # OpenCV's interpolation rounds to 1/32 of a pixel
    assert len(template_lists.read_aligned(folder / "loose_crop", faces, len(crops) - 2, len(crops) + 5)) == 2


def test_outside_of_the_photograph_is_black(photographed):
    folder, _ = photographed
    faces = template_lists.read_set(folder).faces
    faces.points[0] -= 40  # the face reaches over the left and upper border
    image = template_lists.read_aligned(folder / "loose_crop", faces, 0, 1)[0]
    assert (image[:, :15, :] == 0).all()
    assert (image[:, :, :15] == 0).all()
    assert image[:, 40:, 40:].min() > 0 or image.any()


def test_a_model_that_sees_the_photographs(photographed, monkeypatch):
    """Pictures of a person are alike, so every mate comes first; in blocks or not, the same."""
    folder, _ = photographed
    whole = judge(folder, "--model", "pixels")["models"]
    monkeypatch.setattr("latse.eval.templates_command.IMAGES_AT_ONCE", 7)
    assert judge(folder, "--model", "pixels")["models"] == whole
    assert whole["pixels"]["rank"]["1"] == 1
    assert whole["pixels"]["tar_at_far"]["1e-06"] == 1


def test_what_is_not_listed_is_not_judged(made, tmp_path):
    folder, rows, scores, *_ = made
    write_lists(tmp_path, rows, scores)
    np.save(tmp_path / "f.npy", np.load(folder / "features-ijbc.npy"))
    (tmp_path / "meta" / "ijbc_1N_probe_mixed.csv").unlink()
    found = judge(tmp_path, "--model", tmp_path / "f.npy")["models"]["f"]
    assert found["tar_at_far"]
    assert found["rank"] == found["tpir_at_fpir"] == {}
    (tmp_path / "meta" / "ijbc_template_pair_label.txt").unlink()
    assert main(["templates", "--data", str(tmp_path), "--model", str(tmp_path / "f.npy")]) == 1


def test_one_gallery_and_no_pairs(made, tmp_path):
    folder, rows, scores, *_ = made
    write_lists(tmp_path, rows, scores)
    meta = tmp_path / "meta"
    (meta / "ijbc_template_pair_label.txt").unlink()
    second = (meta / "ijbc_1N_gallery_G2.csv").read_text().split("\n", 1)[1]
    with (meta / "ijbc_1N_gallery_G1.csv").open("a") as file:
        file.write("\n" + second)
    (meta / "ijbc_1N_gallery_G2.csv").unlink()
    np.save(tmp_path / "f.npy", np.load(folder / "features-ijbc.npy"))
    found = judge(tmp_path, "--model", tmp_path / "f.npy")["models"]["f"]
    assert found["tar_at_far"] == {}
    assert found["rank"] == found["open_set"]["G1"]["rank"]
    assert found["open_set"]["G1"]["non_mated"] == 0
    assert found["open_set"]["G1"]["tpir_at_fpir"] == {}


def cut(text):
    return text[: len(text) // 2 - 3]


def without_last_line(text):
    return text.rsplit("\n", 2)[0] + "\n"


def swapped(text):
    first, second, *rest = text.split("\n")
    return "\n".join([second, first, *rest])


@pytest.mark.parametrize(
    ("name", "change", "sentence"),
    [
        ("face_tid_mid.txt", without_last_line, "lines"),
        ("face_tid_mid.txt", swapped, "must name the same photographs"),
        ("face_tid_mid.txt", lambda text: "!" + text, "line 1 is about"),  # before all names in order
        ("face_tid_mid.txt", lambda text: "~" + text, "line 1 is about"),  # behind them
        (
            "face_tid_mid.txt",
            lambda text: text.replace(" 900 ", " nobody ", 1),
            "column 2 is nobody, must be a whole number",
        ),
        (
            "face_tid_mid.txt",
            lambda text: text.replace(" 900 ", " 9.5 ", 1),
            "column 2 is 9.5, must be a whole number",
        ),
        ("face_tid_mid.txt", lambda text: text.replace(" 900 ", " ", 1), "has 2 columns, must have 3"),
        (
            "face_tid_mid.txt",
            lambda text: text.replace(" 900 ", f" {2**70} ", 1),
            f"column 2 is {2**70}, must be",
        ),
        ("face_tid_mid.txt", lambda text: text.replace(" 900 ", " 901 "), "template 900 of "),
        ("face_tid_mid.txt", lambda text: "", "has no line with 3 columns"),
        ("name_5pts_score.txt", cut, "columns, must have 12"),
        ("name_5pts_score.txt", lambda text: text.replace(" 0.", " x", 1), ", must be a number"),
        ("name_5pts_score.txt", lambda text: text.replace(" 0.", " 7 0.", 1), "has 13 columns, must have 12"),
        ("name_5pts_score.txt", lambda text: text.replace("58.2946", "inf", 1), "not finite"),
        ("template_pair_label.txt", lambda text: text.replace(" 1\n", " 2\n", 1), "the label 2"),
        ("template_pair_label.txt", lambda text: text.replace(" 1\n", " 0\n"), "of one kind"),
        ("template_pair_label.txt", lambda text: "5 " + text, "line 1 has 4 columns, must have 3"),
        ("template_pair_label.txt", lambda text: text + "31 900 1\n", "template 31 of the pairs"),
        ("template_pair_label.txt", lambda text: text.replace(" ", ","), "line 1 has 1 columns, must have 3"),
        ("1N_probe_mixed.csv", lambda text: text + "\n893,5000,x,1", "template 893 has two subjects"),
        ("1N_probe_mixed.csv", lambda text: text.replace(",1003,", ",2003,"), "subject 2003 is searched for"),
        (
            "1N_gallery_G1.csv",
            lambda text: text + "\n893,1001,x,1",
            "subject 1001 has more than one template",
        ),
        ("1N_gallery_G1.csv", lambda text: "a", "has no line with 2 columns"),
        ("1N_gallery_G1.csv", lambda text: text + "\n5,1001,x,1", "template 5 of gallery G1"),
    ],
)
def test_a_damaged_list_is_one_sentence(made, tmp_path, capsys, name, change, sentence):
    folder, rows, scores, *_ = made
    write_lists(tmp_path, rows, scores)
    np.save(tmp_path / "f.npy", np.load(folder / "features-ijbc.npy"))
    path = tmp_path / "meta" / f"ijbc_{name}"
    path.write_text(change(path.read_text()))
    output = tmp_path / "out.json"
    assert (
        main(
            ["templates", "--data", str(tmp_path), "--model", str(tmp_path / "f.npy"), "--json", str(output)]
        )
        == 1
    )
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert sentence in error
    assert not output.exists()


@settings(max_examples=150)
@given(st.data())
def test_random_damage_is_read_or_refused(made, tmp_path_factory, data):
    """Whatever stands in a list: what is read is whole and consistent, else it is one LatseError."""
    folder, rows, scores, *_ = made
    names = sorted(path.name for path in (folder / "meta").iterdir())
    copy = tmp_path_factory.mktemp("damaged")
    (copy / "meta").mkdir()
    for name in names:
        (copy / "meta" / name).write_bytes((folder / "meta" / name).read_bytes())
    path = copy / "meta" / data.draw(st.sampled_from(names))
    content = bytearray(path.read_bytes())
    for _ in range(data.draw(st.integers(1, 4))):
        place = data.draw(st.integers(0, len(content) - 1))
        length = data.draw(st.integers(0, 3))
        content[place : place + length] = data.draw(st.binary(max_size=3))
    path.write_bytes(content)
    try:
        read = template_lists.read_set(copy)
    except LatseError:
        return
    count = len(read.faces.photographs)
    assert read.faces.points.shape == (count, 5, 2)
    assert np.isfinite(read.faces.points).all()
    assert len(read.faces.scores) == len(read.faces.media) == len(read.faces.templates) == count
    known = set(read.faces.templates)
    assert known.issuperset(read.pairs.first)
    assert known.issuperset(read.pairs.second)
    assert known.issuperset(read.probes.templates)


def test_other_mistakes_are_one_sentence(made, photographed, tmp_path, capsys):
    def refused(*arguments):
        assert main(["templates", "--data", *map(str, arguments)]) == 1
        error = capsys.readouterr().err.strip()
        assert error.count("\n") == 0
        return error

    folder, *_ = made
    photographs, _ = photographed
    assert "holds 0 lists *_name_5pts_score.txt" in refused(tmp_path / "nowhere", "--model", "pixels")
    assert "1.png" in refused(folder, "--model", "pixels")  # it has no photographs
    (photographs / "loose_crop" / "3.png").write_bytes(b"no picture")
    assert "3.png is no photograph" in refused(photographs, "--model", "pixels")
    (photographs / "loose_crop" / "3.png").write_bytes(b"")
    assert "3.png" in refused(photographs, "--model", "pixels")
    np.save(tmp_path / "few.npy", np.ones((3, 4)))
    assert "3 features" in refused(folder, "--model", tmp_path / "few.npy")


@settings(max_examples=60)
@given(st.integers(0, 2**31), st.integers(1, 12), st.integers(1, 4), st.booleans())
def test_pooling_is_what_the_loops_say(seed, count, most, weighted):
    rng = np.random.default_rng(seed)
    rows = [(int(rng.integers(most)) * 3, int(rng.integers(most))) for _ in range(count)]
    features = rng.normal(size=(count, 5))
    scores = rng.uniform(0.1, 1, count).astype(np.float32) if weighted else np.ones(count, np.float32)
    templates, media = np.array(rows).T
    faces = Faces(np.array(["x"] * count), np.zeros((count, 5, 2)), scores, templates, media)
    expected = pooled_in_loops(rows, features, scores)
    found = pool(features, faces, scores if weighted else None)
    assert list(found.numbers) == sorted(expected)
    for number, feature in zip(found.numbers, found.features):
        np.testing.assert_allclose(feature, expected[number], atol=1e-12)


def one_hot(numbers, dimensions=4):
    return Templates(np.arange(len(numbers)), np.eye(dimensions)[list(numbers)])


def test_ties_count_against_the_mate():
    """Constant features find nobody and verify nobody."""
    templates = one_hot([0] * 5)
    gallery = {"G1": Subjects(np.arange(3), np.arange(3))}
    found = identify_templates(templates, gallery, Subjects(np.array([3, 4]), np.array([0, 2])))
    assert found["rank"] == {"1": 0, "5": 1, "10": 1}
    assert found["tpir_at_fpir"] == {"0.1": 0, "0.01": 0}
    pairs = TemplatePairs(np.array([0, 1, 2]), np.array([1, 2, 3]), np.array([True, False, True]))
    assert set(verify_templates(templates, pairs)["tar_at_far"].values()) == {0}


@pytest.mark.parametrize("dimensions", [308, 511, 512])
@pytest.mark.parametrize(("subjects", "searched"), [(79, 39), (78, 17), (40, 6)])
def test_equal_faces_pooled_in_different_numbers_tie(dimensions, subjects, searched):
    """However many make a template and wherever it stands: a constant model finds and verifies nobody."""
    rng = np.random.default_rng(dimensions)
    count = subjects + searched
    templates = np.concatenate([np.arange(count), rng.integers(0, count, 3 * count)])
    scores = rng.uniform(0.1, 1, len(templates))
    media = rng.integers(0, 3, len(templates))
    faces = Faces(
        np.array(["x"] * len(templates)), np.zeros((len(templates), 5, 2)), scores, templates, media
    )
    pooled = pool(np.tile(rng.standard_normal(dimensions), (len(templates), 1)), faces, scores)
    probes = Subjects(np.arange(subjects, count), rng.integers(0, subjects, searched))
    gallery = {"G1": Subjects(np.arange(subjects), np.arange(subjects))}
    found = identify_templates(pooled, gallery, probes)
    assert set(found["rank"].values()) == set(found["tpir_at_fpir"].values()) == {0}
    pairs = TemplatePairs(np.arange(count), np.roll(np.arange(count), 1), np.arange(count) % 2 == 0)
    assert set(verify_templates(pooled, pairs)["tar_at_far"].values()) == {0}


def test_a_perfect_model_finds_and_verifies_everybody():
    templates = one_hot([0, 1, 2, 0, 2])
    gallery = {"G1": Subjects(np.arange(2), np.arange(2)), "G2": Subjects(np.array([2]), np.array([2]))}
    found = identify_templates(templates, gallery, Subjects(np.array([3, 4]), np.array([0, 2])))
    assert set(found["rank"].values()) == set(found["tpir_at_fpir"].values()) == {1}
    assert found["open_set"]["G1"]["tpir_at_fpir"] == {"0.1": 1, "0.01": 1}
    rank = {"1": 1, "5": 1, "10": 1}
    assert found["open_set"]["G2"] == {"tpir_at_fpir": {"0.1": 1, "0.01": 1}, "rank": rank,
                                       "mated": 1, "non_mated": 1}  # fmt: skip
    pairs = TemplatePairs(np.array([0, 1, 2]), np.array([3, 2, 4]), np.array([True, False, True]))
    assert set(verify_templates(templates, pairs)["tar_at_far"].values()) == {1}


def test_one_template_alone_is_no_gallery():
    with pytest.raises(LatseError, match="one template"):
        identify_templates(
            one_hot([0, 0]),
            {"G1": Subjects(np.array([0]), np.array([7]))},
            Subjects(np.array([1]), np.array([7])),
        )
