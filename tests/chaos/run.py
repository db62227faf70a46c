"""Fault short real runs of training in every known way, let them go on, compare them with unbroken ones.

    python tests/chaos/run.py --faults 200 --seed 0

A fault is a function of the seed and its number alone, but for the speed of the machine; `--only NUMBER`
repeats it. What becomes of it:

survived  the run was killed, interrupted or not stopped at all, and the same command ended it as if nothing
          had happened: the same bits where they are promised, else the same within the promised rounding
ended     the command ended in time with one clear sentence and another status than 0, left nothing half
          written, and the same command, once the cause was mended, ended the run likewise
lost      anything else: a hang, a traceback, other bits, a process or a temporary file that is left
skipped   this machine does not let the fault be made

Results are kept below --out: the command goes on where it was stopped, and tries again what was lost. The
exit status is 1 if anything is lost.
"""

import argparse
import json
import random
import re
import shutil
import signal
import sys
import tempfile
import time
from pathlib import Path

from chaos_kinds import KILLED, KINDS, TERMINATED, ImpossibleError
from chaos_trial import LAST, HungError, TooLateError, Trial, contents, differences, prepare
from tqdm import tqdm

from latse.errors import LatseError

SURVIVED, ENDED, LOST, SKIPPED = OUTCOMES = "survived", "ended", "lost", "skipped"
TRIES = 10  # until a fault comes before the run has ended
RESULTS = "faults.jsonl"


def main(arguments=None):
    """Return 0 if nothing is lost."""
    args = parse(arguments)
    numbers = chosen(args)
    args.out.mkdir(parents=True, exist_ok=True)
    results = {} if args.only is not None else kept(args)
    if args.report:
        return report(args, [results[number] for number in numbers if number in results])
    with tempfile.TemporaryDirectory(prefix="chaos-") as name:
        origin, unbroken = Path(name, "origin"), {}
        prepare(origin)
        todo = [n for n in numbers if n not in results or results[n]["outcome"] == LOST]
        bar = tqdm(todo, total=len(numbers), initial=len(numbers) - len(todo), unit=" faults", smoothing=0.05)
        for number in bar:
            kind = KINDS[kind_of(number)]
            for workers in {kind.workers, kind.then or kind.workers} - {*unbroken}:
                unbroken[workers] = whole(Path(name, f"unbroken-{workers}"), origin, workers, args)
            results[number] = result = faulted(args, number, Path(name, str(number)), origin, unbroken)
            with (args.out / RESULTS).open("a") as file:
                file.write(json.dumps(result) + "\n")
            bar.write(told(result))
    return report(args, [results[number] for number in numbers])


def parse(arguments):
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--faults", type=int, default=200, help="how many (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="default: %(default)s")
    parser.add_argument("--kinds", nargs="+", metavar="PATTERN", help="only kinds that match one of these")
    parser.add_argument("--only", type=int, metavar="NUMBER", help="do this fault only, again")
    parser.add_argument("--report", action="store_true", help="do nothing, report what is there")
    parser.add_argument(
        "--limit", type=float, default=300, help="seconds after which a command hangs (default: %(default)s)"
    )
    parser.add_argument(
        "--out", type=Path, default=Path("out/chaos"), help="for results (default: %(default)s)"
    )
    parser.add_argument("--json", type=Path, help="write the counts of each kind as JSON")
    return parser.parse_args(arguments)


def chosen(args):
    """Return the numbers of the faults to be done: the kinds come in turn."""
    if args.only is not None:
        return [args.only]
    patterns = args.kinds or [""]
    return [n for n in range(args.faults) if any(re.search(pattern, kind_of(n)) for pattern in patterns)]


def kind_of(number):
    return [*KINDS][number % len(KINDS)]


def kept(args):
    """Return the results of this seed that are there already, the newest of each number."""
    path = args.out / RESULTS
    lines = [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []
    mine = [line for line in lines if line["seed"] == args.seed and line["kind"] == kind_of(line["number"])]
    return {line["number"]: line for line in mine}


def whole(folder, origin, workers, args):
    """Run to the end without a fault; return the contents and how many seconds it took."""
    trial = Trial(folder, origin, random.Random(0), workers, limit=args.limit)
    began = time.monotonic()
    trial.start()
    ending = trial.ended()
    seconds = time.monotonic() - began
    if ending.status:
        sys.exit(f"a run without a fault has ended with status {ending.status}: {ending.said}")
    found = contents(trial.out)
    trial.close()
    return found, seconds


def faulted(args, number, folder, origin, unbroken):
    """Do a fault; return what is written down of it."""
    name = kind_of(number)
    kind, chance = KINDS[name], random.Random(f"{args.seed}/{number}")
    result = {"number": number, "seed": args.seed, "kind": name}
    for _ in range(TRIES):
        usual = unbroken[kind.workers][1]
        trial = Trial(folder, origin, chance, kind.workers, kind.timeout, args.limit, usual)
        try:
            outcome, why, seconds = judged(trial, kind, unbroken)
            if outcome == LOST:
                save(trial, args.out / f"lost-{args.seed}-{number}")
            return {**result, "outcome": outcome, "why": why, "seconds": round(seconds, 1)}
        except TooLateError:
            continue
        finally:
            trial.close()
    return {**result, "outcome": LOST, "why": f"no effect, {TRIES} times", "seconds": 0.0}


def judged(trial, kind, unbroken):
    """Return the outcome of a trial, why, and the seconds from the fault to the end of its command."""
    try:
        kind.before(trial)
        trial.start(*(() if kind.between else kind.words))
        kind.deed(trial)
        ending = trial.ended()
        if kind.between:
            kind.between(trial)
            trial.fault()
            trial.start(*kind.words)
            ending = trial.ended()
        if ending.status == 0 and 0 not in kind.statuses:
            raise TooLateError
        wrong = wrongs(trial, kind, ending)
        if not wrong:
            kind.mend(trial)
            if ending.status or kind.words:
                trial.start(workers=kind.then)
                last = trial.ended()
                wrong = [f"what goes on ends with status {last.status}"] if last.status else []
                wrong += trial.leftovers() + trial.temporary()
            wrong = wrong or compared(trial, kind, unbroken[kind.then or kind.workers][0])
    except ImpossibleError as error:
        return SKIPPED, str(error), 0.0
    except HungError:
        return LOST, f"hung: no end within {trial.limit:g} s", trial.limit
    except (AssertionError, LatseError, OSError) as error:  # what is compared cannot be read
        return LOST, str(error), 0.0
    outcome = LOST if wrong else ENDED if ending.status == 1 else SURVIVED
    return outcome, "; ".join(wrong), ending.seconds


def wrongs(trial, kind, ending):
    """Return what is wrong with how the faulted command has ended."""
    found = []
    if ending.status not in kind.statuses:
        found.append(f"ended with status {ending.status}, not {' or '.join(map(str, kind.statuses))}")
    if not re.search(kind.says, ending.said):
        found.append("did not say why")
    if "Traceback" in ending.said:
        found.append("printed a traceback")
    return found + trial.leftovers() + ([] if ending.status == KILLED else trial.temporary())


def compared(trial, kind, wanted):
    """Return in what the end of a run differs from that of an unbroken one."""
    found = contents(trial.out)
    if kind.compared:
        return differences(found, wanted, kind.rounded, kind.extra)
    lines = [line["iteration"] for line in found["metrics"]]
    told = [] if lines == [*range(1, LAST + 1)] else [f"its metrics have the iterations {lines}"]
    return told + differences({"files": found["files"]}, {"files": wanted["files"]})


def save(trial, place):
    """Keep what was printed, and the files of the run, of a fault that was lost."""
    shutil.rmtree(place, ignore_errors=True)
    place.mkdir()
    for path in trial.folder.glob("output*.txt"):
        shutil.copyfile(path, place / path.name)
    if trial.out.exists():
        shutil.copytree(trial.out, place / "run")


def told(result):
    """Return the line on a fault."""
    after = f" after {result['seconds']:.1f} s" if result["seconds"] else ""
    why = f": {result['why']}" if result["why"] else ""
    again = f"--seed {result['seed']} --only {result['number']}"
    return f"{result['number']:4} {result['kind']}: {result['outcome']}{after}{why} ({again})"


def table(rows):
    """Return a table in Markdown of what became of each kind."""
    lines = [f"| kind | faults | {' | '.join(OUTCOMES)} | longest, s |", f"|---|{'---:|' * 6}"]
    return "\n".join(lines + [f"| {' | '.join(map(str, row.values()))} |" for row in rows])


def report(args, results):
    """Print a table by kind and what was lost; return the exit status."""
    rows = []
    for name in KINDS:
        mine = [result for result in results if result["kind"] == name]
        if mine:
            counts = {outcome: sum(result["outcome"] == outcome for result in mine) for outcome in OUTCOMES}
            longest = max(result["seconds"] for result in mine)
            rows.append({"kind": name, "faults": len(mine), **counts, "longest_seconds": longest})
    print(table(rows))
    totals = {outcome: sum(row[outcome] for row in rows) for outcome in OUTCOMES}
    print(f"{len(results)} faults: {', '.join(f'{count} {outcome}' for outcome, count in totals.items())}")
    for result in results:
        if result["outcome"] == LOST:
            print(told(result))
    if args.json:
        args.json.parent.mkdir(parents=True, exist_ok=True)
        content = {"seed": args.seed, "faults": len(results), **totals, "kinds": rows}
        args.json.write_text(json.dumps(content, indent=2) + "\n")
    return int(totals[LOST] > 0)


if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.default_int_handler)  # what runs in the background ignores it
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(TERMINATED))  # and cleans up
    sys.exit(main())
