"""`latse encoders list`, and the tables of docs/encoders.md."""

import re
from pathlib import Path

import pytest

from latse import cli
from latse.paper import encoders_command
from latse.symbols import encoders

PAGE = Path(__file__).parents[2] / "docs" / "encoders.md"
SMALL = """
from mxnet.gluon import nn

from latse.symbols.encoders import Encoder


class Small(Encoder):
    embedding_size = 2000

    def features(self):
        body = nn.HybridSequential(prefix="")
        body.add(nn.Conv2D(40, 3, 4, 1, prefix="a_"), nn.Conv2D(60, 3, 4, 1, groups=2, prefix="b_"))
        return body
"""


def rows_of_the_page():
    rows = re.findall(r"^\| (\S+) \| ([\d.]+) \| ([\d.]+) \| (\d+) \|$", PAGE.read_text(), re.MULTILINE)
    return {row[0]: [*row] for row in rows}


@pytest.mark.parametrize(
    "name",
    [
        *encoders.ENCODERS,
        "gluoncv/mobilenet0.25",
        "gluoncv/resnet18_v1b",
        "gluoncv/squeezenet1.1",
        "gluoncv/vgg11",
    ],
)
def test_the_page_tells_how_large_an_encoder_is(name):
    assert encoders_command.row(name) == rows_of_the_page()[name]


@pytest.mark.deep
def test_the_page_lists_all_of_gluoncvs_classifiers_that_fit():
    listed = [row for name, row in rows_of_the_page().items() if name.startswith("gluoncv/")]
    assert encoders_command.fitting_rows() == listed


def test_a_network_of_ones_own_is_counted(tmp_path, capsys):
    path = tmp_path / "small.py"
    path.write_text(SMALL)
    assert cli.main(["encoders", "list", f"{path}:Small", "--markdown"]) == 0
    maps = 60 * 7 * 7
    weights = 40 * 3 * 9, 60 * 20 * 9, maps * 2000
    parameters = sum(weights) + 40 + 60 + 2 * 60 + 2000 + 2 * 2000
    products = 28 * 28 * weights[0] + 7 * 7 * weights[1] + weights[2]
    row = f"| {path}:Small | {parameters / 1e6:.2f} | {products / 1e6:.2f} | 2000 |"
    assert capsys.readouterr().out.splitlines()[-1] == row


def test_a_network_that_could_not_be_read_again_is_refused(tmp_path, capsys):
    path = tmp_path / "small.py"
    path.write_text(SMALL.replace('prefix="a_"', 'prefix="fc7_"'))
    assert cli.main(["encoders", "list", f"{path}:Small"]) == 1
    assert "must not call a parameter fc7_weight" in capsys.readouterr().err
