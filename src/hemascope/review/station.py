"""What all parts of the station share: its model, its memory, its classes."""

from collections.abc import Generator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from threading import BoundedSemaphore
from typing import Annotated, Any

from pydantic import Field
from sqlalchemy import select
from sqlalchemy.orm import Session

from hemascope import __version__
from hemascope.core.classes import Role, role_of
from hemascope.core.errors import DataError
from hemascope.inference.efficiency import cores
from hemascope.inference.predictor import Predictor
from hemascope.review.database import Case, Database, OwnClass
from hemascope.review.images import ImageStore
from hemascope.review.intake import Limits
from hemascope.review.problems import Refused
from hemascope.review.schemas import NOT_COUNTED, ClassInfo, ModelInfo
from hemascope.settings.base import Settings, load_toml

Percent = Annotated[float, Field(ge=0, le=100)]

MOST_OWN = 15  # classes of the station's own
_KEYS = "123456789abcdefghijklmnopqrstuvwxyz"
_LAST = ClassInfo(name=NOT_COUNTED, role=Role.NOT_COUNTED, key="0", color="#767676")
# Source: Okabe & Ito, and Tol's muted scheme: also for the color-blind; repeated beyond.
_COLORS = """#0072b2 #e69f00 #009e73 #cc79a7 #d55e00 #56b4e9 #882255 #44aa99 #999933 #aa4499
#332288 #117733 #cc6677 #88ccee #661100"""
_WAIT_SECONDS = 20.0  # for a turn to ask the model


class Meanings(Settings):
    """A user's file: what classes count as, and reference ranges in percent of white cells."""

    roles: dict[str, Role] = Field(default_factory=dict)
    ranges: dict[str, tuple[Percent, Percent]] = Field(default_factory=dict)


def read_meanings(path: Path, class_names: tuple[str, ...]) -> Meanings:
    """What classes count as, from a TOML file with the tables `roles` and `ranges`.

    Raises:
        DataError: If it cannot be read, or names classes that the model does not have.
    """
    found = load_toml(path, Meanings)
    if unknown := sorted({*found.roles, *found.ranges} - set(class_names)):
        why = f"{path} names classes that the model does not have: {', '.join(unknown)}"
        raise DataError(f"{why}; it has {', '.join(class_names)}.", field="roles")
    return found


@dataclass(eq=False)
class Station:
    """A model, a database and a folder of pictures.

    Attributes:
        database: What is remembered.
        folder: Where images are.
        predictor: What answers, on one thread.
        meanings: What classes count as whose names do not tell, and the user's reference ranges.
        limits: What a request may hold.
    """

    database: Database
    folder: Path
    predictor: Predictor
    meanings: Meanings
    limits: Limits

    def __post_init__(self) -> None:
        self.images, self.threads = ImageStore(self.folder), cores()
        self._turns, self._line = BoundedSemaphore(self.threads), BoundedSemaphore(1)
        graph, info = self.predictor.graph, self.predictor.info
        self.model = ModelInfo(
            name=info.settings.name,
            sha256=self.predictor.digest,
            precision=graph.precision,
            image_size=info.image.size,
            version=__version__,
        )

    def classes(self, session: Session, model: Mapping[str, Any] | None = None) -> list[ClassInfo]:
        """The classes of a case's model, by default the station's, and the station's own.

        A class that a model has learned keeps the role that it was given in the station.
        """
        names = list(model["class_names"] if model else self.predictor.class_names)
        own = session.scalars(select(OwnClass).order_by(OwnClass.created_at, OwnClass.name))
        given = {one.name: Role(one.role) for one in own}
        chosen = given | self.meanings.roles
        roles = {name: chosen.get(name) or role_of(name) for name in names}
        mine = {name: role for name, role in given.items() if name not in roles}
        colors = _COLORS.split()
        infos = [
            ClassInfo(
                name=name,
                role=role or Role.WHITE,
                key=_KEYS[place : place + 1],  # none, when they are used up
                color=colors[place % len(colors)],
                own=name in mine,
                guessed=role is None,
                reference=self.meanings.ranges.get(name),
            )
            for place, (name, role) in enumerate({**roles, **mine}.items())
        ]
        return [*infos, _LAST]

    def described_model(self) -> dict[str, Any]:
        """The model as a case remembers it."""
        names, graph = list(self.predictor.class_names), self.predictor.graph.sha256
        told = {"class_names": names, "graph_sha256": graph, "framing": self.predictor.spec.digest}
        return {**self.model.model_dump(), **told}

    def has_maps(self, case: Case) -> bool:
        """Whether it can show where the network sees what this case's cells were answered."""
        is_same = case.model["sha256"] == self.model.sha256
        return is_same and self.predictor.graph.has_maps and not case.fit.layer

    @contextmanager
    def turn(self, *, in_line: bool = False) -> Generator[None]:
        """A turn to ask the model; as many at once as there are cores.

        Args:
            in_line: Whether to wait for all others in line as well. Small requests, most of which
                is Python's own work, only slow each other down side by side.

        Raises:
            Refused: If none comes within a while.
        """
        with ExitStack() as held:
            for turns in (self._line, self._turns) if in_line else (self._turns,):
                if not turns.acquire(timeout=_WAIT_SECONDS):
                    raise Refused(503, "the station is busy; try again in a few seconds.")
                held.callback(turns.release)
            yield
