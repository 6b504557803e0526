"""Puts saved runs side by side, and beside the study's published figures, as plain values."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hemascope.core.classes import BLOOD_CELLS
from hemascope.core.errors import RESEARCH_USE_ONLY, DataError
from hemascope.metrics import METRICS
from hemascope.metrics.classification import attraction, most_confused
from hemascope.metrics.summary import Spread, difference_margin, spread
from hemascope.store.run_folder import Runs, SavedRun
from hemascope.study import published as study

_EFFICIENCY = (
    "num_parameters",
    "size_bytes",
    "train_seconds",
    "latency_ms_batch1",
    "latency_ms_batch128",
    "peak_memory_bytes",
)
_PER_CLASS = ("precision", "recall", "specificity", "f1", "auroc")
_CURVE = "paper-cnn-curve"
_TABLE_1 = "paper-cnn"


def group(runs: Sequence[SavedRun]) -> dict[str, list[SavedRun]]:
    """The runs by network, seeds in order.

    Raises:
        DataError: If they were not all made on the same data and with the same settings.
    """
    first = runs[0]
    for run in runs:
        if run.fingerprint["data"]["md5"] != first.fingerprint["data"]["md5"]:
            raise DataError(
                f"{run.folder} was made on other data than {first.folder}; a report compares runs "
                "on the same data."
            )
    groups: dict[str, list[SavedRun]] = {}
    for run in sorted(runs, key=lambda run: (run.settings.name, run.settings.seed)):
        groups.setdefault(run.settings.name, []).append(run)
    for name, members in groups.items():
        if len({run.settings.model_copy(update={"seed": 0}).to_toml() for run in members}) > 1:
            raise DataError(f"the runs of {name} differ in more than the seed; report them apart.")
    return groups


def compare(runs: Runs) -> dict[str, Any]:
    """Everything the report says, for `comparison.json`: means, spreads and differences."""
    first = next(iter(runs.values()))[0]
    networks = {name: _network(members) for name, members in runs.items()}
    dynamics = {
        "first_epoch": [_against(row, networks, "first_epoch") for row in study.CURVE_FIRST],
        "last_epoch": [_against(row, networks, "last_epoch") for row in study.CURVE_LAST],
    }
    return {
        "notice": RESEARCH_USE_ONLY,
        "study": study.CITATION,
        **{
            key: first.fingerprint[key]
            for key in ("data", "command", "date", "versions", "machine")
        },
        "networks": networks,
        "has_cnn": any(_is_cnn(net) for net in networks.values()),
        "table_2": [_against(row, networks, "results") for row in study.TABLE_2],
        "dynamics_first": dynamics["first_epoch"],
        "dynamics_last": dynamics["last_epoch"],
        "findings": _findings(networks, dynamics, first.fingerprint["data"]),
        "sampling_margin": difference_margin(
            study.TABLE_2[0].value,
            study.NUM_TEST_IMAGES,
            first.fingerprint["data"]["counts"]["test"],
        ),
    }


def _network(runs: Sequence[SavedRun]) -> dict[str, Any]:
    results = [run.results for run in runs]
    pooled = np.sum([run.confusion for run in runs], axis=0)
    names: list[str] = results[0]["class_names"]
    supports = dict(zip(names, pooled.sum(axis=1).tolist(), strict=True))
    keys = [key for key in (*METRICS, *_EFFICIENCY) if results[0].get(key) is not None]
    return {
        "n": len(runs),
        "seeds": [run.settings.seed for run in runs],
        "folders": [run.folder.name for run in runs],
        "settings": runs[0].settings.model_dump(mode="json", exclude={"seed"}),
        "results": {key: _spread([result[key] for result in results]) for key in keys},
        "first_epoch": _epoch(runs, 0),
        "last_epoch": _epoch(runs, -1),
        "per_class": {
            name: {
                "support": results[0]["per_class"][name]["support"],
                **{
                    key: _spread([result["per_class"][name][key] for result in results])
                    for key in _PER_CLASS
                    if results[0]["per_class"][name][key] is not None
                },
            }
            for name in names
        },
        "confusion_matrix_pooled": pooled.tolist(),
        "most_confused": [
            {"true": true, "predicted": predicted, "images": count, "share": count / supports[true]}
            for true, predicted, count in most_confused(pooled, tuple(names))[:5]
        ],
    }


def _epoch(runs: Sequence[SavedRun], index: int) -> dict[str, Any]:
    columns = [key for key, values in runs[0].history.items() if np.isfinite(values).all()]
    return {key: _spread([float(run.history[key][index]) for run in runs]) for key in columns}


def _spread(values: Sequence[float]) -> dict[str, Any]:
    return asdict(spread(values))


def spread_of(values: Mapping[str, Any]) -> Spread:
    """A spread as it stands in the comparison, as an object again."""
    fields = {name: values[name] for name in ("mean", "sd", "minimum", "maximum")}
    return Spread(values=tuple(values["values"]), **fields)


def _against(row: study.Published, networks: Mapping[str, Any], part: str) -> dict[str, Any]:
    """One published figure beside every network that has it.

    The study publishes its CNN alone, so only CNNs have a difference (ours - the study's), and say
    whether the published figure lies within the range over their seeds.
    """
    ours = {name: net[part][row.key] for name, net in networks.items() if row.key in net[part]}
    cnns = {name: value for name, value in ours.items() if _is_cnn(networks[name])}
    return {
        **asdict(row),
        "ours": ours,
        "difference": {name: value["mean"] - row.value for name, value in cnns.items()},
        "within_range": {
            name: value["minimum"] <= row.value <= value["maximum"] for name, value in cnns.items()
        },
    }


def _is_cnn(network: Mapping[str, Any]) -> bool:
    return network["settings"]["model"]["name"] == "cnn"


def _findings(
    networks: Mapping[str, Any],
    dynamics: Mapping[str, Sequence[Mapping[str, Any]]],
    data: Mapping[str, Any],
) -> dict[str, Any]:
    """What the runs say about the study's two open points, where these data can say it."""
    findings: dict[str, Any] = {
        "gap": {
            name: networks[_TABLE_1]["results"]["accuracy"]["mean"]
            - net["results"]["accuracy"]["mean"]
            for name, net in networks.items()
            if _TABLE_1 in networks and not _is_cnn(net)
        }
    }
    if tuple(data["class_names"]) == BLOOD_CELLS.names:
        findings["attractor"] = {
            name: attractor
            for name, net in networks.items()
            if (attractor := _attractor(np.array(net["confusion_matrix_pooled"])))
        }
    if data["kind"] in ("official", "rebuilt") and {_TABLE_1, _CURVE} <= networks.keys():
        findings["curve"] = _nearest_to_the_curve(networks, dynamics)
    return findings


def _attractor(pooled: NDArray[np.int64]) -> dict[str, Any] | None:
    """The class that most errors end in; None where there are none."""
    errors = attraction(pooled)
    winner = int(errors.argmax())
    if errors[winner] == 0:
        return None
    others = pooled.sum() - pooled[winner].sum()
    return {
        "label": winner,
        "class": BLOOD_CELLS.names[winner],
        "errors": int(errors[winner]),
        "all_errors": int(errors.sum()),
        "share_of_other_images": float(errors[winner] / others),
    }


def _nearest_to_the_curve(
    networks: Mapping[str, Any], dynamics: Mapping[str, Sequence[Mapping[str, Any]]]
) -> dict[str, Any]:
    """Which CNN preset's mean lies nearer to each published point of the training curve.

    `dynamics` holds the rows of the first and of the last epoch, as `_against` made them.
    """
    both = (_TABLE_1, _CURVE)
    points: list[dict[str, Any]] = []
    for part, rows in dynamics.items():
        for row in rows:
            if not row["difference"].keys() >= set(both):
                continue  # runs that did not watch the test split
            distance = {name: abs(row["difference"][name]) for name in both}
            points.append(
                {
                    "epoch": part,
                    "key": row["key"],
                    "distance": distance,
                    "nearer": min(distance, key=lambda name: distance[name]),
                    "within_range": [name for name in both if row["within_range"][name]],
                }
            )
    return {
        "points": points,
        "num_nearer": sum(point["nearer"] == _CURVE for point in points),
        "num_within": {
            name: sum(name in point["within_range"] for point in points) for name in both
        },
        "full_length": all(
            networks[name]["settings"]["training"]["epochs"] == study.CURVE_EPOCHS for name in both
        ),
    }
