"""The options that several commands share, each written once, as groups that spread themselves."""

import inspect
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields, is_dataclass
from functools import wraps
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar, cast

import typer

Command = TypeVar("Command", bound=Callable[..., None])

NameOption = Annotated[
    str | None, typer.Option("--name", metavar="NAME", help="Name of the network in reports.")
]
OutOption = Annotated[
    Path, typer.Option("--out", metavar="DIR", help="New folder for the results.")
]
SplitOption = Annotated[
    Literal["train", "val", "test", "all"] | None,
    typer.Option("--split", help="Default: test, or all of data that has no splits."),
]
SeedsOption = Annotated[str, typer.Option("--seeds", metavar="LIST", help="Such as 0,1,2.")]
ModelArgument = Annotated[
    Path, typer.Argument(metavar="MODEL", help="A run folder, an exported model, or hemanet.")
]
ModelsArgument = Annotated[
    list[Path], typer.Argument(metavar="MODEL...", help="Run folders or their model/.")
]
RunsArgument = Annotated[
    list[Path], typer.Argument(metavar="RUN...", help="Run folders, or their parents.")
]


@dataclass(frozen=True)
class DataOptions:
    """Which data, and how it is read."""

    data: Annotated[
        list[str] | None,
        typer.Option(
            "--data",
            metavar="X",
            help="bloodmnist, synthetic (rendered cells), auto (bloodmnist, else synthetic), an "
            ".npz file, a folder of class folders, a table (.csv, .parquet) or an archive; may be "
            "repeated. Default: the run's own, else bloodmnist.",
        ),
    ] = None
    collection: Annotated[
        str | None,
        typer.Option(
            "--collection",
            metavar="KEY",
            help="Class names and picture recipe of a published collection, such as bloodmnist.",
        ),
    ] = None
    classes: Annotated[
        str | None,
        typer.Option(
            "--classes",
            metavar="LIST",
            help="Class names in the order of the labels: a,b,c or a file with one a line.",
        ),
    ] = None
    map_file: Annotated[
        Path | None,
        typer.Option("--map", metavar="FILE", help="TOML: which class of the data is which class."),
    ] = None
    image_size: Annotated[
        int | None,
        typer.Option("--image-size", metavar="N", min=8, max=1024, help="Image size in pixels."),
    ] = None
    crop: Annotated[
        float | None,
        typer.Option(
            "--crop", metavar="F", help="Share of each photograph's central square to use."
        ),
    ] = None
    group_from: Annotated[
        str | None,
        typer.Option(
            "--group-from",
            metavar="REGEX",
            help="Finds the patient or slide in a file's name; groups are never split. 'folder' "
            "takes the folder inside the class folder.",
        ),
    ] = None
    skip_bad: Annotated[
        bool, typer.Option("--skip-bad", help="Leave damaged files out, and list them.")
    ] = False
    skip_rare: Annotated[
        bool, typer.Option("--skip-rare", help="Leave out classes too small to be split.")
    ] = False

    def changes(self) -> dict[str, object]:
        """The fields of `DataSettings` that were given."""
        from hemascope.settings.data import read_classes, read_map

        given: dict[str, object] = {
            "sources": self.data and tuple(self.data),
            "collection": self.collection,
            "classes": self.classes and read_classes(self.classes),
            "map": self.map_file and read_map(self.map_file),
            "image_size": self.image_size,
            "crop": self.crop,
            "group_from": self.group_from,
            "skip_bad": self.skip_bad or None,
            "skip_rare": self.skip_rare or None,
        }
        return {name: value for name, value in given.items() if value is not None}

    @property
    def inputs(self) -> list[Path]:
        """The files that are read beside the data itself."""
        return [self.map_file] if self.map_file else []


@dataclass(frozen=True)
class ComputeOptions:
    """Where and in what a network computes."""

    device: Annotated[
        Literal["auto", "cpu", "cuda", "mps"] | None,
        typer.Option("--device", help="Device; auto prefers MPS, then CUDA."),
    ] = None
    precision: Annotated[
        Literal["auto", "fp32", "bf16", "fp16", "int8"] | None,
        typer.Option(
            "--precision",
            help="fp32 is exact; auto takes bf16 where available; fp16, int8: exported models.",
        ),
    ] = None
    views: Annotated[
        Literal["1", "8"] | None,
        typer.Option(
            "--views", help="Average over 8 flips and rotations (test-time augmentation)."
        ),
    ] = None

    def compute(self) -> Any:
        """The same as `Compute`."""
        from hemascope.settings.compute import Compute

        views = 8 if self.views == "8" else 1
        return Compute(device=self.device or "auto", precision=self.precision, views=views)


@dataclass(frozen=True)
class TrainingComputeOptions:
    """Where and in what a network is trained."""

    device: Annotated[
        Literal["auto", "cpu", "cuda", "mps"] | None,
        typer.Option("--device", help="Device; auto prefers MPS, then CUDA."),
    ] = None
    precision: Annotated[
        Literal["auto", "fp32", "bf16"] | None,
        typer.Option("--precision", help="fp32 is exact; auto takes bf16 where available."),
    ] = None
    views: Annotated[
        Literal["1", "8"] | None,
        typer.Option("--views", help="8 also evaluates with eight flips and rotations."),
    ] = None


@dataclass(frozen=True)
class OverwriteOptions:
    """Whether an earlier result may go."""

    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Delete what an earlier run left in --out.")
    ] = False


@dataclass(frozen=True)
class ResumeOptions(OverwriteOptions):
    """Whether an earlier result may go, or is to be resumed."""

    resume: Annotated[
        bool, typer.Option("--resume", help="Resume the interrupted run in --out, if any.")
    ] = False


def spread(command: Command) -> Command:
    """A command whose parameters of the groups above become typer's options one by one."""
    parameters: list[inspect.Parameter] = []
    groups: dict[str, tuple[type[Any], Sequence[str]]] = {}
    for parameter in inspect.signature(command).parameters.values():
        kind = parameter.annotation
        if not is_dataclass(kind):
            parameters.append(parameter)
            continue
        names = [field.name for field in fields(kind)]
        groups[parameter.name] = (cast("type[Any]", kind), names)
        own = inspect.signature(cast("type[Any]", kind)).parameters
        parameters += [own[name] for name in names]
    keyword_only = [p.replace(kind=inspect.Parameter.KEYWORD_ONLY) for p in parameters]

    @wraps(command)
    def wrapper(**values: Any) -> None:
        for name, (kind, names) in groups.items():
            values[name] = kind(**{field: values.pop(field) for field in names})
        command(**values)

    wrapper.__signature__ = inspect.Signature(keyword_only)  # type: ignore[attr-defined]
    wrapper.__annotations__ = {p.name: p.annotation for p in keyword_only}
    return cast("Command", wrapper)
