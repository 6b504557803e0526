"""`hemascope data info | verify | download | shard`."""

from hemascope.core.classes import Split
from hemascope.core.errors import DataError, UsageError
from hemascope.core.images import Dataset
from hemascope.data.bloodmnist import download, official_md5
from hemascope.data.collections import collections
from hemascope.data.shards import write_shards
from hemascope.data.splits import check_groups, planned
from hemascope.settings.data import DataSettings
from hemascope.settings.output import Output
from hemascope.store.files import json_text
from hemascope.store.provenance import begun_out, provenance
from hemascope.workflows.progress import Reporter
from hemascope.workflows.sources import load_data


def describe(data: DataSettings, reporter: Reporter, *, as_json: bool = False) -> str:
    """What the data is, as text or JSON: name, md5, counts per class, channel statistics."""
    dataset = load_data(data, reporter, as_found=True)
    try:
        check_groups(dataset.splits)
    except DataError as error:  # which `verify` and `train` refuse
        reporter.say(f"Note: {error}")
    if as_json:
        return json_text(dataset.describe())
    facts = (
        ("title", dataset.title),
        ("source", dataset.source),
        (f"md5 of {dataset.md5_of}", dataset.md5),
        ("read as", f"{dataset.image_size}x{dataset.image_size} RGB"),
        ("splits", _splits(dataset)),
        ("channel mean", _channels(dataset.channels.mean)),
        ("channel std", _channels(dataset.channels.std)),
    )
    lines = [f"{name:<14}{value}" for name, value in facts]
    return "\n".join([*lines, "", _counts_table(dataset)])


def _splits(dataset: Dataset) -> str:
    """Which splits the data has, and what training does about those that it lacks."""
    missing = [split.value for split in Split if split not in dataset.splits]
    if not dataset.is_split:
        images = list(dataset.splits.values())
        if len(images) > 1:
            return "of some images; train splits the others 7:1:2 by class"
        try:
            return f"none; train splits {planned(images[0], dataset.classes)}"
        except DataError as error:
            return f"none; {error}"
    if not missing:
        return ", ".join(dataset.splits)
    return f"{', '.join(dataset.splits)}; train takes {' and '.join(missing)} out of train"


def _channels(values: tuple[float, float, float]) -> str:
    return "  ".join(f"{name} {value:.4f}" for name, value in zip("RGB", values, strict=True))


def _counts_table(dataset: Dataset) -> str:
    counts = {
        split.value if dataset.is_split else "images": dataset.class_counts(split)
        for split in dataset.splits
    }
    width = max(len(name) for name in dataset.classes.names) + 2
    lines = [f"{'class':<{width}}" + "".join(f"{split:>9}" for split in counts)]
    for name in dataset.classes.names:
        lines.append(f"{name:<{width}}" + "".join(f"{c[name]:>9,}" for c in counts.values()))
    lines.append(f"{'all':<{width}}" + "".join(f"{sum(c.values()):>9,}" for c in counts.values()))
    return "\n".join(lines)


def verify(data: DataSettings, reporter: Reporter) -> str:
    """Reads everything and says whether it can be used, and whether it is the official file.

    Raises:
        DataError: If anything is wrong with it.
    """
    dataset = load_data(data, reporter, as_found=True)
    check_groups(dataset.splits)
    known = {"official": "the official file", "rebuilt": "our rebuilt split, not the official file"}
    whose = (
        f"It is {known[dataset.kind]} of {collections()[dataset.collection].title}. "
        if (dataset.kind in known)
        else "It is not a file of a published collection. "
    )
    return f"{dataset.source}: sound. {whose}(md5 of {dataset.md5_of}: {dataset.md5})"


def shard(data: DataSettings, output: Output, reporter: Reporter) -> str:
    """Writes data as shards, which training maps instead of reading them into memory.

    Images in folders, tables and archives need not fit into memory either; arrays must.

    Raises:
        DataError: If the data is not what it should be.
        OutputError: If the folder cannot be written.
    """
    parents = output.folder.absolute().parents
    scratch = next(folder for folder in parents if folder.is_dir())
    dataset = load_data(data, reporter, scratch=scratch)
    with begun_out(output, provenance()) as out:
        shards = write_shards(dataset, out).shards.values()
    return (
        f"{sum(one.num_images for one in shards):,} images of {dataset.image_size} pixels in "
        f"{len(shards):,} shard(s): {output.folder}\n"
        f"Next: hemascope train --data {output.folder} --out RUN"
    )


def fetch(source: str, reporter: Reporter) -> str:
    """Downloads BloodMNIST to MedMNIST's cache, unless a whole one is there.

    Raises:
        UsageError: If another source is named: there is nothing to download for it.
        UnreachableError: If it cannot be had.
    """
    if source != "bloodmnist":
        raise UsageError(f"'{source}' cannot be downloaded; only bloodmnist can.")
    with reporter.download("downloading BloodMNIST") as on_download:
        path = download(retries=4, on_download=on_download)
    return f"BloodMNIST is at {path} (md5 {official_md5()}, verified)."
