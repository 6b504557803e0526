"""The command line: parses, calls one workflow, prints what it returns."""

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Literal

import typer

from hemascope import __version__

app = typer.Typer(
    name="hemascope",
    help="Classify peripheral blood cells, and show how far the answers can be trusted. "
    "Research use only.",
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
data_app = typer.Typer(help="Look at data, verify it, or download it.")
app.add_typer(data_app, name="data")

DataOption = Annotated[
    str,
    typer.Option(
        "--data",
        metavar="X",
        help="bloodmnist, synthetic (rendered cells), auto (bloodmnist, else synthetic), "
        "a MedMNIST-layout .npz, or a folder of class folders of images.",
    ),
]
DataArgument = Annotated[str, typer.Argument(metavar="X", help="What --data takes.")]
OutOption = Annotated[
    Path, typer.Option("--out", metavar="DIR", help="New folder for the results.")
]
OverwriteOption = Annotated[
    bool, typer.Option("--overwrite", help="Delete what an earlier run left in --out.")
]
DeviceOption = Annotated[
    Literal["auto", "cpu", "cuda", "mps"] | None,
    typer.Option("--device", help="Where to compute; auto takes MPS, then CUDA, then the CPU."),
]
PrecisionOption = Annotated[
    Literal["auto", "fp32", "bf16"] | None,
    typer.Option("--precision", help="fp32 is exact; auto takes bf16 where the machine has it."),
]
AnyPrecisionOption = Annotated[
    Literal["auto", "fp32", "bf16", "fp16", "int8"] | None,
    typer.Option("--precision", help="As in train; fp16 and int8 are for exported models."),
]
ViewsOption = Annotated[
    Literal["1", "8"] | None,
    typer.Option("--views", help="8 also shows every image mirrored and turned; test-time views."),
]
ResumeOption = Annotated[
    bool, typer.Option("--resume", help="Go on where a run in --out was stopped, if there is one.")
]
NameOption = Annotated[
    str | None, typer.Option("--name", metavar="NAME", help="What reports call the network.")
]
RunsArgument = Annotated[
    list[Path], typer.Argument(metavar="RUN...", help="Run folders, or their parents.")
]
SeedsOption = Annotated[str, typer.Option("--seeds", metavar="LIST", help="Such as 0,1,2.")]


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
def reproduce(
    out: OutOption,
    data: DataOption = "bloodmnist",
    seeds: SeedsOption = "0,1,2",
    epochs_scale: Annotated[
        float, typer.Option("--epochs-scale", metavar="F", help="Multiply all epochs, for a try.")
    ] = 1.0,
    device: DeviceOption = None,
    precision: PrecisionOption = None,
    overwrite: OverwriteOption = False,
    resume: ResumeOption = False,
) -> None:
    """Reproduce the study: train its networks, compare with the published figures, report."""
    from hemascope.workflows.plan import STUDY_PRESETS, parse_seeds, scaled_presets

    plan = scaled_presets(
        STUDY_PRESETS, epochs_scale=epochs_scale, device=device, precision=precision
    )
    numbers = parse_seeds(seeds)
    _check(data, out, overwrite=overwrite, resume=resume)
    from hemascope.study.reproduce import reproduce as run
    from hemascope.workflows.progress import Reporter

    typer.echo(
        run(
            plan,
            data,
            out,
            seeds=numbers,
            overwrite=overwrite,
            resume=resume,
            reporter=Reporter(),
        )
    )


@app.command()
def demo(
    out: Annotated[
        Path | None, typer.Option("--out", metavar="DIR", help="Default: the next free runs/demo.")
    ] = None,
) -> None:
    """Reproduce the study with one seed on BloodMNIST if it can be had, else on rendered cells."""
    from hemascope.workflows.plan import STUDY_PRESETS, next_free, scaled_presets

    plan = scaled_presets(STUDY_PRESETS)
    out = out or next_free(Path("runs/demo"))
    _check("auto", out, overwrite=False)
    from hemascope.study.reproduce import reproduce as run
    from hemascope.workflows.progress import Reporter

    typer.echo(run(plan, "auto", out, seeds=(0,), overwrite=False, reporter=Reporter()))


@app.command()
def train(
    out: OutOption,
    preset: Annotated[
        str | None,
        typer.Option(
            "--preset",
            metavar="NAME",
            help="hemanet, hemanet-robust, hemanet-tiny, paper-cnn, paper-cnn-curve or paper-mlnn.",
        ),
    ] = None,
    config: Annotated[
        Path | None,
        typer.Option("--config", metavar="FILE", help="TOML, such as a run's config.toml."),
    ] = None,
    data: DataOption = "bloodmnist",
    name: NameOption = None,
    model: Annotated[
        str | None,
        typer.Option(
            "--model", metavar="NAME", help="Another architecture, such as timm/resnet18."
        ),
    ] = None,
    pretrained: Annotated[
        bool, typer.Option("--pretrained", help="With a timm model: begin with its weights.")
    ] = False,
    start: Annotated[
        Path | None,
        typer.Option("--start", metavar="MODEL", help="Begin with the weights of a trained model."),
    ] = None,
    freeze: Annotated[bool, typer.Option("--freeze", help="Train the last layer only.")] = False,
    teacher: Annotated[
        Path | None,
        typer.Option("--teacher", metavar="MODEL", help="Learn from a trained model as well."),
    ] = None,
    loss: Annotated[
        Literal["cross-entropy", "focal", "weighted", "class-balanced"] | None,
        typer.Option("--loss", help="Instead of the preset's; the last three help rare classes."),
    ] = None,
    balanced: Annotated[
        bool, typer.Option("--balanced", help="Draw every class equally often.")
    ] = False,
    augment_only: Annotated[
        list[str] | None,
        typer.Option(
            "--augment-only",
            metavar="CLASS",
            help="Vary the images of this class alone; may be repeated.",
        ),
    ] = None,
    epochs: Annotated[
        int | None, typer.Option("--epochs", min=1, help="Instead of the preset's.")
    ] = None,
    seed: Annotated[
        int | None,
        typer.Option("--seed", min=0, max=2**32 - 1, help="Decides weights and order of images."),
    ] = None,
    device: DeviceOption = None,
    precision: PrecisionOption = None,
    views: ViewsOption = None,
    overwrite: OverwriteOption = False,
    resume: ResumeOption = False,
) -> None:
    """Train one network and evaluate it; the run folder holds everything about it."""
    from hemascope.store.run_folder import RunFolder
    from hemascope.workflows.plan import choose_settings

    folder = RunFolder(out)
    if resume and preset is None and config is None and folder.config.is_file():
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
        "device": device,
        "precision": precision,
        "views": views and int(views),
    }
    settings = choose_settings(preset, config, changes)
    inputs = [Path(path) for path in (config, settings.start, settings.teacher) if path]
    _check(data, out, overwrite=overwrite, resume=resume, inputs=inputs)
    from hemascope.workflows.progress import Reporter
    from hemascope.workflows.sources import load_data
    from hemascope.workflows.train import train as run

    reporter = Reporter()
    dataset = load_data(data, reporter)
    run(settings, dataset, out, overwrite=overwrite, resume=resume, reporter=reporter)
    typer.echo(folder.results_text.read_text("utf-8"))
    typer.echo(f"Report: {folder.page}\nNext: hemascope evaluate {folder} --data {data}")


@app.command()
def evaluate(
    model: Annotated[Path, typer.Argument(metavar="MODEL", help="A run folder or its model/.")],
    data: DataOption = "bloodmnist",
    split: Annotated[
        Literal["train", "val", "test", "all"] | None,
        typer.Option("--split", help="Default: test; with --map all.", show_default=False),
    ] = None,
    out: Annotated[
        Path | None, typer.Option("--out", metavar="DIR", help="Also write the results here.")
    ] = None,
    map_file: Annotated[
        Path | None,
        typer.Option(
            "--map",
            metavar="FILE",
            help="TOML: which class folder is which of the model's classes, for other labs' cells.",
        ),
    ] = None,
    corruptions: Annotated[
        bool,
        typer.Option("--corruptions", help="Also on images made worse: noise, blur, stain, ..."),
    ] = False,
    against: Annotated[
        list[Path] | None,
        typer.Option(
            "--against",
            metavar="MODEL",
            help="With --corruptions: beside which models; may be repeated.",
        ),
    ] = None,
    medmnist_csv: Annotated[
        Path | None,
        typer.Option(
            "--medmnist-csv", metavar="DIR", help="Also write what MedMNIST's evaluator reads."
        ),
    ] = None,
    device: DeviceOption = None,
    precision: AnyPrecisionOption = None,
    views: ViewsOption = None,
    overwrite: OverwriteOption = False,
) -> None:
    """Evaluate a trained network on a split of any data with the same classes."""
    from hemascope.core.errors import UsageError
    from hemascope.store.model_folder import find_artifact

    find_artifact(model)
    split = split or ("all" if map_file else "test")
    if against:
        for path in against:
            find_artifact(path)
        if not corruptions:
            raise UsageError(
                "--against is for --corruptions; to compare networks: hemascope compare."
            )
    if corruptions and (map_file or medmnist_csv):
        raise UsageError("--corruptions goes with neither --map nor --medmnist-csv.")
    if medmnist_csv is not None and split == "all":
        raise UsageError("--medmnist-csv: MedMNIST's evaluator knows train, val and test only.")
    if medmnist_csv is not None and out is not None:
        one, other = medmnist_csv.resolve(), out.resolve()
        if one.is_relative_to(other) or other.is_relative_to(one):
            raise UsageError("--medmnist-csv and --out lie in one another; give two folders apart.")
    if medmnist_csv is not None and medmnist_csv.exists() and not medmnist_csv.is_dir():
        raise UsageError(f"--medmnist-csv {medmnist_csv} is a file; give the name of a folder.")
    inputs = [path for path in (model, map_file, *(against or ())) if path]
    _check(data, out, overwrite=overwrite, inputs=inputs)
    if corruptions:
        from hemascope.analyses.corruptions.run import corruptions as run_corruptions
        from hemascope.workflows.progress import Reporter

        typer.echo(
            run_corruptions(
                model,
                data,
                split,
                against=against or (),
                out=out,
                device=device or "auto",
                precision=precision,
                views=int(views or 1),
                overwrite=overwrite,
                reporter=Reporter(),
            )
        )
        return
    from hemascope.analyses.evaluate.run import evaluate as run
    from hemascope.workflows.progress import Reporter

    typer.echo(
        run(
            model,
            data,
            split,
            out=out,
            device=device or "auto",
            precision=precision,
            views=int(views or 1),
            map_file=map_file,
            medmnist_csv=medmnist_csv,
            overwrite=overwrite,
            reporter=Reporter(),
        )
    )


@app.command()
def ensemble(
    models: Annotated[
        list[Path], typer.Argument(metavar="MODEL...", help="Run folders or their model/.")
    ],
    out: OutOption,
    data: DataOption = "bloodmnist",
    name: NameOption = None,
    device: DeviceOption = None,
    precision: PrecisionOption = None,
    views: ViewsOption = None,
    overwrite: OverwriteOption = False,
) -> None:
    """Put several trained networks into one model that answers with their mean, and evaluate it."""
    from hemascope.store.model_folder import find_artifact

    for path in models:
        find_artifact(path)
    _check(data, out, overwrite=overwrite, inputs=models)
    from hemascope.workflows.ensemble import ensemble as run
    from hemascope.workflows.progress import Reporter

    typer.echo(
        run(
            models,
            data,
            out,
            name=name,
            device=device or "auto",
            precision=precision,
            views=int(views or 1),
            overwrite=overwrite,
            reporter=Reporter(),
        )
    )
    typer.echo(f"Model: {out}")


@app.command()
def prune(
    model: Annotated[Path, typer.Argument(metavar="MODEL", help="A run folder or its model/.")],
    out: OutOption,
    keep: Annotated[
        float, typer.Option("--keep", metavar="F", help="Share of the channels to keep.")
    ] = 0.5,
    overwrite: OverwriteOption = False,
) -> None:
    """Cut whole channels out of a trained network, and say how to train on what is left."""
    from hemascope.store.files import check_out
    from hemascope.store.model_folder import find_artifact
    from hemascope.workflows.plan import check_share

    find_artifact(model)
    check_share("--keep", keep)
    check_out(out, overwrite=overwrite, inputs=[model])
    from hemascope.workflows.prune import prune as run

    typer.echo(run(model, out, keep=keep, overwrite=overwrite))


@app.command()
def table(
    folders: Annotated[
        list[Path], typer.Argument(metavar="DIR...", help="Folders of results, or their parents.")
    ],
    class_name: Annotated[
        str | None, typer.Option("--class", metavar="NAME", help="Also show how one class fares.")
    ] = None,
) -> None:
    """Print saved results side by side: mean and spread over seeds, size and speed."""
    from hemascope.report.table import read_results, table_text

    typer.echo(table_text(read_results(folders), class_name))


@app.command()
def compare(
    folders: RunsArgument,
    out: OutOption,
    views: ViewsOption = None,
    resamples: Annotated[
        int,
        typer.Option("--resamples", min=100, max=100_000, help="Test sets the bootstrap draws."),
    ] = 2000,
    overwrite: OverwriteOption = False,
) -> None:
    """Compare networks by their saved predictions: intervals, paired tests, forest plots."""
    from hemascope.store.files import check_out
    from hemascope.store.run_folder import find_results

    find_results(folders)
    check_out(out, overwrite=overwrite, inputs=folders)
    from hemascope.analyses.compare.run import compare as run

    typer.echo(run(folders, out, views=views == "8", num_resamples=resamples, overwrite=overwrite))
    typer.echo(f"Comparison: {out}")


@app.command()
def trust(
    folders: RunsArgument,
    out: OutOption,
    views: ViewsOption = None,
    coverage: Annotated[
        str,
        typer.Option("--coverage", metavar="LIST", help="How often sets hold the true class."),
    ] = "0.95,0.99",
    accuracy: Annotated[
        float,
        typer.Option("--accuracy", metavar="F", help="Wanted where it answers, not abstains."),
    ] = 0.995,
    overwrite: OverwriteOption = False,
) -> None:
    """Calibration, prediction sets and abstaining: fitted on val, tried on test, from files."""
    from hemascope.store.files import check_out
    from hemascope.store.run_folder import find_results
    from hemascope.workflows.plan import check_share, parse_shares

    coverages = parse_shares("--coverage", coverage)
    check_share("--accuracy", accuracy)
    find_results(folders)
    check_out(out, overwrite=overwrite, inputs=folders)
    from hemascope.analyses.trust.run import trust as run

    typer.echo(
        run(
            folders,
            out,
            views=views == "8",
            coverages=coverages,
            accuracy=accuracy,
            overwrite=overwrite,
        )
    )
    typer.echo(f"Trust: {out}")


@app.command()
def explain(
    model: Annotated[Path, typer.Argument(metavar="MODEL", help="A run folder or its model/.")],
    out: OutOption,
    data: DataOption = "bloodmnist",
    split: Annotated[Literal["train", "val", "test", "all"], typer.Option("--split")] = "test",
    number: Annotated[
        int, typer.Option("--number", min=1, max=60, help="How many errors, and how many hits.")
    ] = 12,
    device: DeviceOption = None,
    overwrite: OverwriteOption = False,
) -> None:
    """Show where a network looks: on its surest errors and its least sure hits."""
    from hemascope.store.model_folder import find_artifact

    find_artifact(model)
    _check(data, out, overwrite=overwrite, inputs=[model])
    from hemascope.analyses.explain.run import explain as run
    from hemascope.workflows.progress import Reporter

    typer.echo(
        run(
            model,
            data,
            split,
            out,
            num_images=number,
            device=device or "auto",
            overwrite=overwrite,
            reporter=Reporter(),
        )
    )


@app.command()
def audit(
    source: DataArgument,
    out: Annotated[
        Path | None, typer.Option("--out", metavar="DIR", help="Default: the next free runs/audit.")
    ] = None,
    overwrite: OverwriteOption = False,
) -> None:
    """Look for copies, leaks between splits, doubtful labels and flawed images in data."""
    from hemascope.workflows.plan import next_free

    out = out or next_free(Path("runs/audit"))
    _check(source, out, overwrite=overwrite)
    from hemascope.analyses.audit.run import audit as run
    from hemascope.workflows.progress import Reporter

    typer.echo(run(source, out, overwrite=overwrite, reporter=Reporter()))


@app.command()
def uncertainty(
    models: Annotated[
        list[Path],
        typer.Argument(metavar="MODEL...", help="Run folders; several make a deep ensemble."),
    ],
    out: OutOption,
    data: DataOption = "bloodmnist",
    samples: Annotated[
        int, typer.Option("--samples", min=2, max=1000, help="Of MC dropout and Laplace.")
    ] = 30,
    device: DeviceOption = None,
    overwrite: OverwriteOption = False,
) -> None:
    """Compare ways to doubt: its own, MC dropout, last-layer Laplace, a deep ensemble."""
    from hemascope.store.model_folder import find_artifact

    for path in models:
        find_artifact(path)
    _check(data, out, overwrite=overwrite, inputs=models)
    from hemascope.analyses.doubt.run import uncertainty as run
    from hemascope.workflows.progress import Reporter

    typer.echo(
        run(
            models,
            data,
            out,
            num_samples=samples,
            device=device or "auto",
            overwrite=overwrite,
            reporter=Reporter(),
        )
    )


@app.command()
def export(
    model: Annotated[Path, typer.Argument(metavar="RUN", help="A run folder or its model/.")],
    out: OutOption,
    data: DataOption = "bloodmnist",
    format_: Annotated[
        Literal["onnx"], typer.Option("--format", help="What programs without torch read.")
    ] = "onnx",
    int8: Annotated[
        bool, typer.Option("--int8", help="Also in whole numbers of 8 bits: small, often faster.")
    ] = False,
    fp16: Annotated[bool, typer.Option("--fp16", help="Also in half precision.")] = False,
    overwrite: OverwriteOption = False,
) -> None:
    """Write a trained network so that predict, and programs without torch, can use it."""
    from hemascope.store.model_folder import find_artifact

    del format_
    find_artifact(model)
    _check(data, out, overwrite=overwrite, inputs=[model])
    from hemascope.workflows.export import export as run
    from hemascope.workflows.progress import Reporter

    typer.echo(
        run(model, data, out, int8=int8, fp16=fp16, overwrite=overwrite, reporter=Reporter())
    )


@app.command()
def benchmark(
    models: Annotated[
        list[Path],
        typer.Argument(
            metavar="MODEL...", help="Run folders, exported models, or names such as hemanet."
        ),
    ],
    batch: Annotated[
        str, typer.Option("--batch", metavar="LIST", help="Images in a call.")
    ] = "1,32,128,1024",
    threads: Annotated[
        str, typer.Option("--threads", metavar="LIST", help="Numbers, or all for all cores.")
    ] = "1,all",
    seconds: Annotated[
        float, typer.Option("--seconds", metavar="F", help="For each engine, threads and batch.")
    ] = 5.0,
    no_compile: Annotated[
        bool, typer.Option("--no-compile", help="Leave torch.compile out, which takes minutes.")
    ] = False,
    out: Annotated[
        Path | None, typer.Option("--out", metavar="DIR", help="Also write the results here.")
    ] = None,
    overwrite: OverwriteOption = False,
) -> None:
    """Say how fast and how large models are, side by side: PyTorch and ONNX, on the CPU."""
    from hemascope.core.errors import UsageError
    from hemascope.inference.efficiency import cores
    from hemascope.store.files import check_out
    from hemascope.store.model_folder import find_artifact
    from hemascope.workflows.plan import MOST_IMAGES, parse_counts

    batch_sizes = parse_counts("--batch", batch, most=MOST_IMAGES)
    counts = parse_counts("--threads", threads, most=cores(), total=cores())
    if not 0 < seconds <= 3600:  # a NaN is neither
        raise UsageError(f"--seconds {seconds}: give a number above 0 and up to 3600, such as 5.")
    folders = [find_artifact(path) for path in models]
    if out is not None:
        check_out(out, overwrite=overwrite, inputs=folders)
    from hemascope.analyses.speed.run import benchmark as run
    from hemascope.workflows.progress import Reporter

    typer.echo(
        run(
            models,
            batch_sizes=batch_sizes,
            threads=counts,
            seconds=seconds,
            compiled=not no_compile,
            out=out,
            overwrite=overwrite,
            reporter=Reporter(),
        )
    )


@app.command()
def predict(
    paths: Annotated[
        list[str],
        typer.Argument(
            metavar="PATH...",
            help="Images, folders, patterns in quotes, .npz, .zip or .tar files, or - for a list "
            "of paths on standard input.",
        ),
    ],
    model: Annotated[
        str,
        typer.Option(
            "--model", metavar="MODEL", help="One that ships with hemascope, or an exported one."
        ),
    ] = "hemanet",
    out: Annotated[
        Path | None,
        typer.Option(
            "--out", metavar="FILE", help="Write all answers here: .csv, .jsonl or .parquet."
        ),
    ] = None,
    explain_dir: Annotated[
        Path | None,
        typer.Option(
            "--explain", metavar="DIR", help="Draw what speaks for each answer into a new folder."
        ),
    ] = None,
    precision: Annotated[
        Literal["fp32", "fp16", "int8"] | None,
        typer.Option(
            "--precision", help="Which graph of the model; default: the one it recommends."
        ),
    ] = None,
    views: ViewsOption = None,
    coverage: Annotated[
        float | None,
        typer.Option(
            "--coverage",
            metavar="F",
            help="How often prediction sets are to hold the true class: 0.95 or 0.99 (default).",
        ),
    ] = None,
    crop: Annotated[
        float | None,
        typer.Option(
            "--crop",
            metavar="F",
            help="Share of each photograph's central square to keep; default: the model's own.",
        ),
    ] = None,
    threads: Annotated[
        int, typer.Option("--threads", min=0, max=1024, help="0 takes all cores.")
    ] = 0,
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on where an interrupted run into --out stopped.")
    ] = False,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace an older --out.")] = False,
) -> None:
    """Say which cells are in pictures, how sure that is, and which are for an expert.

    Exit code 1: some pictures could not be read, and their rows say why.
    """
    from hemascope.core.errors import UsageError
    from hemascope.data.inputs import check_inputs

    check_inputs(paths)
    if resume and (overwrite or out is None):
        raise UsageError("--resume goes on with an --out, and not together with --overwrite.")
    from hemascope.workflows.predict import predict as run
    from hemascope.workflows.progress import Reporter

    reporter = Reporter()
    outcome = run(
        paths,
        model=model,
        out=out,
        explain=explain_dir,
        precision=precision,
        views=int(views or 1),
        coverage=coverage,
        crop=crop,
        threads=threads,
        resume=resume,
        overwrite=overwrite,
        reporter=reporter,
    )
    if out is None:
        outcome.print_table()
    reporter.say(outcome.summary())
    if out is not None:
        reporter.say(f"Answers: {out}")
    if outcome.num_failed:
        raise typer.Exit(1)


@app.command()
def report(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="The --out of reproduce.")],
) -> None:
    """Write the report of saved runs again, from their files alone."""
    from hemascope.store.run_folder import find_runs

    find_runs(folder)
    from hemascope.study.report import write_report

    typer.echo(write_report(folder))


@data_app.command("info")
def data_info(source: DataArgument = "bloodmnist") -> None:
    """Say what the data is: name, md5, counts, channel statistics."""
    _check(source)
    from hemascope.workflows.data import describe
    from hemascope.workflows.progress import Reporter

    typer.echo(describe(source, Reporter()))


@data_app.command("verify")
def data_verify(source: DataArgument = "bloodmnist") -> None:
    """Check the data: readable, right shape and labels, and whether it is the official file."""
    _check(source)
    from hemascope.workflows.data import verify
    from hemascope.workflows.progress import Reporter

    typer.echo(verify(source, Reporter()))


@data_app.command("download")
def data_download(source: DataArgument = "bloodmnist") -> None:
    """Download BloodMNIST to where MedMNIST's own library keeps it."""
    from hemascope.workflows.data import fetch
    from hemascope.workflows.progress import Reporter

    typer.echo(fetch(source, Reporter()))


def _check(
    data: str,
    out: Path | None = None,
    *,
    overwrite: bool = False,
    resume: bool = False,
    inputs: Sequence[Path] = (),
) -> None:
    """Refuses a wrong --data or --out at once, before anything heavy is imported."""
    from hemascope.core.errors import OutputError, UsageError
    from hemascope.data import check_source, file_of
    from hemascope.store.files import MARK, check_out

    check_source(data)
    if resume and overwrite:
        raise UsageError("give one of --resume and --overwrite: go on, or begin again.")
    if out is not None:
        if Path(data).is_dir() and out.resolve().is_relative_to(Path(data).resolve()):
            raise OutputError(f"--out {out} lies inside --data {data}; choose another place.")
        if resume and (out / MARK).is_file():
            return  # the workflow looks whether it is the same run
        check_out(out, overwrite=overwrite, inputs=[file_of(data), *inputs])
