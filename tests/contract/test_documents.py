"""What is written for people holds: commands, options, links, and the programs on the pages."""

import json
import os
import re
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from typer.main import get_command

from hemascope.cli.app import app
from hemascope.data.rendered import render
from hemascope.inference.predictor import Predictor
from hemascope.settings.output import Output

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
NOTEBOOKS = sorted(DOCS.rglob("*.ipynb"))
DOCUMENTS = [
    *(ROOT / name for name in ("README.md", "CONTRIBUTING.md")),
    *sorted(DOCS.rglob("*.md")),
    *NOTEBOOKS,
    *sorted((ROOT / "src" / "hemascope" / "settings" / "presets").glob("*.toml")),
]
EDGE = DOCS / "tutorials" / "edge.md"
# Options of others, and the word itself.
_OTHERS = {"--keep-going", "--options"}


def _options(command: Any, *path: str) -> dict[tuple[str, ...], set[str]]:
    """The options of a command and of all below it, by the words that name it."""
    context = command.context_class(command, **command.context_settings)
    own = {option for one in command.get_params(context) for option in one.opts}
    found = {path: own | {"-h", "--help"}}
    for name, child in getattr(command, "commands", {}).items():
        found |= _options(child, *path, name)
    return found


OPTIONS = _options(get_command(app))
EVERY_OPTION = set[str]().union(*OPTIONS.values(), _OTHERS) | {
    option
    for script in (ROOT / "benchmarks").glob("*.py")
    for option in re.findall(r"--[a-z][a-z0-9-]*", script.read_text("utf-8"))
}


def _code(document: Path) -> list[str]:
    """Lines of shell, and code between backquotes."""
    text = document.read_text("utf-8")
    if document.suffix == ".toml":
        return re.findall(r"(?:Command: +|^# )(hemascope .+)", text, re.M)
    if document.suffix == ".ipynb":
        text = "\n".join("".join(cell["source"]) for cell in json.loads(text)["cells"])
    blocks = re.findall(r"```(?:sh|bash|shell|console)\n(.*?)```", text, re.S)
    lines = "".join(blocks).replace("\\\n", " ").splitlines()
    spans = re.findall(r"`([^`]+)`", re.sub("```.*?```", "", text, flags=re.S))
    return [line.partition("#")[0] for line in lines] + [" ".join(s.split()) for s in spans]


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_every_command_in_the_documents_exists(document: Path) -> None:
    for line in _code(document):
        option = re.compile(r"(?<![\w-])--?[a-z][a-z0-9-]*")
        called = re.search(r"(?<![\w/.-])(?:\.venv/bin/)?hemascope +((?:-|[a-z]).*)", line)
        if called:
            words = called[1].split()
            command = tuple(words[: 1 + (words[0] in ("data", "review"))])
            command = () if words[0].startswith("-") else command
            assert command in OPTIONS, line
            wrong = set(option.findall(called[1])) - OPTIONS[command]
            assert not wrong, line
        elif line.split()[:1] and line.split()[0] in {path[0] for path in OPTIONS if path}:
            assert set(option.findall(line)) <= OPTIONS[(line.split()[0],)], line
        elif line.startswith("--"):
            assert set(re.findall("--[a-z][a-z0-9-]*", line)) <= EVERY_OPTION, line


def test_the_readme_is_short_and_its_links_are_absolute() -> None:
    text = (ROOT / "README.md").read_text("utf-8")
    assert len(text.splitlines()) <= 150
    links = re.findall(r"\]\(([^)]+)\)", text)
    assert len(links) > 10
    for link in links:
        assert link.startswith("https://"), link
        if found := re.match(r"https://\S+/hemascope/(?:(?:blob|tree)/)?main/([^#]*)", link):
            assert (ROOT / found[1]).exists(), link


@pytest.mark.parametrize("notebook", NOTEBOOKS, ids=lambda path: path.name)
@pytest.mark.filterwarnings("ignore")  # of Jupyter's own
def test_notebooks_run(notebook: Path, tmp_path: Path) -> None:
    import nbformat
    from nbclient import NotebookClient

    book: Any = nbformat.read(notebook, as_version=4)
    resources_of = {"metadata": {"path": str(tmp_path)}}
    NotebookClient(book, timeout=120, kernel_name="python3", resources=resources_of).execute()


def _programs(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", EDGE.read_text("utf-8"), re.S)


def _packaged(name: str) -> Path:
    return Path(str(resources.files("hemascope"))) / "pretrained" / name


@pytest.mark.parametrize(("size", "share"), [(64, 1.0), (128, 1.0), (150, 0.7), (97, 0.9)])
def test_plain_onnxruntime_agrees_with_predict(
    size: int, share: float, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    program, _ = _programs("python")
    shutil.copytree(_packaged("hemanet-64-labs"), tmp_path / "my-model")
    info = tmp_path / "my-model" / "artifact.json"
    about = json.loads(info.read_text("utf-8"))
    about["image"]["crop"] = share  # as `adapt` and `train --crop` write it
    info.write_text(json.dumps(about), "utf-8")
    monkeypatch.chdir(tmp_path)
    predictor = Predictor("hemanet-64-labs", crop=share)
    for label in (0, 3, 7):
        [cell] = render(np.array([label]), seed=label, image_size=size)
        Image.fromarray(cell).save("cell.png")
        names: dict[str, Any] = {}
        exec(program, names)  # noqa: S102 - the page's own
        expected = predictor.predict_proba(cell)[0]
        np.testing.assert_allclose(names["probs"], expected, atol=1e-5)


@pytest.mark.parametrize("size", [64, 128, 150, 360])
def test_the_graph_with_its_preparation_agrees_with_predict(
    size: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, whole_graph: Path
) -> None:
    _, program = _programs("python")
    (tmp_path / "edge").symlink_to(whole_graph)
    monkeypatch.chdir(tmp_path)
    predictor = Predictor("hemanet-64-labs", frame="" if size == 360 else "whole")
    for label in (0, 3, 7):
        [cell] = render(np.array([label]), seed=label, image_size=size)
        Image.fromarray(cell).save("cell.png")
        names: dict[str, Any] = {}
        exec(program, names)  # noqa: S102 - the page's own
        [expected] = predictor.predict([cell])
        np.testing.assert_allclose(names["probs"], expected.probs, atol=1e-5)
        assert names["name"] == expected.predicted_class


@pytest.fixture(scope="module")
def whole_graph(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from hemascope.workflows.export import export_whole

    out = tmp_path_factory.mktemp("whole") / "edge"
    export_whole(Path("hemanet-64-labs"), Output(out))
    return out


@pytest.fixture
def served(tmp_path: Path) -> Iterator[str]:
    """The address of a folder, `tmp_path`, on this machine."""
    handler = partial(_Quiet, directory=str(tmp_path))
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


class _Quiet(SimpleHTTPRequestHandler):
    def log_message(self, format: str, *args: Any) -> None:
        """Says nothing."""


def test_onnxruntime_web_agrees_with_predict(served: str, tmp_path: Path) -> None:
    folders = map(Path, os.environ.get("NODE_PATH", "").split(os.pathsep))
    found = [folder for folder in folders if (folder / "onnxruntime-web").is_dir()]
    node = shutil.which("node")
    if not found or not node:
        pytest.skip("no node, or no onnxruntime-web in a folder of NODE_PATH")
    (tmp_path / "node_modules").symlink_to(found[0].resolve())
    (tmp_path / "my-model").symlink_to(_packaged("hemanet-64-labs"))
    cells = render(np.arange(8), seed=0, image_size=64)
    rgba = np.concatenate([cells, np.full_like(cells[..., :1], 255)], axis=3)
    (tmp_path / "pixels.json").write_text(json.dumps(rgba.reshape(8, -1).tolist()))
    (tmp_path / "edge.mjs").write_text(_programs("js")[0])
    (tmp_path / "main.mjs").write_text(
        f"""import {{ load, classify }} from "./edge.mjs";
        const model = await load("{served}/my-model"), answers = [];
        for (const one of await (await fetch("{served}/pixels.json")).json())
          answers.push(await classify(model, new Uint8ClampedArray(one)));
        console.log(JSON.stringify(answers));"""
    )
    done = subprocess.run([node, "main.mjs"], cwd=tmp_path, capture_output=True, check=False)
    assert done.returncode == 0, done.stderr.decode()
    expected = Predictor("hemanet-64-labs", crop=1.0).predict_proba(cells)
    np.testing.assert_allclose(json.loads(done.stdout), expected, atol=1e-3)


def test_the_documentation_builds_without_a_warning(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "sphinx", "-q", "-W", "--keep-going", "-n", DOCS, tmp_path]
    done = subprocess.run(command, capture_output=True, check=False)
    assert done.returncode == 0, done.stderr.decode()
