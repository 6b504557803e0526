"""Feeds damaged and hostile input to everything that reads files, and looks at how it is refused.

Command: python benchmarks/fuzz.py [--inputs 10000] [--seed 0] [--reader NAME]

Valid files are mutated at random: bits, bytes, pieces, numbers in headers, pieces of another valid
file, and the structure of JSON and TOML. A reader may accept what it gets, or refuse it with its
documented error. A finding is anything else: another exception, more than 5 s for one input, more
than 1 GB of resident memory (the process's own peak; beyond 8 GB of address space the system says
no), or the death of the process: each reader runs in a child process, since native code may crash.
The graphs, of which each starts an ONNX Runtime session, get a tenth of the inputs. An input is
told by its number: `--reader NAME --seed S --first I --inputs 1` gives it again.
"""

import argparse
import io
import json
import os
import random
import re
import resource
import select
import signal
import struct
import subprocess
import sys
import tarfile
import tempfile
import time
import tomllib
import warnings
import zipfile
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cache, partial
from hashlib import sha256
from importlib import resources
from pathlib import Path
from types import FrameType
from typing import IO, Any, NoReturn

import numpy as np
from PIL import Image

from hemascope.core.errors import HemascopeError
from hemascope.data.rendered import render

MAX_SECONDS = 5
MAX_MB = 1000
MAX_ADDRESS_BYTES = 8_000_000_000
PATIENCE_SECONDS = 30  # until a child that says nothing is ended
GRAPHS_SHARE = 10
SHOWN_FINDINGS = 10

_NUMBERS = (0, 1, 2, 0x7F, 0x80, 0xFF, 0x7FFF, 0x8000, 0xFFFF, 10**6, 0x7FFFFFFF, 0x80000000)
_HUGE = (0xFFFFFFFF, 0xFFFFFFFE, 2**40, 2**62, 2**63 - 1, 2**63, 2**64 - 1)
_VALUES: tuple[Any, ...] = (
    *(None, True, False, 0, -1, 1, 2, 5, 2**31, 2**63, 2**64, 10**40, 0.5, -0.0, 1e308, 1e-320),
    *("", "x", "fp32", "../../etc/passwd", "\x00", "\ud800", "é" * 300, "x" * 20_000, "1", "nan"),
    *([], [[]], [None], [1, 2, 3], {}, {"": {}}, {"x": 1}, ["x"] * 500),
)
_DEEP = "@deep@"


class TooSlowError(BaseException):
    """Raised by the alarm; not an Exception, so that no reader takes it for damage."""


@dataclass(frozen=True)
class Reader:
    """One thing that reads input.

    Attributes:
        make: Makes one input of random numbers: bytes, or several by name.
        read: Reads it, with a folder to put files into.
        refusals: The documented errors.
        slower: By how much fewer inputs it gets.
    """

    make: Callable[[random.Random], Any]
    read: Callable[[Any, Path], object]
    refusals: tuple[type[Exception], ...]
    slower: int = 1


def main() -> int:
    """Prints a line for each reader, and its findings."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--inputs", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--reader", choices=READERS)
    parser.add_argument("--first", type=int, default=0, help="the number of the first input")
    parser.add_argument("--child", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.child:
        _feed(arguments.reader, arguments.seed, arguments.first, arguments.inputs)
        return 0
    num_findings = 0
    for name in [arguments.reader] if arguments.reader else READERS:
        count = max(arguments.inputs // READERS[name].slower, 1)
        report = _watched(name, arguments.seed, arguments.first, count)
        print(
            f"{name:10s}{report.num_inputs:>7,} inputs {report.num_accepted:>7,} accepted "
            f"{report.num_refused:>7,} refused   slowest {report.slowest_ms:>6,.0f} ms   peak "
            f"{report.peak_mb:>4.0f} MB   findings {len(report.findings)}",
            flush=True,
        )
        for line in report.findings[:SHOWN_FINDINGS]:
            print(f"  {line}")
        num_findings += len(report.findings)
    return 1 if num_findings else 0


@dataclass
class Report:
    """What a reader did with its inputs."""

    num_inputs: int = 0
    num_accepted: int = 0
    num_refused: int = 0
    slowest_ms: float = 0.0
    peak_mb: float = 0.0
    findings: list[str] = field(default_factory=list)


def _watched(name: str, seed: int, first: int, count: int) -> Report:
    """Has a child process feed a reader, and another one continue where the child dies."""
    report, end = Report(), first + count
    while first < end:
        command = [sys.executable, __file__, "--child", "--reader", name, "--seed", str(seed)]
        with (
            tempfile.TemporaryFile() as errors,
            subprocess.Popen(
                [*command, "--first", str(first), "--inputs", str(end - first)],
                stdout=subprocess.PIPE,
                stderr=errors,
            ) as child,
        ):
            current, silent = _followed(child, report)
            code = child.wait()
            if code == 0 and not silent:
                return report
            errors.seek(0)
            said = errors.read()[-300:].decode(errors="replace").strip().replace("\n", " / ")
            if code > 0:
                raise SystemExit(f"{name}: the fuzzer itself failed: {said}")
            what = f"no answer in {PATIENCE_SECONDS} s" if silent else f"the process died ({code})"
            number = first if current is None else current
            report.findings.append(f"input {number}: {what}: {said}")
            report.num_inputs += 1
            first = number + 1
    return report


def _followed(child: subprocess.Popen[bytes], report: Report) -> tuple[int | None, bool]:
    """Takes down what a child says; gives the input it was at, and whether it fell silent."""
    current: int | None = None
    assert child.stdout is not None  # noqa: S101 - as asked of Popen
    while True:
        ready, _, _ = select.select([child.stdout], [], [], PATIENCE_SECONDS)
        if not ready:
            child.kill()
            return current, True
        if not (line := child.stdout.readline()):
            return current, False
        said = json.loads(line)
        if "at" in said:
            current = said["at"]
            continue
        report.num_inputs += 1
        report.num_accepted += said["accepted"]
        report.num_refused += said["refused"]
        report.slowest_ms = max(report.slowest_ms, said["ms"])
        report.peak_mb = max(report.peak_mb, said["peak_mb"])
        report.findings += [f"input {current}: {text}" for text in said["findings"]]


def _feed(name: str, seed: int, first: int, count: int) -> None:
    """What a child process does; a line of JSON before and after each input."""
    resource.setrlimit(resource.RLIMIT_AS, (MAX_ADDRESS_BYTES, MAX_ADDRESS_BYTES))
    signal.signal(signal.SIGALRM, _too_slow)
    warnings.simplefilter("ignore")  # of decoders, about what is wrong with a file
    reader = READERS[name]
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # libraries print to standard output as they like
    with answers, tempfile.TemporaryDirectory() as folder:
        for number in range(first, first + count):
            made = reader.make(random.Random(f"{seed} {name} {number}"))  # noqa: S311
            _say(answers, {"at": number})
            _say(answers, _tried(reader, made, Path(folder)))


def _tried(reader: Reader, made: Any, folder: Path) -> dict[str, Any]:
    accepted = refused = False
    findings: list[str] = []
    start = time.perf_counter()
    signal.alarm(MAX_SECONDS)
    try:
        reader.read(made, folder)
        accepted = True
    except reader.refusals as error:
        refused = True
        if not str(error).strip():
            findings.append(f"{type(error).__name__} without a word")
    except TooSlowError:
        findings.append(f"stopped after {MAX_SECONDS} s")
    except BaseException as error:
        findings.append(f"{type(error).__name__}: {str(error)[:200]}")
    finally:
        signal.alarm(0)
    seconds = time.perf_counter() - start
    if seconds > MAX_SECONDS and not findings:
        findings.append(f"took {seconds:.1f} s")
    peak_mb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e6
    if peak_mb > MAX_MB:
        findings.append(f"resident memory of {peak_mb:.0f} MB (or an input before it)")
    return {
        "accepted": accepted,
        "refused": refused,
        "ms": 1000 * seconds,
        "peak_mb": peak_mb,
        "findings": findings,
    }


def _too_slow(number: int, frame: FrameType | None) -> NoReturn:
    del number, frame
    raise TooSlowError


def _say(answers: IO[str], what: dict[str, Any]) -> None:
    answers.write(json.dumps(what) + "\n")
    answers.flush()


# --- mutations -----------------------------------------------------------------------------------


def mutated(
    rng: random.Random, content: bytes, other: bytes, *, places: Sequence[int] = ()
) -> bytes:
    """Bytes with a few things changed; `other` gives foreign pieces, `places` where to prefer."""
    data = bytearray(content)
    for _ in range(rng.choice((1, 1, 1, 2, 3, 8))):
        at = _place(rng, len(data), places)
        size = rng.choice((1, 2, 4, 8, 16, 64, 256, 4096))
        match rng.randrange(9):
            case 0 if data:
                data[at] ^= 1 << rng.randrange(8)
            case 1:
                data[at : at + size] = rng.randbytes(size)
            case 2 if rng.random() < 0.3:
                del data[at:]
            case 3:
                data[at:at] = rng.randbytes(size)
            case 4:  # a piece twice, or often
                data[at:at] = data[at : at + size] * rng.choice((1, 1, 2, 50))
            case 5:
                del data[at : at + size]
            case 6:
                data[at : at + size] = bytes([rng.choice((0, 0xFF, 0x20, 0x5B))]) * size
            case 7 if other:
                start = rng.randrange(len(other))
                data[at : at + size] = other[start : start + size]
                if rng.random() < 0.2:
                    data[at:] = other[at:]
            case _:
                width, order = rng.choice((1, 2, 4, 8)), rng.choice(("little", "big"))
                number = rng.choice((*_NUMBERS, *_HUGE, rng.getrandbits(64))) % 256**width
                data[at : at + width] = number.to_bytes(width, order)
    return bytes(data)


def _place(rng: random.Random, size: int, places: Sequence[int]) -> int:
    """Where to change something: often near the beginning, where headers are."""
    if places and rng.random() < 0.8:
        return min(max(rng.choice(places) + rng.randrange(-8, 24), 0), max(size - 1, 0))
    share = rng.random() ** rng.choice((1, 1, 3))
    return int(share * size) if size else 0


def restructured(rng: random.Random, tree: Any) -> Any:
    """JSON-like values with a few of them changed, lost, doubled, renamed or in another place."""
    tree = json.loads(json.dumps(tree))
    for _ in range(rng.choice((1, 1, 1, 2, 4))):
        nodes = _nodes(tree)
        if not nodes:
            return rng.choice(_VALUES)
        node, key = rng.choice(nodes)
        match rng.randrange(7):
            case 0 | 1:
                node[key] = rng.choice(_VALUES)
            case 2:
                del node[key]
            case 3:
                node[key] = _DEEP
            case 4 if isinstance(node, dict):
                text = str(key)
                node[rng.choice((text[:-1], text + "s", text.upper(), "", "\x1b[0m"))] = node[key]
                del node[key]
            case 5:
                other, place = rng.choice(nodes)
                node[key] = json.loads(json.dumps(other[place]))
            case _:
                old = node[key]
                node[key] = rng.choice(([old], {"x": old}, str(old), [old] * 300))
    return tree


def _nodes(tree: Any) -> list[tuple[Any, Any]]:
    """Every place in a tree, as what holds it and its key there."""
    keys: Any = ()
    if isinstance(tree, dict):
        keys = list(tree)
    elif isinstance(tree, list):
        keys = range(len(tree))
    found = [(tree, key) for key in keys]
    for key in keys:
        found += _nodes(tree[key])
    return found


def _deepened(rng: random.Random, text: str) -> str:
    """Text whose marks of depth are that, often just about as deep as Python goes."""
    depth = rng.choice((10, 300, rng.randrange(850, 1000), 990, 5000, 100_000))
    left, right = rng.choice((("[", "]"), ('{"a":', "}")))
    inner = "1" if left != "[" else ""
    closed = left * depth + inner + right * depth
    return text.replace(json.dumps(_DEEP), closed, 1).replace(_DEEP, "x")


# --- pictures ------------------------------------------------------------------------------------


@cache
def _pictures() -> tuple[tuple[str, bytes], ...]:
    cells = render(np.arange(8), seed=0, image_size=32)
    image = Image.fromarray(np.concatenate(list(cells[:2]), axis=1))
    made: list[tuple[str, bytes]] = []

    def add(kind: str, mode: str, **options: Any) -> None:
        memory = io.BytesIO()
        image.convert(mode).save(memory, kind, **options)
        made.append((kind, memory.getvalue()))

    for mode in ("L", "RGB", "CMYK"):
        add("JPEG", mode)
    add("JPEG", "RGB", progressive=True, exif=Image.Exif().tobytes(), comment="x" * 50)
    for mode in ("1", "L", "LA", "P", "RGB", "RGBA", "I;16"):
        add("PNG", mode)
    add("PNG", "RGB", icc_profile=b"\0" * 200, dpi=(72, 72))
    for mode in ("1", "L", "P", "RGB", "RGBA"):
        add("BMP", mode)
    for mode, compression in (
        *(("RGB", None), ("L", "tiff_lzw"), ("RGBA", "tiff_adobe_deflate"), ("1", "group4")),
        *(("CMYK", "packbits"), ("RGB", "jpeg"), ("LAB", None), ("P", "tiff_lzw"), ("F", None)),
        *(("YCbCr", "jpeg"), ("I;16", None), ("1", "group3"), ("RGB", "tiff_deflate")),
    ):
        add("TIFF", mode, compression=compression)
    add("WEBP", "RGB")
    add("WEBP", "RGBA", lossless=True)
    add("GIF", "P")
    others = [image.rotate(180), image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)]
    for kind in ("GIF", "TIFF", "WEBP", "PNG"):
        add(kind, "RGB", save_all=True, append_images=others)
    return tuple(made)


def _make_picture(rng: random.Random) -> bytes:
    kind, content = rng.choice(_pictures())
    content = mutated(rng, content, rng.choice(_pictures())[1])
    return _with_checksums(content) if kind == "PNG" and rng.random() < 0.7 else content


def _with_checksums(png: bytes) -> bytes:
    """A PNG file whose chunks have the right checksums, as far as it has chunks."""
    data, at = bytearray(png), 8
    while at + 12 <= len(data):
        end = at + 8 + int.from_bytes(data[at : at + 4], "big")
        if end + 4 > len(data):
            break
        data[end : end + 4] = zlib.crc32(data[at + 4 : end]).to_bytes(4, "big")
        at = end + 4
    return bytes(data)


def _read_picture(content: bytes, folder: Path) -> None:
    from hemascope.data.pictures import read_picture

    del folder
    image = read_picture(content).image
    if image.mode != "RGB" or np.asarray(image).shape != (image.height, image.width, 3):
        raise AssertionError(f"{image.mode} {image.size} is not what was promised")


def _picture_refusals() -> tuple[type[Exception], ...]:
    from hemascope.data.pictures import BadPictureError

    return (BadPictureError, OSError)


# --- arrays and archives -------------------------------------------------------------------------


@cache
def _arrays() -> dict[str, bytes]:
    """The members of a small MedMNIST-layout file."""
    members: dict[str, bytes] = {}

    def add(key: str, array: Any) -> None:
        memory = io.BytesIO()
        np.save(memory, array, allow_pickle=False)
        members[f"{key}.npy"] = memory.getvalue()

    for seed, split in enumerate(("train", "val", "test")):
        labels = np.arange(2 + seed)
        add(f"{split}_images", render(labels, seed=seed, image_size=8))
        add(f"{split}_labels", labels.astype(np.uint8).reshape(-1, 1))
        add(f"{split}_names", np.array([f"cell-{i}" for i in labels]))
    return members


def _make_npz(rng: random.Random) -> bytes:
    members = dict(_arrays())
    inside = rng.random() < 0.6  # so that the archive is whole, and what is in it is not
    if inside:
        for _ in range(rng.choice((1, 1, 2))):
            name, foreign = rng.choice(list(members)), rng.choice(list(members.values()))
            members[name] = _changed_array(rng, members[name], foreign)
        if rng.random() < 0.1:
            del members[rng.choice(list(members))]
    content = _zipped(members, rng.choice((zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)))
    return content if inside else mutated(rng, content, _zipped(_arrays(), zipfile.ZIP_STORED))


def _changed_array(rng: random.Random, content: bytes, foreign: bytes) -> bytes:
    """A .npy file with another shape, type or header, or anything changed."""
    if rng.random() < 0.4:
        return mutated(rng, content, foreign, places=range(0, 128, 4))
    (length,) = struct.unpack("<H", content[8:10])
    header = content[10 : 10 + length].decode("latin-1")
    numbers = (*_NUMBERS, *_HUGE, -1, "True", "1.5", "'x'", "1e400", "()", "[" * 200 + "]" * 200)
    types = ("|u1", "<i8", "<f8", "|O", "<M8[s]", "<U9999999", "|V0", "|S0", "<c16", ">u2", "x,y")
    match rng.randrange(4):
        case 0:
            numbers = re.sub(r"\d+(?=[,)])", lambda _: str(rng.choice(numbers)), header, count=1)
            header = numbers
        case 1:
            header = re.sub(r"'descr': '[^']*'", f"'descr': {rng.choice(types)!r}", header)
        case 2:
            header = header.replace("False", rng.choice(("True", "None", "0", "''")))
        case _:
            changed = mutated(rng, header.encode(), foreign[10:80])
            header = changed.decode("latin-1")
    encoded = header.encode("latin-1", "replace")[:60_000]
    return content[:8] + struct.pack("<H", len(encoded)) + encoded + content[10 + length :]


def _zipped(members: dict[str, bytes], how: int) -> bytes:
    memory = io.BytesIO()
    with zipfile.ZipFile(memory, "w", how) as archive:
        for name, content in members.items():
            archive.writestr(zipfile.ZipInfo(name), content, compress_type=how)
    return memory.getvalue()


def _read_npz(content: bytes, folder: Path) -> None:
    from hemascope.data.npz import read_npz, rows_of
    from hemascope.data.source import Request
    from hemascope.settings.data import DataSettings

    request = Request(DataSettings(collection="bloodmnist"))
    path = folder / "data.npz"
    path.write_bytes(content)
    refused: HemascopeError | None = None
    readers = (lambda: read_npz(path, request), lambda: sum(1 for _ in rows_of(path)))
    for reader in readers:
        try:
            reader()
        except HemascopeError as error:  # the other one is to be asked as well
            refused = error
    if refused:
        raise refused


@cache
def _archives() -> tuple[tuple[str, bytes], ...]:
    members = {f"a/cell {i}.{kind.lower()}": data for i, (kind, data) in enumerate(_some())}
    members["../outside.png"] = members["notes.txt"] = b"x"
    made = [
        ("zip", _zipped(members, how))
        for how in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA)
    ]
    for mode, form in (("w", tarfile.PAX_FORMAT), ("w", tarfile.GNU_FORMAT), ("w:gz", 1)):
        made.append(("tar", _tarred(members, mode, form)))
    return tuple(made)


def _some() -> list[tuple[str, bytes]]:
    return list(_pictures()[::6])


def _tarred(members: dict[str, bytes], mode: Any, form: int) -> bytes:
    memory = io.BytesIO()
    with tarfile.open(fileobj=memory, mode=mode, format=form) as archive:
        for name, content in members.items():
            info = tarfile.TarInfo(name if form != tarfile.PAX_FORMAT else name + "é" * 120)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
        link = tarfile.TarInfo("link.png")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
        archive.addfile(link)
    return memory.getvalue()


def _make_archive(rng: random.Random) -> tuple[str, bytes]:
    kind, content = rng.choice(_archives())
    ends = range(max(len(content) - 900, 0), len(content), 4)  # where a zip says what it holds
    content = mutated(rng, content, rng.choice(_archives())[1], places=ends)
    if kind == "tar" and rng.random() < 0.5:
        content = _with_sums(content)
    return kind, content


def _with_sums(tar: bytes) -> bytes:
    """A tar file whose headers have the right sums, wherever one may be."""
    data = bytearray(tar)
    for at in range(0, len(data) - 511, 512):
        if data.startswith(b"ustar", at + 257):
            data[at + 148 : at + 156] = b" " * 8
            data[at + 148 : at + 156] = b"%06o\0 " % sum(data[at : at + 512])
    return bytes(data)


def _read_archive(made: tuple[str, bytes], folder: Path) -> None:
    from hemascope.data.archive import read_archive
    from hemascope.data.inputs import items
    from hemascope.data.source import Request
    from hemascope.data.walk import PassedOver
    from hemascope.settings.data import DataSettings

    kind, content = made
    path = folder / f"cells.{kind}"
    path.write_bytes(content)
    refused: Exception | None = None
    try:
        read_archive(path, Request(DataSettings(skip_bad=True)))
    except HemascopeError as error:  # as pictures to be answered it is to be asked as well
        refused = error
    for item in items([str(path)], PassedOver()):
        try:
            item.read()
        except _picture_refusals() as error:  # in its row; the others are read
            refused = error
    if refused:
        raise refused


# --- artifacts and graphs ------------------------------------------------------------------------


def _packaged() -> Path:
    return Path(str(resources.files("hemascope"))) / "pretrained" / "hemanet"


@cache
def _artifact() -> dict[str, bytes]:
    """A small model folder: the packaged one's JSON, a graph that is not run, a few hashes."""
    from safetensors.numpy import save

    info: dict[str, Any] = json.loads((_packaged() / "artifact.json").read_text())
    seen = save({"hashes": np.arange(20, dtype=np.uint64), "more": np.zeros((2, 3))})
    files = {_named("seen", seen, "safetensors"): seen}
    info["seen_file"], info["seen_sha256"] = next(iter(files)), sha256(seen).hexdigest()
    for graph in info["onnx"]:
        content = graph["precision"].encode() * 50
        graph["file"] = _named(graph["precision"], content, "onnx")
        graph["sha256"] = sha256(content).hexdigest()
        files[graph["file"]] = content
    return {"artifact.json": json.dumps(info, indent=2).encode(), **files}


def _named(stem: str, content: bytes, suffix: str) -> str:
    return f"{stem}-{sha256(content).hexdigest()[:12]}.{suffix}"


def _make_artifact(rng: random.Random) -> dict[str, bytes]:
    files = dict(_artifact())
    info = json.loads(files["artifact.json"])
    match rng.randrange(4):
        case 0:
            changed = mutated(rng, files["artifact.json"], b'{"format_version": 4, "a": [')
            return {**files, "artifact.json": changed}
        case 1:  # the file is damaged, and is said to be as it is
            seen = mutated(rng, files[info["seen_file"]], b'{"hashes":{"dtype":"U64","shape":[')
            files[info["seen_file"]] = seen
            info["seen_sha256"] = sha256(seen).hexdigest()
        case 2:  # the same in its header of JSON
            content = files[info["seen_file"]]
            (length,) = struct.unpack("<Q", content[:8])
            header = restructured(rng, json.loads(content[8 : 8 + length]))
            text = _deepened(rng, json.dumps(header)).encode()
            seen = struct.pack("<Q", len(text)) + text + content[8 + length :]
            files[info["seen_file"]] = seen
            info["seen_sha256"] = sha256(seen).hexdigest()
        case _:
            if rng.random() < 0.1:
                name = rng.choice(list(files))
                files[name] = mutated(rng, files[name], b"\0" * 99)
            info = restructured(rng, info)
    files["artifact.json"] = _deepened(rng, json.dumps(info)).encode()
    return files


def _read_artifact(files: dict[str, bytes], folder: Path) -> None:
    from hemascope.store.model_folder import load_graph, load_info, load_seen

    for old in folder.iterdir():
        old.unlink()
    for name, content in files.items():
        (folder / name).write_bytes(content)
    refused: HemascopeError | None = None
    for reader in (load_info, load_seen, partial(load_graph, precision=None)):
        try:
            reader(folder)
        except HemascopeError as error:
            refused = error
    if refused:
        raise refused


@cache
def _graphs() -> tuple[tuple[bytes, tuple[int, ...]], ...]:
    """The packaged graphs, and where in them names are: near those lies what is not a weight."""
    contents = [path.read_bytes() for path in sorted(_packaged().glob("*.onnx"))]
    names = re.compile(rb"[A-Za-z_/.0-9]{5,}")
    return tuple((data, tuple(m.start() for m in names.finditer(data))) for data in contents)


def _make_graph(rng: random.Random) -> bytes:
    content, places = rng.choice(_graphs())
    return mutated(rng, content, rng.choice(_graphs())[0], places=places)


def _read_graph(content: bytes, folder: Path) -> None:
    from hemascope.inference.onnx_engine import OnnxEngine

    del folder
    engine = OnnxEngine(content, origin="the graph", threads=1)
    engine.logits(np.full((2, 28, 28, 3), 200, dtype=np.uint8))


# --- settings ------------------------------------------------------------------------------------


@cache
def _presets() -> tuple[str, ...]:
    from hemascope.settings.run import load_preset, preset_names

    raw = resources.files("hemascope.settings") / "presets"
    texts = [(raw / f"{name}.toml").read_text("utf-8") for name in preset_names()]
    return (*texts, *(load_preset(name).to_toml() for name in preset_names()))


def _make_config(rng: random.Random) -> bytes:
    import tomli_w

    text = rng.choice(_presets())
    match rng.randrange(4):
        case 0 | 1:
            return mutated(rng, text.encode(), rng.choice(_presets()).encode())
        case 2:
            line = rng.choice(_toml_lines(rng))
            place = text.find("\n", rng.randrange(len(text)))
            return (text[: place + 1] + line + text[place:]).encode("utf-8", "replace")
        case _:
            tree = _without_none(restructured(rng, tomllib.loads(text)))
            written = tomli_w.dumps(tree if isinstance(tree, dict) else {"x": tree})
            return _deepened(rng, written).encode("utf-8", "replace")


def _toml_lines(rng: random.Random) -> tuple[str, ...]:
    depth = rng.choice((100, 300, rng.randrange(850, 1000), 3000))
    return (
        "a" + ".a" * depth + " = 1\n",
        "model.options.a" + ".a" * depth + " = 1\n",
        "seed" + ".a" * depth + " = 1\n",
        f"[{'.'.join(['x'] * depth)}]\n",
        f"[training.{'.'.join(['x'] * depth)}]\n",
        "x = " + "[" * depth + "]" * depth + "\n",
        "seed = " + "[" * depth + "]" * depth + "\n",
        "seed = " + "{a = " * depth + "1" + "}" * depth + "\n",
        "seed = " + "9" * rng.choice((20, 4000, 5000)) + "\n",
        "seed = 0x" + "f" * 5000 + "\n",
        "learning_rate = "
        + rng.choice(("nan", "inf", "-inf", "1e999", "1979-05-27", "12:00:00"))
        + "\n",
        'name = "' + "\\u0000" * 70 + '"\n',
        "[[training]]\n" * depth,
        '"" = 1\n',
    )


def _without_none(tree: Any) -> Any:
    """Values that TOML has."""
    if isinstance(tree, dict):
        return {str(key): _without_none(value) for key, value in tree.items()}
    if isinstance(tree, list):
        return [_without_none(value) for value in tree]
    if isinstance(tree, str):
        return tree.encode("utf-8", "replace").decode()
    return 0 if tree is None else tree


def _read_config(content: bytes, folder: Path) -> None:
    from hemascope.settings.run import load_config

    path = folder / "config.toml"
    path.write_bytes(content)
    load_config(path)


READERS = {
    "pictures": Reader(_make_picture, _read_picture, _picture_refusals()),
    "npz": Reader(_make_npz, _read_npz, (HemascopeError,)),
    "archives": Reader(_make_archive, _read_archive, (*_picture_refusals(), HemascopeError)),
    "artifact": Reader(_make_artifact, _read_artifact, (HemascopeError,)),
    "graphs": Reader(_make_graph, _read_graph, (HemascopeError,), slower=GRAPHS_SHARE),
    "config": Reader(_make_config, _read_config, (HemascopeError,)),
}

if __name__ == "__main__":
    sys.exit(main())
