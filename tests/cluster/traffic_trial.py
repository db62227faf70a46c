"""Compare what `latse plan --hosts` works out with the bytes that this machine's loopback carries.

    python tests/cluster/traffic_trial.py

Takes two minutes. Nothing else may talk over the loopback meanwhile.
"""

import json
import subprocess
import sys
import tempfile
from pathlib import Path

from million_trial import made_up

from latse.data.shards.shard_writer import write_shard

LATSE = sys.executable, "-m", "latse"
PEOPLE, SHORT, LONG = 4000, 10, 40
RECIPE = """\
encoder: {name: resnet_tiny}
train: {batch_size: 16, checkpoint_every: 1000, log_every: 1000, keep: 1, kvstore: dist_sync}
schedule: {mode: constant, learning_rate: 0.01}
"""
KINDS = {
    "dense head": [],
    "sampled head": ["head.kind=sampled", "head.rate=0.1"],
    "decoder": ["decoder.enabled=true", "decoder.widths=[8, 8, 8, 8]"],
}


def main():
    print("| | planned, MiB a step | measured | measured / planned |\n|---|---:|---:|---:|")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "recipe.yaml").write_text(RECIPE)
        write_shard(folder / "set", made_up(PEOPLE), PEOPLE, (112, 112))
        for kind, settings in KINDS.items():
            planned = together(plan(folder, settings)) / 2**20
            more = carried(folder, settings, LONG) - carried(folder, settings, SHORT)
            measured = more / (LONG - SHORT) / 2**20
            print(f"| {kind} | {planned:.2f} | {measured:.2f} | {measured / planned:.3f} |", flush=True)


def plan(folder, settings):
    """Return what `latse plan --hosts 2` writes."""
    where = "--classes", PEOPLE, "--hosts", 2, "--json", folder / "plan.json"
    run("plan", folder / "recipe.yaml", *where, *set_(settings))
    return json.loads((folder / "plan.json").read_text())


def together(planned):
    """Return what two workers send and receive in a step; what goes between them is counted once."""
    both = planned["sent_by_a_worker"] + planned["received_by_a_worker"]
    return 2 * both - planned["pictures_and_mean_faces"]


def carried(folder, settings, iterations):
    """Return the bytes that a run of two workers and two servers has put on the loopback."""
    out = folder / f"run-{len(list(folder.iterdir()))}"
    launch = "launch", "-n", 2, "-s", 2, "--", *LATSE, "train", folder / "recipe.yaml"
    before = loopback()
    run(*launch, "--data", folder / "set", "--out", out, *set_([*settings, f"train.iterations={iterations}"]))
    return loopback() - before


def set_(settings):
    return [f"--set={setting}" for setting in settings]


def run(*words):
    subprocess.run([*map(str, [*LATSE, *words])], check=True, stdout=subprocess.DEVNULL)


def loopback():
    """Return how many bytes the loopback has carried."""
    for line in Path("/proc/net/dev").read_text().splitlines():
        name, _, counts = line.partition(":")
        if name.strip() == "lo":
            return int(counts.split()[0])
    raise SystemExit("this machine has no loopback")


if __name__ == "__main__":
    main()
