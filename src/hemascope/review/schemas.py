"""What the station says and is told, as JSON."""

from collections.abc import Sequence
from typing import Annotated, Generic, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, TypeAdapter

from hemascope.core.classes import Role

NOT_COUNTED = "not counted"  # what a reader cannot name, and does not count

Id = Annotated[str, Field(pattern=r"^[0-9a-f]{32}$")]
_PLAIN = r"^[^\x00-\x1f\x7f]*$"  # no control characters, which no database column takes
Name = Annotated[str, StringConstraints(strip_whitespace=True, min_length=1, max_length=100)]
Named = Annotated[Name, Field(pattern=r"^[^\x00-\x1f\x7f]*[^\s\x00-\x1f\x7f][^\x00-\x1f\x7f]*$")]
ClassName = Annotated[str, Field(max_length=200, pattern=_PLAIN)]
Comment = Annotated[str, Field(max_length=2000, pattern=r"^[^\x00]*$")]
Limit = Annotated[int, Field(ge=1, le=500)]


class _Sent(BaseModel):
    model_config = ConfigDict(extra="forbid")


class NewReader(_Sent):
    """Someone who will name cells."""

    name: Named


class NewClass(_Sent):
    """A class of the station's own."""

    name: Annotated[Named, Field(max_length=60)]
    role: Role


class NewCase(_Sent):
    """Cells to be counted together, and their first reader."""

    name: Named
    reader: Id


class ByReader(_Sent):
    """Who asks."""

    reader: Id


class Reopening(ByReader):
    """Why a signed case is opened again."""

    reason: Named


class Renaming(ByReader):
    """Another name of a case."""

    name: Named


class Change(_Sent):
    """What a reader says of a cell (null: nothing any more), and what the page showed before."""

    cell: Id
    was: ClassName = Field(alias="from")
    to: ClassName | None
    comment: Comment | None = None


class Corrections(ByReader):
    """Changes that are all kept, or none."""

    changes: Annotated[list[Change], Field(min_length=1, max_length=5000)]


class SeenClasses(ByReader):
    """Classes that the reader has looked through."""

    classes: Annotated[list[ClassName], Field(min_length=1, max_length=100)]


class NewQuiz(ByReader):
    """How many signed cells to show again."""

    size: Annotated[int, Field(ge=1, le=200)] = 20


class QuizAnswer(_Sent):
    """What the reader says of a cell of a quiz."""

    number: Annotated[int, Field(ge=1, le=200)]
    class_name: ClassName = Field(alias="class")


class Token(_Sent):
    """The station's token."""

    token: Annotated[str, Field(max_length=200)]


CASE_PLACE = TypeAdapter(tuple[Annotated[ClassName, Field(max_length=40)], Id])  # when made, id
CELL_PLACE = TypeAdapter(tuple[int])  # its position
T = TypeVar("T")


class Items(BaseModel, Generic[T]):
    """All of some things."""

    items: Sequence[T]


class Page(Items[T], Generic[T]):
    """Some of many things, and where the next page begins."""

    next_cursor: str | None


class _Own(BaseModel):
    """What is kept by an id."""

    id: str
    created_at: str


class ReaderInfo(_Own):
    """A reader."""

    model_config = ConfigDict(from_attributes=True)
    name: str


class ClassInfo(BaseModel):
    """A class: what it counts as, and how the page shows it."""

    name: str
    role: Role
    key: str
    color: str
    own: bool = False
    guessed: bool = False
    reference: tuple[float, float] | None = None


class ModelInfo(BaseModel):
    """The model that answered."""

    name: str
    sha256: str
    precision: str
    image_size: int
    version: str


class _OfClass(BaseModel):
    """What is said of a class."""

    class_name: str = Field(serialization_alias="class")


class CellInfo(_OfClass):
    """A cell as one reader sees it."""

    id: str
    name: str
    position: int
    image: str | None = None
    thumbnail: str | None = None
    error: str
    note: str
    warning: str = ""
    abstain: bool
    distance: float | None = None
    predicted_class: str
    confidence: float | None = None
    prediction_set: list[str] = []
    probs: dict[str, float] = {}
    read: bool
    comment: str


class Share(BaseModel):
    """A share in percent, with its exact 95 % interval."""

    count: int
    percent: float | None
    low: float
    high: float


class WhiteRow(_OfClass, Share):
    """A kind of white cell: as confirmed, as the model counted it, and the reference range."""

    pre: Share
    reference: tuple[float, float] | None


class PrePer100(BaseModel):
    """Cells per 100 white ones, as the model counted them."""

    count: int
    per_100: float | None


class Per100Row(_OfClass, PrePer100):
    """Cells counted beside the white ones, per 100 of them."""

    low: float | None
    high: float | None
    pre: PrePer100


class CountRow(_OfClass):
    """Cells outside the count."""

    count: int


class Kept(Share):
    """How often readers kept what the model said: of so many cells."""

    total: int


class Differential(BaseModel):
    """A differential count."""

    counted: int
    target: int
    warning: str
    rows: list[WhiteRow]
    per_100: list[Per100Row]
    not_counted: list[CountRow]
    unidentified: int
    read: int = Field(description="Cells that the reader named or confirmed one by one.")
    kept: Kept
    notes: list[str]


class Counts(BaseModel):
    """How many cells are in which state."""

    cells: int
    waiting: int
    unreadable: int
    unidentified: int


class CaseLine(_Own):
    """What a case is called, and whether it is signed."""

    name: str
    status: Literal["open", "signed"]
    signed_at: str | None


class CaseSummary(CaseLine):
    """A line in the list of cases."""

    num_cells: int
    num_unidentified: int


class SeenInfo(BaseModel):
    """Classes with cells: looked through, and not yet."""

    seen: list[str]
    unseen: list[str]


class CaseInfo(CaseLine, SeenInfo):
    """A case as one reader sees it."""

    version: int
    signed_by: str | None
    model: ModelInfo
    frame: str
    has_maps: bool
    shift: str
    first: ReaderInfo
    second: ReaderInfo | None
    second_finished: bool
    role: Literal["first", "second", ""]
    classes: list[ClassInfo]
    counts: Counts
    blockers: list[str]
    differential: Differential


class Added(BaseModel):
    """What came of an upload."""

    added: int
    known: int
    passed_over: list[str]
    cells: list[CellInfo]


class Corrected(BaseModel):
    """The cells that were changed, and the count now."""

    cells: list[CellInfo]
    version: int
    differential: Differential


class EventInfo(BaseModel):
    """One line of the audit trail."""

    model_config = ConfigDict(from_attributes=True)
    at: str
    reader: str
    kind: str
    cell: str = Field(validation_alias="cell_id")
    before: str = Field(serialization_alias="from")
    after: str = Field(serialization_alias="to")
    detail: str


class ReferenceCell(_OfClass):
    """A signed cell of the station."""

    case: str
    case_name: str
    cell: str
    image: str
    thumbnail: str
    similarity: float | None = None


class ClassAgreement(_OfClass):
    """Two readers on one class."""

    kappa: float | None
    first: int
    second: int


class Differing(BaseModel):
    """A cell that two readers name differently."""

    cell: str
    first: str
    second: str


class Compared(_OfClass):
    """Two readers' shares of white cells, in percent, and how far they may be apart by chance."""

    first_percent: float
    second_percent: float
    difference: float
    limit: float
    within: bool


class Agreement(BaseModel):
    """Two readers of one case."""

    n: int
    kappa: float | None
    low: float | None
    high: float | None
    agree_percent: float
    per_class: list[ClassAgreement]
    differing: list[Differing]
    comparison: list[Compared]
    note: str


class KeptRow(_OfClass, Kept):
    """The same for one class of the model."""


class KeptMonth(Kept):
    """The same for the cases signed in a month, such as 2026-11."""

    month: str


class KeptOverall(BaseModel):
    """How often readers kept what the model said, over all signed cases."""

    cases: int
    rows: list[KeptRow]
    months: list[KeptMonth]


class QuizItem(BaseModel):
    """A cell of a quiz."""

    number: int
    image: str
    thumbnail: str
    answer: str


class QuizOutcome(_OfClass):
    """What was signed, and what the reader said."""

    number: int
    answer: str


class QuizScore(BaseModel):
    """How far the reader's answers are those that were signed."""

    n: int
    agree_percent: float
    low: float
    high: float


class QuizResult(QuizScore):
    """The same with each class and each cell."""

    kappa: float | None
    per_class: list[ClassAgreement]
    items: list[QuizOutcome]


class QuizInfo(_Own):
    """Signed cells shown again, blind until all are answered."""

    size: int
    items: list[QuizItem]
    result: QuizResult | None


class QuizLine(_Own, QuizScore):
    """A finished quiz in a reader's list."""


class Problem(BaseModel):
    """What went wrong, after RFC 9457."""

    model_config = ConfigDict(extra="allow")
    type: str = "about:blank"
    title: str
    status: int
    detail: str
    field: str | None = None
