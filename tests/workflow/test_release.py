"""What would go to PyPI: built, checked, installed without the checkout, and asked."""

import subprocess
import sys
import sysconfig
import tarfile
import zipfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from hemascope import __version__
from hemascope.data.rendered import render

ROOT = Path(__file__).parents[2]
_MOST_BYTES = 12_000_000


def _run(*command: str | Path, cwd: Path) -> str:
    done = subprocess.run(list(map(str, command)), cwd=cwd, capture_output=True, check=False)
    assert done.returncode == 0, done.stdout.decode() + done.stderr.decode()
    return done.stdout.decode()


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The source distribution, and the wheel that is made of it."""
    out = tmp_path_factory.mktemp("dist")
    _run(sys.executable, "-m", "build", "--no-isolation", "--outdir", out, ROOT, cwd=out)
    return out


def test_wheel_and_source_hold_what_they_should(built: Path) -> None:
    [wheel], [source] = built.glob("*.whl"), built.glob("*.tar.gz")
    assert wheel.stat().st_size < _MOST_BYTES
    names = zipfile.ZipFile(wheel).namelist()
    for name in ("NOTICE", "LICENSE"):
        assert f"hemascope-{__version__}.dist-info/licenses/{name}" in names
    assert any(name.startswith("hemascope/pretrained/hemanet-64-labs/int8-") for name in names)
    with tarfile.open(source) as archive:
        held = archive.getnames()
    assert not [name for name in held if "shared" in name or name.endswith(".npy")]
    _run(sys.executable, "-m", "twine", "check", "--strict", wheel, source, cwd=built)


def test_an_installed_wheel_predicts(built: Path, tmp_path: Path) -> None:
    [wheel] = built.glob("*.whl")
    place = tmp_path / "environment"
    _run(sys.executable, "-m", "venv", "--without-pip", place, cwd=tmp_path)
    python = place / "bin" / "python"
    _run(
        Path(sys.executable).with_name("uv"),
        "pip",
        "install",
        "--no-deps",
        "--python",
        python,
        wheel,
        cwd=tmp_path,
    )
    own = _run(python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))", cwd=tmp_path)
    beside = Path(own.strip(), "beside.pth")  # its dependencies, as they are installed here
    beside.write_text(sysconfig.get_path("purelib"))
    Image.fromarray(render(np.array([7]), seed=0)[0]).save(tmp_path / "cell.png")
    code = "import hemascope; print(hemascope.__file__, hemascope.__version__)"
    where, said = _run(python, "-c", code, cwd=tmp_path).split()
    assert Path(where).is_relative_to(place)
    assert said == __version__
    text = _run(place / "bin" / "hemascope", "predict", "cell.png", cwd=tmp_path)
    assert "platelet" in text
