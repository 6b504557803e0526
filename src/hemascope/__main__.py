"""Runs the command line and turns every error into one sentence and an exit code."""

import io
import sys
import warnings

from typer.exceptions import TyperException

from hemascope.cli.app import app
from hemascope.core.errors import HemascopeError
from hemascope.workflows.progress import as_options

_SCALE = {"mlflow", "optuna", "ray", "tensorboard", "usearch"}  # of that extra
_INTERRUPTED = 130  # what shells expect after Ctrl-C, 128 + SIGINT, and typer returns


def main() -> None:
    """The `hemascope` command.

    Exit codes: 0 done, 1 some images could not be read, 2 usage or input, 3 unreachable data,
    130 interrupted.
    """
    for stream in (sys.stdout, sys.stderr):  # a terminal without a sign shows another one for it
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")
    if isinstance(sys.stdin, io.TextIOWrapper):  # a list of file names, which may be any bytes
        sys.stdin.reconfigure(errors="surrogateescape")
    warnings.filterwarnings("ignore", module="PIL")  # of damaged pictures, whose rows say it
    if len(sys.argv) == 1:
        sys.argv.append("--help")
    code = 0
    try:
        code = app(standalone_mode=False)  # typer answers Ctrl-C and --help with an exit code
    except HemascopeError as error:
        text = f"`{error.field}`: {error}" if error.field else str(error)
        _fail(as_options(text), error.exit_code)
    except TyperException as error:
        _fail(error.format_message(), error.exit_code)
    except ModuleNotFoundError as error:
        name = (error.name or "").partition(".")[0]
        extra = "scale" if name in _SCALE else "train"
        _fail(f"this needs {name}: install it with pip install 'hemascope[{extra}]'.", 2)
    except OSError as error:  # a path that is too long, not permitted, and the like
        place = "standard output" if error.filename is None else error.filename
        _fail(f"cannot use {place}: {error.strerror or error}; correct the path.", 2)
    if code == _INTERRUPTED:
        _fail("interrupted; what was finished is kept.", _INTERRUPTED)
    sys.exit(code or 0)


def _fail(message: str, code: int) -> None:
    if sys.stderr is not None:
        sys.stderr.write(f"hemascope: {' '.join(message.split())}\n")
    sys.exit(code)


if __name__ == "__main__":
    main()
