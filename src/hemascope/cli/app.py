"""The command line: parses, calls one workflow, prints what it returns."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from hemascope import __version__
from hemascope.cli.options import (
    ComputeOptions,
    DataOptions,
    ModelArgument,
    ModelsArgument,
    NameOption,
    OutOption,
    OverwriteOptions,
    ResumeOptions,
    RunsArgument,
    SeedsOption,
    SplitOption,
    TrainingComputeOptions,
    spread,
)

if TYPE_CHECKING:
    from hemascope.settings.data import DataSettings
    from hemascope.settings.output import Output

app = typer.Typer(
    name="hemascope",
    help="Classify peripheral blood cells, and show how far the answers can be trusted. "
    "Research use only.",
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
data_app = typer.Typer(help="Describe, check or download data.")
app.add_typer(data_app, name="data")


def _version(value: bool) -> None:
    if value:
        typer.echo(f"hemascope {__version__}")
        raise typer.Exit


@app.callback()
def _main(
    _version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    pass


@app.command()
@spread
def reproduce(
    out: OutOption,
    data: DataOptions,
    compute: TrainingComputeOptions,
    results: ResumeOptions,
    seeds: SeedsOption = "0,1,2",
    epochs_scale: Annotated[
        float,
        typer.Option(
            "--epochs-scale", metavar="F", help="Scale the number of epochs, for quick trials."
        ),
    ] = 1.0,
) -> None:
    """Reproduce the study and compare with it."""
    from hemascope.workflows.plan import STUDY_PRESETS, parse_seeds, scaled_presets

    plan = scaled_presets(
        STUDY_PRESETS,
        epochs_scale=epochs_scale,
        device=compute.device,
        precision=compute.precision,
    )
    numbers = parse_seeds(seeds)
    chosen = _data(data)
    output = _output(out, results, chosen, data.inputs)
    from hemascope.study.reproduce import reproduce as run
    from hemascope.workflows.progress import Reporter

    typer.echo(run(plan, chosen, output, seeds=numbers, reporter=Reporter()))


@app.command()
def demo(
    out: Annotated[
        Path | None, typer.Option("--out", metavar="DIR", help="Default: the next free runs/demo.")
    ] = None,
) -> None:
    """Reproduce the study with one seed, in minutes."""
    from hemascope.workflows.plan import STUDY_PRESETS, next_free, scaled_presets

    plan = scaled_presets(STUDY_PRESETS)
    chosen = _data(DataOptions(data=["auto"]))
    output = _output(out or next_free(Path("runs/demo")), ResumeOptions(), chosen)
    from hemascope.study.reproduce import reproduce as run
    from hemascope.workflows.progress import Reporter

    typer.echo(run(plan, chosen, output, seeds=(0,), reporter=Reporter()))


@app.command()
@spread
def train(
    out: OutOption,
    data: DataOptions,
    compute: TrainingComputeOptions,
    results: ResumeOptions,
    preset: Annotated[
        str | None,
        typer.Option(
            "--preset",
            metavar="NAME",
            help="hemanet (default), hemanet-robust, hemanet-tiny, paper-cnn, paper-cnn-curve or "
            "paper-mlnn.",
        ),
    ] = None,
    config: Annotated[
        Path | None,
        typer.Option("--config", metavar="FILE", help="TOML, such as a run's config.toml."),
    ] = None,
    name: NameOption = None,
    model: Annotated[
        str | None,
        typer.Option(
            "--model", metavar="NAME", help="Another architecture, such as timm/resnet18."
        ),
    ] = None,
    pretrained: Annotated[
        bool, typer.Option("--pretrained", help="With a timm model: start from its weights.")
    ] = False,
    start: Annotated[
        Path | None,
        typer.Option(
            "--start",
            metavar="MODEL",
            help="Start from a trained model (hemanet, a run); other classes get a new last layer.",
        ),
    ] = None,
    freeze: Annotated[bool, typer.Option("--freeze", help="Train the last layer only.")] = False,
    teacher: Annotated[
        Path | None,
        typer.Option("--teacher", metavar="MODEL", help="Distill from a trained model as well."),
    ] = None,
    loss: Annotated[
        Literal["cross-entropy", "focal", "weighted", "class-balanced"] | None,
        typer.Option("--loss", help="Instead of the preset's; the last three help rare classes."),
    ] = None,
    balanced: Annotated[bool, typer.Option("--balanced", help="Sample classes uniformly.")] = False,
    augment_only: Annotated[
        list[str] | None,
        typer.Option(
            "--augment-only",
            metavar="CLASS",
            help="Augment only images of this class; may be repeated.",
        ),
    ] = None,
    epochs: Annotated[
        int | None, typer.Option("--epochs", min=1, help="Instead of the preset's.")
    ] = None,
    seed: Annotated[
        int | None,
        typer.Option(
            "--seed", min=0, max=2**32 - 1, help="Random seed for initialization and shuffling."
        ),
    ] = None,
    folds: Annotated[
        int | None,
        typer.Option(
            "--folds", metavar="K", min=2, max=100, help="Cross-validate over K folds of groups."
        ),
    ] = None,
    leave_out: Annotated[
        Literal["laboratory", "group"] | None,
        typer.Option("--leave-out", help="Cross-validate: leave out each one in turn."),
    ] = None,
) -> None:
    """Train one network and evaluate it."""
    from hemascope.store.run_folder import RunFolder
    from hemascope.workflows.plan import choose_settings

    folder = RunFolder(out)
    if results.resume and preset is None and config is None and folder.config.is_file():
        config = folder.config
    changes = {
        "name": name,
        "model": None if model is None else {"name": model, "options": {}},
        "model.options.pretrained": pretrained or None,
        "start": start and str(start),
        "teacher": teacher and str(teacher),
        "training.freeze": freeze or None,
        "training.loss": loss,
        "training.balanced": balanced or None,
        "training.augmentation.only_classes": augment_only,
        "training.epochs": epochs,
        "seed": seed,
        "device": compute.device,
        "precision": compute.precision,
        "views": compute.views and int(compute.views),
    }
    settings = choose_settings(preset, config, changes)
    chosen = _data(data, settings.data)
    inputs = [Path(path) for path in (config, settings.start, settings.teacher) if path]
    output = _output(out, results, chosen, [*data.inputs, *inputs])
    from hemascope.workflows.progress import Reporter

    settings = settings.model_copy(update={"data": chosen})
    if folds or leave_out:
        from hemascope.workflows.folds import cross_validate

        scheme = leave_out or folds or 0
        typer.echo(cross_validate(settings, output, scheme=scheme, reporter=Reporter()))
        return
    from hemascope.workflows.train import train_and_tell as run

    typer.echo(run(settings, output, Reporter()))


@app.command()
@spread
def evaluate(
    model: ModelArgument,
    data: DataOptions,
    compute: ComputeOptions,
    results: OverwriteOptions,
    split: SplitOption = None,
    out: Annotated[
        Path | None, typer.Option("--out", metavar="DIR", help="Also write the results here.")
    ] = None,
    medmnist_csv: Annotated[
        Path | None,
        typer.Option(
            "--medmnist-csv", metavar="DIR", help="Also write what MedMNIST's evaluator reads."
        ),
    ] = None,
) -> None:
    """Evaluate a trained model on any data."""
    from hemascope.core.errors import UsageError

    own = _own_data(model)
    if medmnist_csv is not None and split == "all":
        raise UsageError("MedMNIST's evaluator knows train, val and test.", field="medmnist_csv")
    if medmnist_csv is not None and out is not None:
        one, other = medmnist_csv.resolve(), out.resolve()
        if one.is_relative_to(other) or other.is_relative_to(one):
            raise UsageError(
                "it and `out` lie in one another; give two folders apart.", field="medmnist_csv"
            )
    if medmnist_csv is not None and medmnist_csv.exists() and not medmnist_csv.is_dir():
        raise UsageError(f"{medmnist_csv} is a file; name a folder.", field="medmnist_csv")
    chosen = _data(data, own)
    split = split or (None if data.data else "test")
    output = _output(out, results, chosen, [*data.inputs, model]) if out else None
    from hemascope.analyses.evaluate.run import evaluate as run
    from hemascope.settings.output import Output
    from hemascope.workflows.progress import Reporter

    typer.echo(
        run(
            model,
            chosen,
            split,
            compute=compute.compute(),
            output=output,
            medmnist_csv=Output(medmnist_csv, results.overwrite) if medmnist_csv else None,
            reporter=Reporter(),
        )
    )


@app.command()
@spread
def corruptions(
    model: ModelArgument,
    data: DataOptions,
    compute: ComputeOptions,
    results: OverwriteOptions,
    split: SplitOption = None,
    out: Annotated[
        Path | None, typer.Option("--out", metavar="DIR", help="Also write the results here.")
    ] = None,
    against: Annotated[
        list[Path] | None,
        typer.Option("--against", metavar="MODEL", help="Compare with it; may be repeated."),
    ] = None,
) -> None:
    """Evaluate under nine corruptions."""
    own = _own_data(model)
    for path in against or ():
        _own_data(path)
    chosen = _data(data, own)
    split = split or (None if data.data else "test")
    output = _output(out, results, chosen, [*data.inputs, model, *(against or ())]) if out else None
    from hemascope.analyses.corruptions.run import corruptions as run
    from hemascope.workflows.progress import Reporter

    typer.echo(
        run(
            model,
            chosen,
            split,
            against=against or (),
            compute=compute.compute(),
            output=output,
            reporter=Reporter(),
        )
    )


@app.command()
@spread
def transfer(
    model: ModelArgument,
    data: DataOptions,
    compute: ComputeOptions,
    results: OverwriteOptions,
    split: SplitOption = None,
    out: Annotated[
        Path | None, typer.Option("--out", metavar="DIR", help="Also write the results here.")
    ] = None,
) -> None:
    """Evaluate on another laboratory's cells."""
    from hemascope.settings.data import Colors, read_colors

    _own_data(model)
    chosen = _data(data)
    colors: Colors = read_colors(data.map_file) if data.map_file else "none"
    output = _output(out, results, chosen, [*data.inputs, model]) if out else None
    from hemascope.analyses.transfer.run import transfer as run
    from hemascope.workflows.progress import Reporter

    typer.echo(
        run(
            model,
            chosen,
            split,
            colors=colors,
            compute=compute.compute(),
            output=output,
            reporter=Reporter(),
        )
    )


@app.command()
@spread
def ensemble(
    models: ModelsArgument,
    out: OutOption,
    data: DataOptions,
    compute: ComputeOptions,
    results: OverwriteOptions,
    name: NameOption = None,
) -> None:
    """Combine trained networks into one model."""
    own = [_own_data(path) for path in models]
    chosen = _data(data, own[0])
    output = _output(out, results, chosen, [*data.inputs, *models])
    from hemascope.workflows.ensemble import ensemble as run
    from hemascope.workflows.progress import Reporter

    asked = compute.compute()
    typer.echo(run(models, chosen, output, name=name, compute=asked, reporter=Reporter()))
    typer.echo(f"Model: {out}")


@app.command()
@spread
def prune(
    model: ModelArgument,
    out: OutOption,
    results: OverwriteOptions,
    keep: Annotated[
        float, typer.Option("--keep", metavar="F", help="Share of the channels to keep.")
    ] = 0.5,
) -> None:
    """Prune channels of a trained network."""
    from hemascope.workflows.plan import check_share

    _own_data(model)
    check_share("keep", keep)
    output = _output(out, results, inputs=[model])
    from hemascope.workflows.prune import prune as run

    typer.echo(run(model, output, keep=keep))


@app.command()
def table(
    folders: Annotated[
        list[Path], typer.Argument(metavar="DIR...", help="Folders of results, or their parents.")
    ],
    class_name: Annotated[
        str | None,
        typer.Option("--class", metavar="NAME", help="Also show the figures of one class."),
    ] = None,
) -> None:
    """Print saved results side by side."""
    from hemascope.report.table import read_results, table_text

    typer.echo(table_text(read_results(folders), class_name))


@app.command()
@spread
def compare(
    folders: RunsArgument,
    out: OutOption,
    results: OverwriteOptions,
    views: Annotated[
        Literal["1", "8"] | None, typer.Option("--views", help="8: predictions with 8 views.")
    ] = None,
    resamples: Annotated[
        int,
        typer.Option("--resamples", min=100, max=100_000, help="Number of bootstrap resamples."),
    ] = 2000,
) -> None:
    """Compare networks: intervals and paired tests."""
    from hemascope.store.run_folder import find_results

    find_results(folders)
    output = _output(out, results, inputs=folders)
    from hemascope.analyses.compare.run import compare as run

    typer.echo(run(folders, output, views=views == "8", num_resamples=resamples))
    typer.echo(f"Comparison: {out}")


@app.command()
@spread
def trust(
    folders: RunsArgument,
    out: OutOption,
    results: OverwriteOptions,
    views: Annotated[
        Literal["1", "8"] | None, typer.Option("--views", help="8: predictions with 8 views.")
    ] = None,
    coverage: Annotated[
        str,
        typer.Option("--coverage", metavar="LIST", help="Target coverage of the prediction sets."),
    ] = "0.95,0.99",
    accuracy: Annotated[
        float,
        typer.Option(
            "--accuracy", metavar="F", help="Target accuracy on the cells it does not abstain on."
        ),
    ] = 0.995,
) -> None:
    """Assess calibration, sets and abstention."""
    from hemascope.store.run_folder import find_results
    from hemascope.workflows.plan import check_share, parse_shares

    coverages = parse_shares("coverage", coverage)
    check_share("accuracy", accuracy)
    find_results(folders)
    output = _output(out, results, inputs=folders)
    from hemascope.analyses.trust.run import trust as run

    views8 = views == "8"
    typer.echo(run(folders, output, views=views8, coverages=coverages, accuracy=accuracy))
    typer.echo(f"Trust: {out}")


@app.command()
@spread
def explain(
    model: ModelArgument,
    out: OutOption,
    data: DataOptions,
    compute: ComputeOptions,
    results: OverwriteOptions,
    split: SplitOption = None,
    number: Annotated[
        int, typer.Option("--number", min=1, max=60, help="How many errors, and correct ones.")
    ] = 12,
) -> None:
    """Explain predictions with saliency maps."""
    chosen = _data(data, _own_data(model))
    split = split or (None if data.data else "test")
    output = _output(out, results, chosen, [*data.inputs, model])
    from hemascope.analyses.explain.run import explain as run
    from hemascope.workflows.progress import Reporter

    asked = compute.compute()
    typer.echo(
        run(model, chosen, split, output, num_images=number, compute=asked, reporter=Reporter())
    )


@app.command()
@spread
def audit(
    source: Annotated[list[str], typer.Argument(metavar="X...", help="What --data takes.")],
    data: DataOptions,
    results: OverwriteOptions,
    out: Annotated[
        Path | None, typer.Option("--out", metavar="DIR", help="Default: the next free runs/audit.")
    ] = None,
) -> None:
    """Audit data: duplicates, leaks, label errors."""
    from hemascope.workflows.plan import next_free

    chosen = _data(data, sources=source)
    output = _output(out or next_free(Path("runs/audit")), results, chosen, data.inputs)
    from hemascope.analyses.audit.run import audit as run
    from hemascope.workflows.progress import Reporter

    typer.echo(run(chosen, output, Reporter()))


@app.command()
@spread
def uncertainty(
    models: ModelsArgument,
    out: OutOption,
    data: DataOptions,
    compute: ComputeOptions,
    results: OverwriteOptions,
    samples: Annotated[
        int,
        typer.Option(
            "--samples", min=2, max=1000, help="Number of MC dropout and Laplace samples."
        ),
    ] = 30,
) -> None:
    """Compare uncertainty estimates."""
    own = [_own_data(path) for path in models]
    chosen = _data(data, own[0])
    output = _output(out, results, chosen, [*data.inputs, *models])
    from hemascope.analyses.doubt.run import uncertainty as run
    from hemascope.workflows.progress import Reporter

    asked = compute.compute()
    typer.echo(run(models, chosen, output, num_samples=samples, compute=asked, reporter=Reporter()))


@app.command()
@spread
def export(
    model: ModelArgument,
    out: OutOption,
    data: DataOptions,
    results: OverwriteOptions,
    int8: Annotated[
        bool, typer.Option("--int8", help="Also export an int8 graph (smaller, often faster).")
    ] = False,
    fp16: Annotated[
        bool, typer.Option("--fp16", help="Also export a half-precision graph.")
    ] = False,
    weights: Annotated[
        bool, typer.Option("--weights", help="Keep the weights, so that training can start here.")
    ] = False,
) -> None:
    """Export a trained network to ONNX for predict."""
    chosen = _data(data, _own_data(model))
    output = _output(out, results, chosen, [*data.inputs, model])
    from hemascope.workflows.export import export as run
    from hemascope.workflows.progress import Reporter

    typer.echo(
        run(model, chosen, output, int8=int8, fp16=fp16, weights=weights, reporter=Reporter())
    )


@app.command()
@spread
def benchmark(
    models: Annotated[
        list[Path],
        typer.Argument(
            metavar="MODEL...", help="Run folders, exported models, or names such as hemanet."
        ),
    ],
    results: OverwriteOptions,
    batch: Annotated[
        str, typer.Option("--batch", metavar="LIST", help="Batch sizes to time.")
    ] = "1,32,128,1024",
    threads: Annotated[
        str, typer.Option("--threads", metavar="LIST", help="Numbers, or all for all cores.")
    ] = "1,all",
    seconds: Annotated[
        float, typer.Option("--seconds", metavar="F", help="Seconds to time each configuration.")
    ] = 5.0,
    no_compile: Annotated[
        bool, typer.Option("--no-compile", help="Leave torch.compile out, which takes minutes.")
    ] = False,
    out: Annotated[
        Path | None, typer.Option("--out", metavar="DIR", help="Also write the results here.")
    ] = None,
) -> None:
    """Benchmark models on the CPU."""
    from hemascope.core.errors import UsageError
    from hemascope.inference.efficiency import cores
    from hemascope.store.model_folder import find_artifact
    from hemascope.workflows.plan import MOST_IMAGES, parse_counts

    batch_sizes = parse_counts("batch", batch, most=MOST_IMAGES)
    counts = parse_counts("threads", threads, most=cores(), total=cores())
    if not 0 < seconds <= 3600:  # a NaN is neither
        raise UsageError(
            f"it is {seconds}; give a number above 0 and up to 3600, such as 5.", field="seconds"
        )
    folders = [find_artifact(path) for path in models]
    output = _output(out, results, inputs=folders) if out else None
    from hemascope.analyses.speed.run import benchmark as run
    from hemascope.workflows.progress import Reporter

    typer.echo(
        run(
            models,
            batch_sizes=batch_sizes,
            threads=counts,
            seconds=seconds,
            compiled=not no_compile,
            output=output,
            reporter=Reporter(),
        )
    )


@app.command()
@spread
def predict(
    paths: Annotated[
        list[str],
        typer.Argument(
            metavar="PATH...",
            help="Images, folders, patterns in quotes, .npz, .zip or .tar files, or - for an image "
            "or a list of paths on standard input.",
        ),
    ],
    results: ResumeOptions,
    model: Annotated[
        str,
        typer.Option(
            "--model", metavar="MODEL", help="One that ships with hemascope, or an exported one."
        ),
    ] = "hemanet",
    out: Annotated[
        Path | None,
        typer.Option(
            "--out",
            metavar="FILE",
            help="Write all answers here: .csv, .jsonl, .parquet, or - for CSV on standard output.",
        ),
    ] = None,
    explain_dir: Annotated[
        Path | None,
        typer.Option(
            "--explain", metavar="DIR", help="Draw the evidence for each answer into a new folder."
        ),
    ] = None,
    precision: Annotated[
        Literal["fp32", "fp16", "int8"] | None,
        typer.Option("--precision", help="Graph of the model; default: the one it recommends."),
    ] = None,
    views: Annotated[
        Literal["1", "8"] | None,
        typer.Option(
            "--views", help="Average over 8 flips and rotations (test-time augmentation)."
        ),
    ] = None,
    coverage: Annotated[
        float | None,
        typer.Option(
            "--coverage",
            metavar="F",
            help="Coverage of the prediction sets: 0.95 or 0.99 (default).",
        ),
    ] = None,
    crop: Annotated[
        float | None,
        typer.Option(
            "--crop",
            metavar="F",
            help="Share of each photograph's central square to use; default: the model's own.",
        ),
    ] = None,
    threads: Annotated[
        int, typer.Option("--threads", min=0, max=1024, help="0 takes all cores.")
    ] = 0,
) -> None:
    """Classify cell images; flag uncertain ones.

    Exit code 1: some images could not be read, and their rows say why.
    """
    from hemascope.core.errors import UsageError
    from hemascope.data.inputs import check_inputs

    check_inputs(paths)
    if results.resume and (results.overwrite or out is None or str(out) == "-"):
        raise UsageError(
            "it continues an `out` file, and does not go with `overwrite`.", field="resume"
        )
    from hemascope.workflows.predict import Asked
    from hemascope.workflows.predict import predict as run
    from hemascope.workflows.progress import Reporter

    reporter = Reporter()
    asked = Asked(
        paths,
        model=model,
        out=out,
        explain=explain_dir,
        precision=precision,
        views=8 if views == "8" else 1,
        coverage=coverage,
        crop=crop,
        threads=threads,
        resume=results.resume,
        overwrite=results.overwrite,
    )
    outcome = run(asked, reporter)
    if out is None:
        outcome.print_table()
    reporter.say(outcome.summary())
    if out is not None and str(out) != "-":
        reporter.say(f"Answers: {out}")
    if outcome.num_failed:
        raise typer.Exit(1)


@app.command()
def report(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="The --out of reproduce.")],
) -> None:
    """Write the report of saved runs again."""
    from hemascope.store.run_folder import find_runs

    find_runs(folder)
    from hemascope.study.report import write_report

    typer.echo(write_report(folder))


SourceArgument = Annotated[
    list[str] | None, typer.Argument(metavar="X...", help="As --data takes.")
]


@data_app.command("info")
@spread
def data_info(data: DataOptions, source: SourceArgument = None) -> None:
    """Describe data: names, counts, channel statistics."""
    chosen = _data(data, sources=source)
    from hemascope.workflows.data import describe
    from hemascope.workflows.progress import Reporter

    typer.echo(describe(chosen, Reporter()))


@data_app.command("verify")
@spread
def data_verify(data: DataOptions, source: SourceArgument = None) -> None:
    """Check that data is readable and labeled."""
    chosen = _data(data, sources=source)
    from hemascope.workflows.data import verify
    from hemascope.workflows.progress import Reporter

    typer.echo(verify(chosen, Reporter()))


@data_app.command("download")
def data_download(
    source: Annotated[str, typer.Argument(metavar="X", help="bloodmnist.")] = "bloodmnist",
) -> None:
    """Download BloodMNIST into MedMNIST's cache."""
    from hemascope.workflows.data import fetch
    from hemascope.workflows.progress import Reporter

    typer.echo(fetch(source, Reporter()))


def _data(
    options: DataOptions,
    own: "DataSettings | None" = None,
    *,
    sources: Sequence[str] | None = None,
) -> "DataSettings":
    """What a command reads, refused at once where it is not there."""
    from hemascope.data import check_sources
    from hemascope.settings.data import chosen_data

    changes = options.changes()
    if sources:
        changes["sources"] = tuple(sources)
    chosen = chosen_data(changes, own)
    check_sources(chosen.sources)
    return chosen


def _own_data(model: Path) -> "DataSettings | None":
    """The data that a trained model knows; None where it has none.

    Raises:
        DataError: If there is no model.
    """
    from hemascope.store.model_folder import load_info

    own = load_info(model).settings.data
    return own if own.sources else None


def _output(
    out: Path,
    options: OverwriteOptions,
    data: "DataSettings | None" = None,
    inputs: Sequence[Path] = (),
) -> "Output":
    """Where results go, refused at once where they may not."""
    from hemascope.core.errors import OutputError, UsageError
    from hemascope.data import files_of
    from hemascope.settings.output import Output
    from hemascope.store.files import MARK, check_out

    resume = isinstance(options, ResumeOptions) and options.resume
    if resume and options.overwrite:
        raise UsageError("use either `resume` or `overwrite`, not both.")
    files = files_of(data.sources) if data else []
    for file in files:
        if file.is_dir() and out.resolve().is_relative_to(file.resolve()):
            raise OutputError(
                f"{out} lies inside the data {file}; choose another place.", field="out"
            )
    if not (resume and (out / MARK).is_file()):  # else the workflow looks at what is there
        check_out(out, overwrite=options.overwrite, inputs=[*files, *inputs])
    return Output(out, options.overwrite, resume)
