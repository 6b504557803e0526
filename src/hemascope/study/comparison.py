"""Puts saved runs side by side, and beside the study's published figures."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from hemascope.core.errors import RESEARCH_USE_ONLY, DataError
from hemascope.core.images import DataDescription
from hemascope.data.collections import BLOOD_CELLS
from hemascope.metrics.classification import attraction
from hemascope.metrics.comparison import Comparison as NetworkComparison
from hemascope.metrics.summary import Spread, difference_margin
from hemascope.metrics.trust import Trust
from hemascope.report.network import Network, summarize
from hemascope.store.provenance import Machine
from hemascope.store.run_folder import Runs, SavedRun
from hemascope.study import published as study

_CURVE = "paper-cnn-curve"
_TABLE_1 = "paper-cnn"
Epoch = Literal["first_epoch", "last_epoch"]


@dataclass(frozen=True)
class Against:
    """One published figure beside every network that has it.

    The study publishes its CNN alone, so only CNNs have a `difference` (ours - the study's), and
    say whether the published figure lies `within_range`, between the lowest and the highest seed.
    """

    key: str
    label: str
    value: float
    as_percent: bool
    ours: Mapping[str, Spread]
    difference: Mapping[str, float]
    within_range: Mapping[str, bool]


@dataclass(frozen=True)
class Attractor:
    """The class that most errors end in.

    `share_of_other_images` is the share of the other classes' images that were given it.
    """

    label: int
    class_name: str
    errors: int
    all_errors: int
    share_of_other_images: float


@dataclass(frozen=True)
class CurvePoint:
    """One published point of the training curve, and how far from it either CNN preset lies."""

    epoch: Epoch
    key: str
    distance: Mapping[str, float]
    nearer: str
    within_range: tuple[str, ...]


@dataclass(frozen=True)
class CurveFinding:
    """Which CNN preset's mean lies nearer to the published training curve.

    `num_nearer` counts the points that paper-cnn-curve is nearer to, `num_within` those in each
    preset's range over seeds; `full_length` is false where runs have other epochs than the study's.
    """

    points: tuple[CurvePoint, ...]
    num_nearer: int
    num_within: Mapping[str, int]
    full_length: bool


@dataclass(frozen=True)
class Findings:
    """What the runs say about the study's two open points, where these data can say it."""

    attractor: Mapping[str, Attractor] | None
    curve: CurveFinding | None


@dataclass(frozen=True)
class Certainty:
    """What `hemascope compare` and `hemascope trust` find in the same runs."""

    statistics: NetworkComparison | None = None
    trust: Trust | None = None


@dataclass(frozen=True)
class Comparison:
    """Everything the study's report says of the runs; `comparison.json`.

    Attributes:
        sampling_margin: How far the study's accuracy and ours may differ by the choice of test
            images alone (95 %).
    """

    notice: str
    study: str
    data: DataDescription
    command: str
    date: str
    versions: Mapping[str, str]
    machine: Machine
    networks: Mapping[str, Network]
    table_2: tuple[Against, ...]
    dynamics_first: tuple[Against, ...]
    dynamics_last: tuple[Against, ...]
    findings: Findings
    sampling_margin: float
    certainty: Certainty = Certainty()

    @property
    def cnns(self) -> list[str]:
        """The networks that the study's figures are of."""
        return [name for name, network in self.networks.items() if _is_cnn(network)]

    @property
    def most_seeds(self) -> int:
        """The largest number of runs of a network."""
        return max(network.n for network in self.networks.values())


def group(runs: Sequence[SavedRun]) -> dict[str, list[SavedRun]]:
    """The runs by network, the best accuracy first, seeds in order.

    Raises:
        DataError: If they were not all made on the same data and with the same settings.
    """
    first = runs[0]
    for run in runs:
        if run.fingerprint.data.md5 != first.fingerprint.data.md5:
            raise DataError(
                f"{run.folder} was made on other data than {first.folder}; a report compares runs "
                "on the same data."
            )
        if run.results.class_names != run.fingerprint.data.class_names:
            raise DataError(
                f"the results and the fingerprint in {run.folder} do not fit together: one was "
                "altered; train the run again."
            )
    groups: dict[str, list[SavedRun]] = {}
    for run in sorted(runs, key=lambda run: (run.settings.name, run.settings.seed)):
        groups.setdefault(run.settings.name, []).append(run)
    for name, members in groups.items():
        if len({run.settings.model_copy(update={"seed": 0}).to_toml() for run in members}) > 1:
            raise DataError(
                f"the runs of {name} differ in more than the seed; report them separately."
            )
    accuracy = {name: np.mean([r.results.accuracy for r in of]) for name, of in groups.items()}
    return {name: groups[name] for name in sorted(groups, key=lambda name: -accuracy[name])}


def compare(runs: Runs) -> Comparison:
    """Everything the report says of the runs: means, spreads and differences."""
    first = next(iter(runs.values()))[0]
    facts = first.fingerprint
    networks = {
        name: summarize(
            members[0].settings,
            [run.results for run in members],
            [run.history for run in members],
            [run.folder.name for run in members],
        )
        for name, members in runs.items()
    }
    dynamics_first = _against(
        study.CURVE_FIRST, networks, {name: net.first_epoch for name, net in networks.items()}
    )
    dynamics_last = _against(
        study.CURVE_LAST, networks, {name: net.last_epoch for name, net in networks.items()}
    )
    return Comparison(
        notice=RESEARCH_USE_ONLY,
        study=study.CITATION,
        data=facts.data,
        command=facts.command,
        date=facts.date,
        versions=facts.versions,
        machine=facts.machine,
        networks=networks,
        table_2=_against(
            study.TABLE_2, networks, {name: net.results for name, net in networks.items()}
        ),
        dynamics_first=dynamics_first,
        dynamics_last=dynamics_last,
        findings=_findings(networks, dynamics_first, dynamics_last, facts.data),
        sampling_margin=difference_margin(
            study.TABLE_2[0].value, study.NUM_TEST_IMAGES, first.results.num_images
        ),
    )


def _against(
    rows: Sequence[study.Published],
    networks: Mapping[str, Network],
    figures: Mapping[str, Mapping[str, Spread]],
) -> tuple[Against, ...]:
    """Published figures beside those of our networks, by network."""
    compared: list[Against] = []
    for row in rows:
        ours = {name: found[row.key] for name, found in figures.items() if row.key in found}
        cnns = {name: value for name, value in ours.items() if _is_cnn(networks[name])}
        compared.append(
            Against(
                key=row.key,
                label=row.label,
                value=row.value,
                as_percent=row.as_percent,
                ours=ours,
                difference={name: value.mean - row.value for name, value in cnns.items()},
                within_range={
                    name: value.minimum <= row.value <= value.maximum
                    for name, value in cnns.items()
                },
            )
        )
    return tuple(compared)


def _is_cnn(network: Network) -> bool:
    return network.settings.model.name == "cnn"


def _findings(
    networks: Mapping[str, Network],
    dynamics_first: Sequence[Against],
    dynamics_last: Sequence[Against],
    data: DataDescription,
) -> Findings:
    attractor = curve = None
    if data.class_names == BLOOD_CELLS.names:
        found = {name: _attractor(net) for name, net in networks.items()}
        attractor = {name: one for name, one in found.items() if one}
    if data.collection == study.COLLECTION and {_TABLE_1, _CURVE} <= networks.keys():
        curve = _nearest_to_the_curve(networks, dynamics_first, dynamics_last)
    return Findings(attractor, curve)


def _attractor(network: Network) -> Attractor | None:
    """The class that most errors end in; None where there are none."""
    pooled = np.array(network.confusion_matrix_pooled, dtype=np.int64)
    errors = attraction(pooled)
    winner = int(errors.argmax())
    if errors[winner] == 0:
        return None
    others = pooled.sum() - pooled[winner].sum()
    return Attractor(
        label=winner,
        class_name=BLOOD_CELLS.names[winner],
        errors=int(errors[winner]),
        all_errors=int(errors.sum()),
        share_of_other_images=float(errors[winner] / others),
    )


def _nearest_to_the_curve(
    networks: Mapping[str, Network],
    dynamics_first: Sequence[Against],
    dynamics_last: Sequence[Against],
) -> CurveFinding:
    both = (_TABLE_1, _CURVE)
    points = [
        *_points("first_epoch", dynamics_first, both),
        *_points("last_epoch", dynamics_last, both),
    ]
    return CurveFinding(
        points=tuple(points),
        num_nearer=sum(point.nearer == _CURVE for point in points),
        num_within={name: sum(name in point.within_range for point in points) for name in both},
        full_length=all(
            networks[name].settings.training.epochs == study.CURVE_EPOCHS for name in both
        ),
    )


def _points(epoch: Epoch, rows: Sequence[Against], names: Sequence[str]) -> list[CurvePoint]:
    """The rows that all the networks named have: runs may not have watched the test split."""
    points: list[CurvePoint] = []
    for row in rows:
        if row.difference.keys() >= set(names):
            distance = {name: abs(row.difference[name]) for name in names}
            nearer = min(distance, key=distance.__getitem__)
            within = tuple(name for name in names if row.within_range[name])
            points.append(CurvePoint(epoch, row.key, distance, nearer, within))
    return points
