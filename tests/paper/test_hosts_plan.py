"""`latse plan --hosts`: its figures against sums made by hand."""

import json

import pytest

from latse.cli import main

FACE = 3 * 112 * 112


@pytest.fixture
def planned(tmp_path, capsys):
    """Plan a narrow network; return what is written and what is printed."""

    def plan(*arguments, classes=1000, recipe="encoder: {name: resnet_tiny}\ntrain: {batch_size: 32}\n"):
        (tmp_path / "narrow.yaml").write_text(recipe)
        options = "--classes", classes, "--json", tmp_path / "plan.json", *arguments
        assert main([*map(str, ("plan", tmp_path / "narrow.yaml", *options))]) == 0
        return json.loads((tmp_path / "plan.json").read_text()), capsys.readouterr().out

    return plan


def test_gradients_are_those_of_all_parameters(planned):
    fewer, more = (planned("--hosts", 2, classes=classes)[0] for classes in (1000, 3000))
    assert more["sent_by_a_worker"] - fewer["sent_by_a_worker"] == 2000 * 512 * 4
    assert more["received_by_a_worker"] == more["sent_by_a_worker"]


@pytest.mark.parametrize(
    ("hosts", "servers", "share"),
    [(2, 2, 1.0), (4, 4, 1.5), (4, 2, 2.0), (4, 1, 3.0), (2, 4, 1.0), (4, 6, 2 / 3 + 3 / 3)],
)
def test_a_host_carries_its_worker_and_its_servers(planned, hosts, servers, share):
    found, _ = planned("--hosts", hosts, "--servers", servers, "--bandwidth", 8)
    assert found["busiest_host"] == pytest.approx(share * found["sent_by_a_worker"])
    assert found["seconds_of_network"] == pytest.approx(found["busiest_host"] / 1e9)
    assert found["network_images_per_second"] == pytest.approx(32 / found["seconds_of_network"])


def test_a_sampled_head_sends_its_rows_alone(planned):
    sampled = "--set=head.kind=sampled", "--set=head.rate=0.1"
    dense, _ = planned("--hosts", 2, classes=10_000)
    found, said = planned("--hosts", 2, *sampled, classes=10_000)
    assert found["people_compared"] == 1000
    network = dense["sent_by_a_worker"] - 10_000 * 512 * 4
    assert found["received_by_a_worker"] == network + 1000 * (512 * 4 + 8)
    assert found["sent_by_a_worker"] == found["received_by_a_worker"] + 1000 * 8
    assert found["tables_bytes"] == 10_000 * 512 * 4 * 2
    assert "the loss compares 1,000 of 10,000 people" in said


def test_compressed_gradients_are_sent_as_a_sixteenth(planned):
    whole, _ = planned("--hosts", 4, "--servers", 4)
    options = "--set=train.compression_threshold=1", "--set=train.kvstore=dist_sync"
    found, _ = planned("--hosts", 4, "--servers", 4, *options)
    gradients = whole["gradients"]
    assert found["sent_by_a_worker"] == gradients / 16
    assert found["received_by_a_worker"] == gradients
    # A fourth of the sums for each of three others, and what the own worker sends to three other servers.
    assert found["busiest_host"] == pytest.approx(gradients * 3 / 4 + gradients / 16 * 3 / 4)


def test_pictures_travel_to_the_first_worker_and_mean_faces_back(planned):
    recipe = "encoder: {name: resnet_tiny}\ntrain: {batch_size: 32}\n"
    recipe += "decoder: {enabled: true, widths: [8, 8, 8, 8]}\n"
    for hosts in (2, 8):
        found, _ = planned("--hosts", hosts, recipe=recipe)
        images, gradients = 32 // hosts, found["gradients"]
        assert found["sent_by_a_worker"] == gradients + images * (FACE + 8 + 1)
        assert found["received_by_a_worker"] == gradients + images * 4 * FACE
        assert found["pictures_and_mean_faces"] == images * (5 * FACE + 8 + 1)
        share = 2 * (1 - 1 / hosts)  # a host's worker, and its server for the others
        assert found["busiest_host"] == pytest.approx(share * gradients + (32 - images) * 4 * FACE)


def test_the_rate_lies_between_waiting_and_not_waiting(planned):
    found, said = planned("--hosts", 2, "--bandwidth", 1, "--images-per-second", 100)
    step, wire = 16 / 100, found["seconds_of_network"]
    assert found["images_per_second"]["least"] == pytest.approx(32 / (step + wire))
    assert found["images_per_second"]["most"] == pytest.approx(32 / max(step, wire))
    assert "workers of 100 images/s reach " in said


def test_more_people_than_a_set_can_hold_are_planned_and_told(planned):
    sampled = "--set=head.kind=sampled", "--set=head.rate=0.00001"
    _, said = planned("--hosts", 2, *sampled, classes=100_000_000)
    assert "no set of insightface's form has so many people: its labels are exact up to 16,777,216" in said


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (("--servers", 2), "--servers goes with --hosts"),
        (("--hosts", 1), "--hosts is 1, must be at least 2"),
        (("--hosts", 2, "--servers", 0), "--servers is 0, must be at least 1"),
        (("--hosts", 2, "--bandwidth", 0), "--bandwidth is 0.0, must be at least 0.001"),
        (("--hosts", 2, "--memory", 9), "--hosts plans no memory of devices, so there is no --memory"),
        (
            ("--hosts", 2, "--classes", 10**8, "--set=head.kind=sampled", "--set=head.rate=0.1"),
            "head.rate 0.1: the rows of 10,000,000 people are fc7_weight, of 5,120,000,000 numbers",
        ),
        (("--hosts", 3), "train.batch_size 8 cannot be split over 3 workers"),
    ],
)
def test_bad_input_is_one_sentence(tmp_path, capsys, words, sentence):
    (tmp_path / "narrow.yaml").write_text("encoder: {name: resnet_tiny}\ntrain: {batch_size: 8}\n")
    classes = () if "--classes" in words else ("--classes", 7)
    assert main([*map(str, ("plan", tmp_path / "narrow.yaml", *classes, *words))]) == 1
    assert f"latse: {sentence}" in capsys.readouterr().err
