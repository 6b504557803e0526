"""A model card and a data card, under the headings of TRIPOD+AI and CLAIM.

Their texts are templates, in `templates/*_card.toml`.

Sources: Collins et al., TRIPOD+AI, BMJ 2024; Tejani et al., CLAIM 2024 update, Radiology: AI 2024.
"""

import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import resources

from hemascope.core.errors import RESEARCH_USE_ONLY
from hemascope.core.images import DataDescription
from hemascope.data.collections import collections
from hemascope.metrics.summary import estimate
from hemascope.report.network import Network
from hemascope.report.numbers import quoted
from hemascope.report.page import environment
from hemascope.settings.run import RunSettings
from hemascope.store.provenance import BaseNetwork, Provenance
from hemascope.store.run_folder import RunResults

Card = list[tuple[str, str]]  # heading and text
_MACROS = '{% import "cards.jinja" as say with context %}'


def model_card(
    settings: RunSettings,
    data: DataDescription,
    *,
    num_parameters: int,
    base: BaseNetwork | None,
    facts: Provenance | None,
    performance: str,
) -> Card:
    """The card of a network.

    Args:
        settings: How the network was trained.
        data: What it was trained on.
        num_parameters: Of the network.
        base: The network it began from, if it did.
        facts: What it was made with; None in a model that is passed on, which names no machine.
        performance: Its figures on test, in sentences; empty if they are not known.
    """
    return filled(
        "model_card",
        data,
        settings=settings,
        training=settings.training,
        augmentation=settings.training.augmentation,
        num_parameters=num_parameters,
        base=base,
        facts=facts,
        performance=performance,
    )


def data_card(data: DataDescription) -> Card:
    """The card of a data set."""
    return filled("data_card", data)


def filled(name: str, data: DataDescription, **values: object) -> Card:
    """The card of `templates/NAME.toml`, whose headings without a text are left out."""
    pages = environment(autoescape=False)
    values |= {
        "data": data,
        "published": collections().get(data.collection),
        "is_bloodmnist": data.collection == "bloodmnist",
        "notice": RESEARCH_USE_ONLY,
    }
    source = resources.files("hemascope.report") / "templates" / f"{name}.toml"
    card: Card = []
    for heading, text in tomllib.loads(source.read_text("utf-8")).items():
        if said := pages.from_string(_MACROS + text).render(values).strip():
            card.append((heading, said))
    return card


@dataclass(frozen=True)
class Entry:
    """What cards say under one heading: once where they agree, else by the cards' names."""

    heading: str
    texts: Sequence[tuple[str, str]]
    differs: bool


def joined(cards: Mapping[str, Card]) -> list[Entry]:
    """Several cards as one that marks what differs."""
    entries: list[Entry] = []
    for heading in dict.fromkeys(heading for card in cards.values() for heading, _ in card):
        names: dict[str, list[str]] = {}
        for name, card in cards.items():
            names.setdefault(dict(card).get(heading, "not given"), []).append(name)
        texts = [(", ".join(of), text) for text, of in names.items()]
        entries.append(Entry(heading, texts, differs=len(texts) > 1))
    return entries


def card_markdown(title: str, card: Card) -> str:
    """A card as a Markdown file of its own."""
    page = environment(autoescape=False).get_template("card.md.jinja")
    return page.render(title=title, card=card, notice=RESEARCH_USE_ONLY)


def performance(network: Network, results: RunResults) -> str:
    """What a card quotes: no share without its number of images and its interval."""
    seeds = f", mean of {network.n} seeds" if network.n > 1 else ""
    parts = [f"accuracy {quoted(network.accuracy)}"]
    if network.n == 1 and (views := results.with_views):
        of_views = estimate(views.accuracy, results.num_images)
        parts.append(f"accuracy with {views.num_views} views {quoted(of_views)}")
    if network.f1_macro:
        parts.append(f"macro F1 {quoted(network.f1_macro)}")
    if name := network.worst_class:
        found = network.per_class[name].sensitivity
        parts += [f"lowest sensitivity {quoted(found)}, of {name}"] if found else []
    return f"{results.data}, split {results.split}{seeds}, with 95 % intervals: {'; '.join(parts)}."
