"""What the report takes from the files of results that `latse eval` and other commands write."""

from __future__ import annotations

from typing import Any

from latse.form import ANYTHING, COUNT, INTERVAL, NUMBER, NUMERAL, TEXT, Each, Form, Leaf, Maybe, Rows


def _is_rate(text: Any) -> bool:
    try:
        return isinstance(text, str) and 0 < float(text) <= 1
    except ValueError:
        return False


RATE = Leaf('a rate above 0 as a text, such as "0.001"', _is_rate)
RATES, BY_RANK = Each(Maybe(NUMBER), RATE), Each(NUMBER, NUMERAL)
SPREAD = {"accuracy": NUMBER, "std": NUMBER}
CURVE = {"far": Rows(NUMBER), "tar": Rows(NUMBER), "low": Maybe(Rows(NUMBER)), "high": Maybe(Rows(NUMBER))}
INTERVALS = {
    "level": NUMBER,
    "unit": TEXT,
    "samples": COUNT,
    "accuracy": INTERVAL,
    "auc?": Maybe(INTERVAL),
    "eer?": Maybe(INTERVAL),
    "tar_at_far?": Each(Maybe(INTERVAL), RATE),
    "cosine_at_far?": Each(Maybe(INTERVAL), RATE),
}
JUDGED = {
    **SPREAD,
    "threshold": NUMBER,
    "exact": SPREAD,
    "val_at_far_1e-3": Maybe({"val": NUMBER, "far": NUMBER}),
    "tar_at_far": RATES,
    "cosine_at_far?": RATES,
    "unresolved_far": Rows(RATE),
    "auc": Maybe(NUMBER),
    "eer": Maybe(NUMBER),
    "intervals": Maybe(INTERVALS),
    "restoration?": Maybe(dict.fromkeys(("ssim", "ssim_to_other", "ssim_of_average"), NUMBER)),
    "roc": CURVE,
    "histogram": {"edges": Rows(NUMBER, 2), "same": Rows(NUMBER, 1), "different": Rows(NUMBER, 1)},
}
MODEL = {"origin?": Each(ANYTHING)}
SEARCHED = {"tpir_at_fpir?": RATES, "rank?": BY_RANK}
FORMS: dict[str, Form] = {
    "verification": {
        "provenance": Each(ANYTHING),
        "models": Each(MODEL, least=1),
        "sets": Each(
            {
                "pairs": COUNT,
                "different_pairs": COUNT,
                "people": Maybe(COUNT),
                "results": Each(JUDGED, least=1),
            }
        ),
    },
    "identification": {
        "provenance": Each(ANYTHING),
        **dict.fromkeys(("probes", "mates", "distractors"), COUNT),
        "left_out?": Maybe(Each(Maybe(COUNT))),
        "models": Each(
            {
                **MODEL,
                "sizes": Each({"rank_1": NUMBER, "cmc": Each(NUMBER, NUMERAL, 1)}, NUMERAL, 1),
                "tar_at_far": RATES,
                "unresolved_far": Rows(RATE),
            },
            least=1,
        ),
    },
    "templates": {
        "provenance": Each(ANYTHING),
        "models": Each(
            {
                **MODEL,
                "tar_at_far?": RATES,
                "unresolved_far?": Rows(RATE),
                "tar_at_nearest_far?": RATES,
                **SEARCHED,
                "open_set?": Each(SEARCHED),
            }
        ),
    },
    "figures": {
        "provenance": Each(ANYTHING),
        "figures": Each({"file": TEXT, "caption": TEXT}),
        "absent?": Each(TEXT),
    },
    "study": {
        "provenance": Each(ANYTHING),
        "recipe": TEXT,
        "tables": Each(Rows(Rows(TEXT, 1), 1)),
        "plots?": Each(TEXT),
    },
}
