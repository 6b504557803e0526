"""The command line: parses, calls one workflow, prints what it returns."""

import os
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer
from typer import Argument, Option

from hemascope import __version__
from hemascope.cli.options import (
    DATA_DIR,
    AlsoOutOption,
    AsTrainedOption,
    ComputeOptions,
    DatabaseOption,
    DataDirOption,
    DataOptions,
    DeviceOption,
    EvaluationOptions,
    FrameOption,
    ModelArgument,
    ModelsArgument,
    NameOption,
    OutOption,
    OverwriteOptions,
    ResumeOptions,
    RunsArgument,
    SavedViewsOption,
    SourceArgument,
    SplitOption,
    TableFormatOption,
    TrainingComputeOptions,
    ViewsOption,
    command,
)
from hemascope.core.errors import OutputError, UsageError
from hemascope.settings.output import Output
from hemascope.workflows.progress import Reporter

if TYPE_CHECKING:
    from hemascope.settings.data import DataSettings

app = typer.Typer(
    name="hemascope",
    help="Classify peripheral blood cells, and show how far the answers can be trusted. "
    "Research use only.",
    context_settings={"help_option_names": ["-h", "--help"]},
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
data_app = typer.Typer(help="Describe, check, download or shard data.")
app.add_typer(data_app, name="data")
review_app = typer.Typer(help="Export what the review station keeps.")
app.add_typer(review_app, name="review")


def _version(value: bool) -> None:
    if value:
        typer.echo(f"hemascope {__version__}")
        raise typer.Exit


@app.callback()
def _main(
    _version: Annotated[
        bool, Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    pass


@command(app)
def reproduce(
    out: OutOption,
    data: DataOptions,
    compute: TrainingComputeOptions,
    results: ResumeOptions,
    seeds: Annotated[str, Option(metavar="LIST", help="Such as 0,1,2.")] = "0,1,2",
    epochs_scale: Annotated[
        float, Option(metavar="F", help="Scale the number of epochs, for quick trials.")
    ] = 1.0,
) -> str:
    """Reproduce the study and compare with it.

    Example: hemascope reproduce --data bloodmnist --out runs/study
    """
    from hemascope.workflows.plan import STUDY_PRESETS, parse_seeds, scaled_presets

    plan = scaled_presets(STUDY_PRESETS, epochs_scale, compute.device, compute.precision)
    numbers = parse_seeds(seeds)
    chosen = _data(data)
    output = _output(out, results, chosen, data.inputs)
    from hemascope.study.reproduce import reproduce as run

    return run(plan, chosen, output, seeds=numbers, reporter=Reporter())


@command(app)
def demo(
    out: Annotated[
        Path | None, Option(metavar="DIR", help="Default: the next free runs/demo.")
    ] = None,
) -> str:
    """Reproduce the study with one seed, in minutes.

    Example: hemascope demo
    """
    from hemascope.workflows.plan import next_free

    out, data = out or next_free(Path("runs/demo")), DataOptions(data=["auto"])
    return reproduce(out, data, TrainingComputeOptions(), ResumeOptions(), seeds="0")


@command(app)
def train(
    out: OutOption,
    data: DataOptions,
    compute: TrainingComputeOptions,
    results: ResumeOptions,
    preset: Annotated[
        str | None,
        Option(
            metavar="NAME",
            help="hemanet (default), hemanet-64, hemanet-64-labs, hemanet-robust, hemanet-tiny, "
            "paper-cnn, paper-cnn-curve or paper-mlnn.",
        ),
    ] = None,
    config: Annotated[
        Path | None, Option(metavar="FILE", help="TOML, such as a run's config.toml.")
    ] = None,
    name: NameOption = None,
    model: Annotated[
        str | None, Option(metavar="NAME", help="Another architecture, such as timm/resnet18.")
    ] = None,
    pretrained: Annotated[
        bool, Option("--pretrained", help="With a timm model: start from its weights.")
    ] = False,
    start: Annotated[
        Path | None,
        Option(
            metavar="MODEL",
            help="Start from a trained model (hemanet, a run); other classes get a new last layer.",
        ),
    ] = None,
    freeze: Annotated[bool, Option("--freeze", help="Train the last layer only.")] = False,
    teacher: Annotated[
        Path | None, Option(metavar="MODEL", help="Distill from a trained model as well.")
    ] = None,
    loss: Annotated[
        Literal["cross-entropy", "focal", "weighted", "class-balanced"] | None,
        Option(help="Instead of the preset's; the last three are meant for rare or hard classes."),
    ] = None,
    balanced: Annotated[bool, Option("--balanced", help="Sample classes uniformly.")] = False,
    augment_only: Annotated[
        list[str] | None,
        Option(metavar="CLASS", help="Augment only images of this class; may be repeated."),
    ] = None,
    epochs: Annotated[int | None, Option(min=1, help="Instead of the preset's.")] = None,
    seed: Annotated[
        int | None,
        Option(min=0, max=2**32 - 1, help="Random seed for initialization and shuffling."),
    ] = None,
    views: Annotated[
        Literal[1, 8] | None, Option(help="8 also evaluates with eight flips and rotations.")
    ] = None,
    folds: Annotated[
        int | None,
        Option(metavar="K", min=2, max=100, help="Cross-validate over K folds of groups."),
    ] = None,
    leave_out: Annotated[
        Literal["laboratory", "group"] | None,
        Option(help="Cross-validate: leave out each one in turn."),
    ] = None,
    tracker: Annotated[
        list[str] | None,
        Option(metavar="NAME", help="tensorboard or mlflow: show the run there; may be repeated."),
    ] = None,
    devices: Annotated[
        int | None, Option(metavar="N", min=1, help="Train on N GPUs, or CPU cores, at once.")
    ] = None,
    nodes: Annotated[
        int, Option(metavar="N", min=1, help="How many machines, each with --devices.")
    ] = 1,
) -> str | None:
    """Train one network and evaluate it.

    Example: hemascope train --preset hemanet-64 --data cells/ --out runs/cells
    """
    from hemascope.settings.compute import in_group, is_follower
    from hemascope.store.run_folder import RunFolder
    from hemascope.workflows.plan import choose_settings

    earlier = RunFolder(out).config
    if results.resume and preset is None and config is None and earlier.is_file():
        config = earlier
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
        "views": views,
    }
    settings = choose_settings(preset, config, changes)
    chosen = _data(data, settings.data)
    inputs = [Path(path) for path in (config, settings.start, settings.teacher) if path]
    output = _output(out, results, chosen, [*data.inputs, *inputs])
    settings = settings.model_copy(update={"data": chosen})
    is_group = (devices or 1) * nodes > 1
    if is_group and (leave_out or folds):
        raise UsageError("folds are trained in one process; leave it out.", field="devices")
    if is_group and not in_group():
        from hemascope.training.parallel import launch

        return launch(devices or 1, nodes, settings.device)
    reporter, watch = Reporter(quiet=is_follower()), None
    if tracker:
        from hemascope.scale.trackers import watch_with

        watch = watch_with(tracker, reporter)
    if scheme := leave_out or folds:
        from hemascope.workflows.folds import cross_validate

        return cross_validate(settings, output, scheme=scheme, reporter=reporter, watch=watch)
    from hemascope.workflows.train import train_and_tell

    return train_and_tell(settings, output, reporter, watch)


@command(app)
def sweep(
    file: Annotated[
        Path, Argument(metavar="FILE.toml", help="Which settings to search, and how long.")
    ],
    out: OutOption,
    data: DataOptions,
    results: ResumeOptions,
    engine: Annotated[
        Literal["process", "ray"],
        Option(help="ray: spread the trials over Ray's workers."),
    ] = "process",
    storage: Annotated[
        str | None,
        Option(metavar="URL", help="postgresql+psycopg://... in place of a journal in --out."),
    ] = None,
) -> str:
    """Search for the best settings on val.

    Several processes may work on one sweep: start the others with --resume.

    Example: hemascope sweep search.toml --data cells/ --out runs/sweep
    """
    chosen = _data(data)
    output = _output(out, results, chosen, [*data.inputs, file])
    from hemascope.scale.sweep import sweep as run

    return run(file, chosen, output, engine=engine, storage=storage or "", reporter=Reporter())


@command(app)
def evaluate(
    model: ModelArgument,
    asked: EvaluationOptions,
    medmnist_csv: Annotated[
        Path | None, Option(metavar="DIR", help="Also write what MedMNIST's evaluator reads.")
    ] = None,
    as_trained: AsTrainedOption = False,
) -> str:
    """Evaluate a trained model on any data.

    Example: hemascope evaluate runs/cells --data more-cells/ --out runs/more
    """
    own = _own_data(model)
    if medmnist_csv is not None:
        _check_medmnist(medmnist_csv, asked.split, asked.out)
    chosen, output = _evaluated(asked, own, model)
    from hemascope.analyses.evaluate.run import evaluate as run

    return run(
        model,
        chosen,
        _split(asked.split, asked),
        compute=asked.compute(),
        output=output,
        as_trained=as_trained,
        medmnist_csv=Output(medmnist_csv, asked.overwrite) if medmnist_csv else None,
        reporter=Reporter(),
    )


@command(app)
def corruptions(
    model: ModelArgument,
    asked: EvaluationOptions,
    against: Annotated[
        list[Path] | None, Option(metavar="MODEL", help="Compare with it; may be repeated.")
    ] = None,
) -> str:
    """Evaluate under nine corruptions.

    Example: hemascope corruptions hemanet-64-labs --data cells/
    """
    others = against or []
    chosen, output = _evaluated(asked, _own_data(model, *others), model, *others)
    from hemascope.analyses.corruptions.run import corruptions as run

    return run(
        model,
        chosen,
        _split(asked.split, asked),
        against=others,
        compute=asked.compute(),
        output=output,
        reporter=Reporter(),
    )


@command(app)
def transfer(
    model: ModelArgument,
    asked: EvaluationOptions,
) -> str:
    """Evaluate on another laboratory's cells.

    Example: hemascope transfer runs/cells --data theirs/ --map classes.toml
    """
    from hemascope.settings.data import read_colors

    _own_data(model)
    chosen, output = _evaluated(asked, None, model)
    colors = read_colors(asked.map_file) if asked.map_file else "none"
    from hemascope.analyses.transfer.run import transfer as run

    return run(
        model,
        chosen,
        asked.split,
        colors=colors,
        compute=asked.compute(),
        output=output,
        reporter=Reporter(),
    )


@command(app)
def ensemble(
    models: ModelsArgument,
    out: OutOption,
    data: DataOptions,
    compute: ComputeOptions,
    results: OverwriteOptions,
    name: NameOption = None,
) -> str:
    """Combine trained networks into one model.

    Example: hemascope ensemble runs/a runs/b runs/c --out runs/ensemble
    """
    chosen = _data(data, _own_data(*models))
    output = _output(out, results, chosen, [*data.inputs, *models])
    from hemascope.workflows.ensemble import ensemble as run

    asked = compute.compute()
    text = run(models, chosen, output, name=name, compute=asked, reporter=Reporter())
    return f"{text}\nModel: {out}"


@command(app)
def prune(
    model: ModelArgument,
    out: OutOption,
    results: OverwriteOptions,
    keep: Annotated[float, Option(metavar="F", help="Share of the channels to keep.")] = 0.5,
) -> str:
    """Prune channels of a trained network.

    Example: hemascope prune runs/cells --keep 0.5 --out runs/pruned
    """
    from hemascope.workflows.plan import check_share

    _own_data(model)
    check_share("keep", keep)
    output = _output(out, results, inputs=[model])
    from hemascope.workflows.prune import prune as run

    return run(model, output, keep=keep)


@command(app)
def table(
    folders: Annotated[
        list[Path], Argument(metavar="DIR...", help="Folders of results, or their parents.")
    ],
    class_name: Annotated[
        str | None, Option("--class", metavar="NAME", help="Also show the figures of one class.")
    ] = None,
    table_format: TableFormatOption = "md",
) -> str:
    """Print saved results side by side.

    Example: hemascope table runs/a runs/b
    """
    from hemascope.report.table import read_results, table_text

    return table_text(read_results(folders), class_name, table_format)


@command(app)
def compare(
    folders: RunsArgument,
    out: OutOption,
    results: OverwriteOptions,
    views: SavedViewsOption = None,
    resamples: Annotated[
        int, Option(min=100, max=100_000, help="Number of bootstrap resamples.")
    ] = 2000,
    table_format: TableFormatOption = "md",
) -> str:
    """Compare networks: intervals and paired tests.

    Example: hemascope compare runs/a runs/b --out runs/compared
    """
    from hemascope.store.run_folder import find_results

    find_results(folders)
    output = _output(out, results, inputs=folders)
    from hemascope.analyses.compare.run import compare as run

    text = run(folders, output, views=views == 8, num_resamples=resamples, how=table_format)
    return f"{text}\nComparison: {out}" if table_format == "md" else text


@command(app)
def trust(
    folders: RunsArgument,
    out: OutOption,
    results: OverwriteOptions,
    views: SavedViewsOption = None,
    coverage: Annotated[
        str, Option(metavar="LIST", help="Target coverage of the prediction sets.")
    ] = "0.95,0.99",
    accuracy: Annotated[
        float, Option(metavar="F", help="Target accuracy on the cells it does not abstain on.")
    ] = 0.995,
) -> str:
    """Assess calibration, sets and abstention.

    Example: hemascope trust runs/cells --out runs/trust
    """
    from hemascope.store.run_folder import find_results
    from hemascope.workflows.plan import check_share, parse_shares

    coverages = parse_shares("coverage", coverage)
    check_share("accuracy", accuracy)
    find_results(folders)
    output = _output(out, results, inputs=folders)
    from hemascope.analyses.trust.run import trust as run

    text = run(folders, output, views=views == 8, coverages=coverages, accuracy=accuracy)
    return f"{text}\nTrust: {out}"


@command(app)
def explain(
    model: ModelArgument,
    out: OutOption,
    data: DataOptions,
    results: OverwriteOptions,
    device: DeviceOption = None,
    split: SplitOption = None,
    number: Annotated[
        int, Option(min=1, max=60, help="How many errors and correct predictions to show.")
    ] = 12,
) -> str:
    """Explain predictions with saliency maps.

    Example: hemascope explain runs/cells --out runs/why
    """
    chosen = _data(data, _own_data(model))
    split = _split(split, data)
    output = _output(out, results, chosen, [*data.inputs, model])
    from hemascope.analyses.explain.run import explain as run

    asked = device or "auto"
    return run(model, chosen, split, output, num_images=number, device=asked, reporter=Reporter())


@command(app)
def audit(
    source: Annotated[list[str], Argument(metavar="X...", help="What --data takes.")],
    data: DataOptions,
    results: OverwriteOptions,
    out: Annotated[
        Path | None, Option(metavar="DIR", help="Default: the next free runs/audit.")
    ] = None,
) -> str:
    """Audit data: duplicates, leaks, label errors.

    Example: hemascope audit cells/ --out runs/audit
    """
    from hemascope.workflows.plan import next_free

    chosen = _data(data, sources=source)
    output = _output(out or next_free(Path("runs/audit")), results, chosen, data.inputs)
    from hemascope.analyses.audit.run import audit as run

    return run(chosen, output, Reporter())


@command(app)
def uncertainty(
    models: ModelsArgument,
    out: OutOption,
    data: DataOptions,
    results: OverwriteOptions,
    device: DeviceOption = None,
    samples: Annotated[
        int, Option(min=2, max=1000, help="Number of MC dropout and Laplace samples.")
    ] = 30,
) -> str:
    """Compare uncertainty estimates.

    Example: hemascope uncertainty runs/a runs/b --out runs/uncertainty
    """
    chosen = _data(data, _own_data(*models))
    output = _output(out, results, chosen, [*data.inputs, *models])
    from hemascope.analyses.doubt.run import uncertainty as run

    asked = device or "auto"
    return run(models, chosen, output, num_samples=samples, device=asked, reporter=Reporter())


@command(app)
def export(
    model: ModelArgument,
    out: OutOption,
    data: DataOptions,
    results: OverwriteOptions,
    int8: Annotated[
        bool, Option("--int8", help="Also export an int8 graph (smaller, often faster).")
    ] = False,
    fp16: Annotated[bool, Option("--fp16", help="Also export a half-precision graph.")] = False,
    weights: Annotated[
        bool, Option("--weights", help="Keep the weights, so that training can start here.")
    ] = False,
    about: Annotated[
        Path | None,
        Option(metavar="FILE", help="TOML: license of the weights, sources of the data."),
    ] = None,
    whole_pipeline: Annotated[
        bool,
        Option(
            "--whole-pipeline",
            help="Of an exported model: one graph that takes photographs of any size.",
        ),
    ] = False,
) -> str:
    """Export a trained network to ONNX for predict.

    Example: hemascope export runs/cells --int8 --out my-model
    """
    if whole_pipeline:
        if data.data or int8 or fp16 or weights or about:
            raise UsageError(
                "it takes an exported model as it is; leave the other options out.",
                field="whole_pipeline",
            )
        from hemascope.workflows.export import export_whole

        output = _output(out, results, inputs=[model])
        return export_whole(model, output, crop=data.crop, frame=data.frame or "")
    chosen = _data(data, _own_data(model))
    output = _output(out, results, chosen, [*data.inputs, model])
    from hemascope.settings.about import About
    from hemascope.settings.base import load_toml

    said = load_toml(about, About) if about else None
    from hemascope.workflows.export import export as run

    return run(
        model,
        chosen,
        output,
        int8=int8,
        fp16=fp16,
        weights=weights,
        about=said,
        reporter=Reporter(),
    )


@command(app)
def adapt(
    model: Annotated[str, Argument(metavar="MODEL", help="An exported model, or its name.")],
    out: OutOption,
    data: DataOptions,
    results: OverwriteOptions,
    unlabeled: Annotated[
        bool, Option("--unlabeled", help="Ignore labels: fit framing, guard, last layer.")
    ] = False,
    keep: Annotated[
        bool, Option("--keep", help="Keep the old classes beside those of the data.")
    ] = False,
    own_data: Annotated[
        list[str] | None,
        Option(metavar="X", help="What the model was trained on: lets --keep fit deeper layers."),
    ] = None,
    suggest: Annotated[
        int, Option(metavar="N", min=0, help="Write a table of the N cells most worth labeling.")
    ] = 0,
) -> str:
    """Fit an exported model to your laboratory.

    Labeled data (class folders, a table) give it a new last layer, and deeper ones where
    cross-validation supports it. Loose photographs fit framing and guard, and move the last layer
    to a laboratory that is unlike those of training.

    Example: hemascope adapt hemanet-64-labs --data cells.csv --out adapted
    """
    _needs("adapt", "matplotlib", "sklearn", "scipy")
    if not data.data:
        raise UsageError("it is missing; name your laboratory's images.", field="data")
    chosen = _data(data)
    output = _output(out, results, chosen, [*data.inputs, Path(model)])
    if suggest:
        from hemascope.workflows.adapt import suggest as run_suggest

        return run_suggest(model, chosen, output, count=suggest, reporter=Reporter())
    from hemascope.settings.data import DataSettings
    from hemascope.workflows.adapt import adapt as run

    if own_data and not keep:
        raise UsageError("it is for `keep`, which is not given.", field="own_data")
    deeper = None
    with suppress(ModuleNotFoundError):  # without torch the last layer is fitted alone
        from hemascope.workflows.deepen import Deeper

        deeper = Deeper
    return run(
        model,
        chosen,
        output,
        unlabeled=unlabeled,
        keep=keep,
        own_data=DataSettings(sources=tuple(own_data)) if own_data else None,
        deeper=deeper,
        reporter=Reporter(),
    )


@command(app)
def benchmark(
    models: Annotated[
        list[Path],
        Argument(
            metavar="MODEL...", help="Run folders, exported models, or names such as hemanet."
        ),
    ],
    results: OverwriteOptions,
    batch: Annotated[str, Option(metavar="LIST", help="Batch sizes to time.")] = "1,32,128,1024",
    threads: Annotated[
        str, Option(metavar="LIST", help="Numbers, or all for all cores.")
    ] = "1,all",
    seconds: Annotated[
        float, Option(metavar="F", help="Seconds to time each configuration.")
    ] = 5.0,
    no_compile: Annotated[
        bool, Option("--no-compile", help="Leave torch.compile out, which takes minutes.")
    ] = False,
    out: AlsoOutOption = None,
) -> str:
    """Benchmark models on the CPU.

    Example: hemascope benchmark hemanet hemanet-64-labs
    """
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

    return run(
        models,
        batch_sizes=batch_sizes,
        threads=counts,
        seconds=seconds,
        compiled=not no_compile,
        output=output,
        reporter=Reporter(),
    )


@command(app)
def predict(
    paths: Annotated[
        list[str],
        Argument(
            metavar="PATH...",
            help="Images, folders, patterns in quotes, .npz, .zip, .tar or .parquet files, URLs of "
            "these, or - for an image or a list of paths on standard input.",
        ),
    ],
    results: ResumeOptions,
    model: Annotated[
        str,
        Option(
            metavar="MODEL",
            help="A packaged model or an exported one. Default: hemanet-64-labs; hemanet if most "
            "of the first images are 28x28.",
        ),
    ] = "",
    out: Annotated[
        str | None,
        Option(
            metavar="FILE",
            help="Write all answers here: .csv, .jsonl, .parquet, or - for standard output. With "
            "ray: a new folder, or its URL, for Parquet files.",
        ),
    ] = None,
    output_format: Annotated[
        Literal["csv", "jsonl"], Option("--format", help="Format of answers on standard output.")
    ] = "csv",
    sort: Annotated[
        Literal["input", "confidence"], Option(help="confidence: the least confident first.")
    ] = "input",
    quiet: Annotated[
        bool, Option("--quiet", "-q", help="Print no progress, table or summary.")
    ] = False,
    explain_dir: Annotated[
        Path | None,
        Option(
            "--explain", metavar="DIR", help="Draw the evidence for each answer into a new folder."
        ),
    ] = None,
    precision: Annotated[
        Literal["fp32", "fp16", "int8"] | None,
        Option(help="Graph of the model; default: the one it recommends."),
    ] = None,
    views: ViewsOption = None,
    coverage: Annotated[
        float | None,
        Option(metavar="F", help="Coverage of the prediction sets: 0.95 or 0.99 (default)."),
    ] = None,
    crop: Annotated[
        float | None,
        Option(
            metavar="F",
            help="Share of each photograph's central square to use; default: the model's own.",
        ),
    ] = None,
    frame: FrameOption = None,
    as_trained: AsTrainedOption = False,
    threads: Annotated[int, Option(min=0, max=1024, help="0 takes all cores.")] = 0,
    engine: Annotated[
        Literal["local", "ray"], Option(help="ray: many processes, on one machine or more.")
    ] = "local",
    workers: Annotated[
        int | None,
        Option(min=1, max=100_000, metavar="N", help="Workers of ray; default: one per core."),
    ] = None,
) -> None:
    """Classify cell images; flag uncertain ones.

    Exit code 1: some images could not be read, and their rows say why.

    Example: hemascope predict cells/ --out answers.csv
    """
    # Read when NumPy is imported: each of the threads computes alone, or they wait for each other.
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    from hemascope.data.inputs import check_inputs

    to_file = out is not None and out != "-"
    if engine == "ray":
        if not to_file:
            raise UsageError("`engine` ray needs a folder for its answers.", field="out")
        _needs("scale", "ray", "pyarrow", "fsspec")
    elif workers is not None:
        raise UsageError("it goes with `engine` ray; see `threads`.", field="workers")
    check_inputs(paths)
    if results.resume and (results.overwrite or not to_file):
        raise UsageError(
            "it continues an `out` file and cannot be combined with `overwrite`.", field="resume"
        )
    from hemascope.workflows.predict import Asked
    from hemascope.workflows.predict import predict as run

    reporter = Reporter(quiet=quiet)
    asked = Asked(
        paths,
        model=model,
        out=Path(out) if out is not None else None,
        explain=explain_dir,
        precision=precision,
        views=views,
        coverage=coverage,
        crop=crop,
        frame=frame or "",
        as_trained=as_trained,
        threads=threads,
        resume=results.resume,
        overwrite=results.overwrite,
        output_format=output_format,
        by_confidence=sort == "confidence",
    )
    if engine == "ray" and out is not None:
        from hemascope.scale.ray_predict import predict as run_ray

        outcome = run_ray(asked, out, workers or 0, reporter)
    else:
        outcome = run(asked, reporter)
    if out is None and not quiet:
        outcome.print_table()
    reporter.say(outcome.summary())
    if to_file:
        reporter.say(f"Answers: {out}")
    if outcome.num_failed:
        raise typer.Exit(1)


@command(app)
def serve(
    data_dir: DataDirOption = None,
    model: Annotated[
        str,
        Option(metavar="MODEL", help="A packaged model or an exported one."),
    ] = "hemanet-64-labs",
    port: Annotated[int, Option(min=0, max=65535, help="0 takes a free one.")] = 8765,
    host: Annotated[
        str, Option(metavar="ADDRESS", help="Where to listen; any but loopback needs a token.")
    ] = "127.0.0.1",
    database: DatabaseOption = "",
    roles: Annotated[
        Path | None,
        Option(metavar="FILE", help="TOML: which classes are white cells; reference ranges."),
    ] = None,
    frame: FrameOption = None,
    keep_days: Annotated[
        int,
        Option(min=0, max=36500, metavar="N", help="Days that signed cases are kept; 0: no limit."),
    ] = 0,
    tls_cert: Annotated[Path | None, Option(metavar="FILE", help="Certificate, PEM.")] = None,
    tls_key: Annotated[Path | None, Option(metavar="FILE", help="Its key, PEM.")] = None,
    insecure: Annotated[
        bool, Option("--insecure", help="Listen beyond loopback without TLS, behind a proxy.")
    ] = False,
    new_token: Annotated[
        bool, Option("--new-token", help="Make a new token, which replaces the old one.")
    ] = False,
) -> None:
    """Review cells in the browser.

    Example: hemascope serve --data-dir station
    """
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # as for predict
    if (tls_cert is None) != (tls_key is None):
        raise UsageError("give `tls_cert` and `tls_key` together.")
    for name, path in (("tls_cert", tls_cert), ("tls_key", tls_key), ("roles", roles)):
        if path is not None and not path.is_file():
            raise UsageError(f"there is no file {path}.", field=name)
    _needs("serve", "fastapi", "sqlalchemy", "alembic", "uvicorn")
    from hemascope.review.serve import Served
    from hemascope.review.serve import serve as run

    served = Served(
        folder=data_dir or Path(DATA_DIR).expanduser(),
        model=model,
        database=database,
        host=host,
        port=port,
        roles=roles,
        frame=frame or "",
        keep_days=keep_days,
        tls=(tls_cert, tls_key) if tls_cert and tls_key else None,
        insecure=insecure,
        new_token=new_token,
    )
    run(served, Reporter())


@command(review_app, "export")
def review_export(
    as_dataset: Annotated[Path, Option(metavar="DIR", help="New folder: cells.csv and images.")],
    results: OverwriteOptions,
    cases: Annotated[
        list[str] | None, Argument(metavar="CASE...", help="Ids or names; default: all signed.")
    ] = None,
    data_dir: DataDirOption = None,
    database: DatabaseOption = "",
    only_read: Annotated[
        bool, Option("--only-read", help="Only cells that a reader named or confirmed.")
    ] = False,
) -> str:
    """Write signed cells as data for train and adapt.

    Example: hemascope review export --as-dataset signed
    """
    output = _output(as_dataset, results)
    folder = data_dir or Path(DATA_DIR).expanduser()
    if not folder.is_dir():
        raise UsageError(f"there is no station in {folder}.", field="data_dir")
    _needs("serve", "sqlalchemy", "alembic")
    from hemascope.review.database import open_database
    from hemascope.review.export import as_dataset as run
    from hemascope.review.images import ImageStore

    station, images = open_database(folder, database), ImageStore(folder)
    return run(station, images, cases or [], output, only_read=only_read)


@command(app)
def report(
    folder: Annotated[Path, Argument(metavar="DIR", help="The --out of reproduce.")],
) -> str:
    """Rebuild the report of saved runs.

    Example: hemascope report runs/study
    """
    from hemascope.store.run_folder import find_runs

    find_runs(folder)
    from hemascope.study.report import write_report

    return write_report(folder)


@command(data_app, "info")
def data_info(
    data: DataOptions,
    source: SourceArgument = None,
    as_json: Annotated[bool, Option("--json", help="Print JSON.")] = False,
) -> str:
    """Describe data: names, counts, channel statistics.

    Example: hemascope data info cells/
    """
    chosen = _data(data, sources=source)
    from hemascope.workflows.data import describe

    return describe(chosen, Reporter(), as_json=as_json)


@command(data_app, "verify")
def data_verify(data: DataOptions, source: SourceArgument = None) -> str:
    """Check that data is readable and labeled.

    Example: hemascope data verify cells/
    """
    chosen = _data(data, sources=source)
    from hemascope.workflows.data import verify

    return verify(chosen, Reporter())


@command(data_app, "download")
def data_download(
    source: Annotated[str, Argument(metavar="X", help="bloodmnist.")] = "bloodmnist",
) -> str:
    """Download BloodMNIST into MedMNIST's cache.

    Example: hemascope data download
    """
    from hemascope.workflows.data import fetch

    return fetch(source, Reporter())


@command(data_app, "shard")
def data_shard(
    out: OutOption,
    data: DataOptions,
    results: OverwriteOptions,
    source: SourceArgument = None,
) -> str:
    """Write data larger than memory as shards.

    Example: hemascope data shard cells/ --out shards
    """
    chosen = _data(data, sources=source)
    output = _output(out, results, chosen, data.inputs)
    from hemascope.workflows.data import shard

    return shard(chosen, output, Reporter())


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
    if sources and options.data:
        raise UsageError("name all of the data one way: as arguments, or here.", field="data")
    if sources:
        changes["sources"] = tuple(sources)
    chosen = chosen_data(changes, own)
    check_sources(chosen.sources)
    return chosen


def _evaluated(
    asked: EvaluationOptions, own: "DataSettings | None", *models: Path
) -> tuple["DataSettings", Output | None]:
    """What models are evaluated on, and where the figures go, if anywhere."""
    chosen, out = _data(asked, own), asked.out
    return chosen, _output(out, asked, chosen, [*asked.inputs, *models]) if out else None


def _split(split: SplitOption, data: DataOptions) -> SplitOption:
    """The split asked for; of the data that a run knows, test."""
    return split or (None if data.data else "test")


def _own_data(*models: Path) -> "DataSettings | None":
    """The data that the first of some trained models knows; None where it has none.

    Raises:
        DataError: If one of them is not a model.
    """
    from hemascope.store.model_folder import load_info

    first, *_ = [load_info(model).settings.data for model in models]
    return first if first.sources else None


def _output(
    out: Path,
    options: OverwriteOptions,
    data: "DataSettings | None" = None,
    inputs: Sequence[Path] = (),
) -> Output:
    """Where results go, refused at once where they may not."""
    from hemascope.data import files_of
    from hemascope.settings.compute import is_follower
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
    # else the workflow, in the first process of a group, looks at what is there
    if not (is_follower() or (resume and (out / MARK).is_file())):
        check_out(out, overwrite=options.overwrite, inputs=[*files, *inputs])
    return Output(out, options.overwrite, resume)


def _needs(extra: str, *modules: str) -> None:
    """Refuses early a command whose extra is not installed."""
    from importlib.util import find_spec

    if missing := [name for name in modules if find_spec(name) is None]:
        raise UsageError(
            f"this needs {missing[0]}: install it with pip install 'hemascope[{extra}]'."
        )


def _check_medmnist(folder: Path, split: SplitOption, out: Path | None) -> None:
    """Refuses early a folder that MedMNIST's files may not go to."""
    one, other = folder.resolve(), out and out.resolve()
    problem = ""
    if split == "all":
        problem = "MedMNIST's evaluator knows train, val and test."
    elif other and (one.is_relative_to(other) or other.is_relative_to(one)):
        problem = "one of it and `out` contains the other; give two separate folders."
    elif folder.exists() and not folder.is_dir():
        problem = f"{folder} is a file; name a folder."
    if problem:
        raise UsageError(problem, field="medmnist_csv")
