"""`hemascope reproduce`: the study's networks over several seeds, and the report."""

from collections.abc import Sequence

from hemascope.core.errors import DataError
from hemascope.inference.torch_engine import pick_device
from hemascope.settings.data import DataSettings
from hemascope.settings.output import Output
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
    data: DataSettings,
    output: Output,
    *,
    seeds: Sequence[int],
    reporter: Reporter,
) -> str:
    """Trains every network of the plan with every seed, then compares and reports.

    Where the output is to be resumed, finished runs are kept, and the stopped one is resumed.

    Returns:
        A summary for the terminal.
    """
    dataset = load_data(data, reporter)
    out, single = output.folder, RunFolder(output.folder)
    if output.resume and (single.config.exists() or single.results.exists()):
        raise DataError(f"{out} holds a single run; choose another folder.", field="out")
    with claimed(out):
        if not (output.resume and single.fingerprint.is_file()):
            facts = fingerprint(dataset, device=pick_device(plan[0].device).type)
            make_out(out, overwrite=output.overwrite)
            write_json(single.fingerprint, facts)
        for seed in seeds:
            for settings in plan:
                run = settings.model_copy(update={"seed": seed, "data": data})
                own = Output(out / f"{settings.name}-seed{seed}", resume=output.resume)
                train(run, dataset, own, reporter)
        return write_report(out)
