"""`hemascope reproduce`: the study's networks over several seeds, and the report."""

from collections.abc import Sequence
from pathlib import Path

from hemascope.core.errors import DataError
from hemascope.inference.torch_engine import pick_device
from hemascope.settings.run import RunSettings
from hemascope.store.files import claimed, make_out, write_json
from hemascope.store.provenance import fingerprint
from hemascope.store.run_folder import RunFolder
from hemascope.study.report import write_report
from hemascope.workflows.progress import Reporter
from hemascope.workflows.sources import load_data
from hemascope.workflows.train import train


def reproduce(
    plan: Sequence[RunSettings],
    source: str,
    out: Path,
    *,
    seeds: Sequence[int],
    overwrite: bool,
    reporter: Reporter,
    resume: bool = False,
) -> str:
    """Trains every network of the plan with every seed, then compares and reports.

    With `resume`, runs that are there are kept, and the one that was stopped is gone on with.

    Returns:
        A summary for the terminal.
    """
    dataset = load_data(source, reporter)
    single = RunFolder(out)
    if resume and (single.config.exists() or single.results.exists()):
        raise DataError(f"--out {out} holds a single run; choose another folder.")
    with claimed(out):
        if not (resume and single.fingerprint.is_file()):
            facts = fingerprint(dataset, device=pick_device(plan[0].device).type)
            make_out(out, overwrite=overwrite)
            write_json(single.fingerprint, facts)
        for seed in seeds:
            for settings in plan:
                run = settings.model_copy(update={"seed": seed})
                folder = out / f"{settings.name}-seed{seed}"
                train(run, dataset, folder, overwrite=False, reporter=reporter, resume=resume)
        return write_report(out)
