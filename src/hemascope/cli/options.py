"""The options that several commands share, each written once, as groups that spread themselves."""

import inspect
import re
from collections.abc import Callable
from dataclasses import dataclass, fields, is_dataclass
from functools import wraps
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, TypeVar

import typer
from typer import Argument, Option
from typer.core import TyperCommand

if TYPE_CHECKING:
    from hemascope.settings.compute import Compute

Command = TypeVar("Command", bound=Callable[..., str | None])

DeviceOption = Annotated[
    Literal["auto", "cpu", "cuda", "mps"] | None,
    Option(help="Device; auto prefers MPS, then CUDA."),
]
ViewsOption = Annotated[
    Literal[1, 8] | None,
    Option(
        help="8: the mean over flips and rotations; default: 1, or 8 if the last layer is moved."
    ),
]
SavedViewsOption = Annotated[
    Literal[1, 8] | None, Option(help="8: the saved predictions with 8 views.")
]
NameOption = Annotated[str | None, Option(metavar="NAME", help="Name of the network in reports.")]
OutOption = Annotated[Path, Option(metavar="DIR", help="New folder for the results.")]
AlsoOutOption = Annotated[Path | None, Option(metavar="DIR", help="Also write the results here.")]
FrameOption = Annotated[
    str | None,
    Option(
        metavar="HOW",
        help="auto (crop the images to their cells), whole, cell (find the one white cell in "
        "each), or a frame file of predict. Default: the model's own.",
    ),
]
AsTrainedOption = Annotated[
    bool,
    Option("--as-trained", help="Do not move the last layer to images unlike those of training."),
]
SplitOption = Annotated[
    Literal["train", "val", "test", "all"] | None,
    Option(help="Default: test, or all where data has no splits."),
]
ModelArgument = Annotated[
    Path, Argument(metavar="MODEL", help="A run folder, an exported model, or a packaged one.")
]
ModelsArgument = Annotated[
    list[Path], Argument(metavar="MODEL...", help="Run folders or their model/.")
]
RunsArgument = Annotated[
    list[Path], Argument(metavar="RUN...", help="Run folders, or their parents.")
]
TableFormatOption = Annotated[
    Literal["md", "csv", "latex", "json"],
    Option("--format", help="Format of tables on standard output."),
]
DATA_DIR = "~/hemascope-station"
DataDirOption = Annotated[
    Path | None, Option(metavar="DIR", help=f"Folder of the review station. Default: {DATA_DIR}.")
]
DatabaseOption = Annotated[
    str, Option(metavar="URL", help="postgresql+psycopg://... instead of SQLite in the folder.")
]
SourceArgument = Annotated[list[str] | None, Argument(metavar="X...", help="Data, as for --data.")]


@dataclass(frozen=True)
class DataOptions:
    """Which data, and how it is read."""

    data: Annotated[
        list[str] | None,
        Option(
            metavar="X",
            help="bloodmnist, synthetic (rendered cells), auto (bloodmnist, else synthetic), an "
            ".npz file, a folder of class folders, a table (.csv, .parquet) or an archive; may be "
            "repeated. Default: the run's own, else bloodmnist.",
        ),
    ] = None
    collection: Annotated[
        str | None,
        Option(
            metavar="KEY",
            help="Class names and image recipe of a published collection, such as bloodmnist.",
        ),
    ] = None
    classes: Annotated[
        str | None,
        Option(
            metavar="LIST",
            help="Class names in the order of the labels: a,b,c or a file with one per line.",
        ),
    ] = None
    map_file: Annotated[
        Path | None,
        Option("--map", metavar="FILE", help="TOML: which class of the data is which class."),
    ] = None
    image_size: Annotated[
        int | None, Option(metavar="N", min=8, max=1024, help="Image size in pixels.")
    ] = None
    crop: Annotated[
        float | None,
        Option(metavar="F", help="Share of each photograph's central square to use."),
    ] = None
    frame: FrameOption = None
    group_from: Annotated[
        str | None,
        Option(
            metavar="REGEX",
            help="Finds the patient or slide in a file's name; groups are never split. 'folder' "
            "takes the folder inside the class folder.",
        ),
    ] = None
    skip_bad: Annotated[
        bool, Option("--skip-bad", help="Leave damaged files out, and list them.")
    ] = False
    skip_rare: Annotated[
        bool, Option("--skip-rare", help="Leave out classes too small to be split.")
    ] = False

    def changes(self) -> dict[str, object]:
        """The fields of `DataSettings` that were given."""
        from hemascope.settings.data import read_classes, read_map

        given: dict[str, object] = {
            **{field.name: getattr(self, field.name) for field in fields(DataOptions)},
            "sources": self.data and tuple(self.data),
            "classes": self.classes and read_classes(self.classes),
            "map": self.map_file and read_map(self.map_file),
        }
        del given["data"], given["map_file"]  # which are called otherwise there
        return {name: v for name, v in given.items() if v is not None and v is not False}

    @property
    def inputs(self) -> list[Path]:
        """The files that are read beside the data itself."""
        return [self.map_file] if self.map_file else []


@dataclass(frozen=True)
class ComputeOptions:
    """Where and in what a network computes."""

    device: DeviceOption = None
    precision: Annotated[
        Literal["auto", "fp32", "bf16", "fp16", "int8"] | None,
        Option(help="fp32 is exact; auto takes bf16 where available; fp16, int8: exported models."),
    ] = None
    views: ViewsOption = None

    def compute(self) -> "Compute":
        """The same as `Compute`."""
        from hemascope.settings.compute import Compute

        return Compute(device=self.device or "auto", precision=self.precision, views=self.views)


@dataclass(frozen=True)
class TrainingComputeOptions:
    """Where and in what a network is trained."""

    device: DeviceOption = None
    precision: Annotated[
        Literal["auto", "fp32", "bf16"] | None,
        Option(help="fp32 is exact; auto takes bf16 where available."),
    ] = None


@dataclass(frozen=True)
class OverwriteOptions:
    """Whether an earlier result may go."""

    overwrite: Annotated[
        bool, Option("--overwrite", help="Delete what an earlier run left in --out.")
    ] = False


@dataclass(frozen=True)
class ResumeOptions(OverwriteOptions):
    """Whether an earlier result may go, or is to be resumed."""

    resume: Annotated[
        bool, Option("--resume", help="Resume the interrupted run in --out, if any.")
    ] = False


@dataclass(frozen=True)
class EvaluationOptions(OverwriteOptions, ComputeOptions, DataOptions):
    """Which images a trained model is asked about and how, and where the figures go."""

    split: SplitOption = None
    out: AlsoOutOption = None


_TITLES = {
    field.name: title
    for title, kind in (
        ("Data", DataOptions),
        ("Computation", ComputeOptions),
        ("Output", ResumeOptions),
    )
    for field in fields(kind)
} | {"split": "Data", "own_data": "Data", "out": "Output"}
_TITLES.update(dict.fromkeys(("threads", "devices", "nodes"), "Computation"))
_NUMBERS = {"<int range>": "N", "<float range>": "F"}


class GroupedCommand(TyperCommand):
    """A command whose help lists its options in groups, without Python's names of types."""

    def format_options(self, ctx: Any, formatter: Any) -> None:
        """Writes the groups, the command's own options first."""
        groups: dict[str, list[tuple[str, str]]] = {"Arguments": [], "Options": []}
        groups |= {title: [] for title in dict.fromkeys(_TITLES.values())} | {"Help": []}
        for parameter in self.get_params(ctx):
            if record := parameter.get_help_record(ctx):
                is_argument = parameter.param_type_name == "argument"
                own = "Arguments" if is_argument else "Options"
                name = str(parameter.name)
                title = own if is_argument else _TITLES.get(name, "Help" if name == "help" else own)
                shown = re.sub("<[^|<>]+>", lambda raw: _NUMBERS.get(raw[0], ""), record[0])
                groups[title].append((shown.strip(), record[1]))
        for title, rows in groups.items():
            if rows:
                with formatter.section(title):
                    formatter.write_dl(rows)


def command(app: typer.Typer, name: str | None = None) -> Callable[[Command], Command]:
    """Makes a function a command, which prints the text that the function returns.

    Parameters that are one of the groups above become typer's options one by one.
    """

    def register(function: Command) -> Command:
        parameters: list[inspect.Parameter] = []
        groups: dict[str, type[Any]] = {}
        for parameter in inspect.signature(function).parameters.values():
            kind: Any = parameter.annotation
            if isinstance(kind, type) and is_dataclass(kind):
                groups[parameter.name] = kind
                parameters += inspect.signature(kind).parameters.values()
            else:
                parameters.append(parameter)

        @wraps(function)
        def wrapper(**values: Any) -> None:
            for group, kind in groups.items():
                values[group] = kind(**{one.name: values.pop(one.name) for one in fields(kind)})
            text = function(**values)
            if text is not None:
                typer.echo(text)

        keyword_only = [p.replace(kind=inspect.Parameter.KEYWORD_ONLY) for p in parameters]
        wrapper.__signature__ = inspect.Signature(keyword_only)  # type: ignore[attr-defined]
        wrapper.__annotations__ = {p.name: p.annotation for p in keyword_only}
        app.command(name, cls=GroupedCommand)(wrapper)
        return function

    return register
