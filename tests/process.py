"""Runs the program in a process of its own: a fork of one that imported all and read what is on file, no more.

To import all that a search needs takes half a second and to read a machine and a model a tenth, a thousand times in
these tests.  A fork has arguments, environment, folder and streams of its own, and ends as Python ends.  What a start
itself imports and reads is held by tests that start Python: `test_house`, `test_terminal`, `test_cli`.
"""

import atexit
import gc
import importlib
import json
import os
import pkgutil
import socket
import subprocess
import sys
import tempfile
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
#: what the program imports only where it comes to it
LATE = ("scipy.optimize", "scipy.special", "sympy", "sympy.printing.str", "jinja2", "plotext", "rich.text")
#: kinds of data that most runs read: models and what machines are made of
READ = ("models", "chips", "systems", "stacks", "kernels", "terms", "techniques")
#: words that have the program tell what it reads, and when
TELLING = {"-v", "--verbose"}
#: bytes of the length of a request
HEAD = 8


def run(
    *words: str,
    env: dict[str, str] | None = None,
    cwd: Path | str | None = None,
    given: str | None = None,
    check: bool = False,
) -> "subprocess.CompletedProcess[str]":
    """Run ``moeplan`` and return how it ended and what it wrote; ``given`` is what comes on stdin.

    Where the environment asks Python itself for something else than it asks these tests, or the program is to tell what
    it reads, Python is started.
    Raises ``CalledProcessError`` where ``check`` and the program does not end well.
    """
    environment = dict(os.environ if env is None else env)
    if not TELLING & set(words) and _of_python(environment) == _of_python(dict(os.environ)):
        done = _forked(words, environment, Path.cwd() if cwd is None else Path(cwd), given)
    else:
        command, folder = [sys.executable, "-m", "perfmodel", *words], cwd
        done = subprocess.run(command, capture_output=True, text=True, env=environment, cwd=folder, input=given)
    if check:
        done.check_returncode()
    return done


def _of_python(environment: dict[str, str]) -> dict[str, str]:
    """Return what tells Python how to run; the encoding of streams is set in a fork as it is told to all."""
    told = {name: value for name, value in environment.items() if name.startswith(("PYTHON", "LC_", "LANG"))}
    if told.get("PYTHONPATH") == str(ROOT):
        del told["PYTHONPATH"]
    return told | {"PYTHONIOENCODING": told.get("PYTHONIOENCODING", "utf-8")}


def _forked(
    words: tuple[str, ...], environment: dict[str, str], folder: Path, given: str | None
) -> "subprocess.CompletedProcess[str]":
    asked = json.dumps([words, environment, str(folder.resolve())]).encode("utf-8", "surrogateescape")
    with tempfile.TemporaryFile() as stdin, tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
        stdin.write((given or "").encode())
        stdin.seek(0)
        line = _line()
        socket.send_fds(line, [len(asked).to_bytes(HEAD, "big")], [one.fileno() for one in (stdin, out, err)])
        line.sendall(asked)
        code = int.from_bytes(_received(line, HEAD), "big", signed=True)
        texts = []
        for stream in (out, err):
            stream.seek(0)
            texts.append(stream.read().decode("utf-8").replace("\r\n", "\n").replace("\r", "\n"))
    return subprocess.CompletedProcess(["moeplan", *words], code, *texts)


@cache
def _line() -> socket.socket:
    """Return the line to a process that has imported all, started once for each process of tests."""
    ours, theirs = socket.socketpair()
    command = [sys.executable, "-m", "tests.process", str(theirs.fileno())]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    server = subprocess.Popen(command, pass_fds=[theirs.fileno()], cwd=ROOT, env=environment, stdin=subprocess.DEVNULL)
    theirs.close()

    def end() -> None:
        ours.close()
        server.terminate()  # it only waits
        server.wait()

    atexit.register(end)
    return ours


def _received(line: socket.socket, count: int) -> bytes:
    held = b""
    while len(held) < count:
        more = line.recv(count - len(held))
        if not more:
            raise EOFError("the process that runs the program is gone")
        held += more
    return held


# --- the process that forks -----------------------------------------------------------------------


def _begun() -> None:
    """Import all, and read what is on file of machines and models."""
    import perfmodel

    for module in pkgutil.walk_packages(perfmodel.__path__, "perfmodel."):
        if module.name != "perfmodel.__main__":
            importlib.import_module(module.name)
    for name in LATE:
        importlib.import_module(name)
    from perfmodel.files import catalog, folders

    for kind in READ:
        for path in folders.entries(kind).values():
            catalog.load_path(kind, path)
    gc.collect()
    gc.freeze()  # forks leave what is here alone


def _next(line: socket.socket) -> tuple[list[int], Any]:
    """Return the streams and the rest of the next request; ends this process where nobody asks any more."""
    head, streams, _, _ = socket.recv_fds(line, HEAD, 3)
    if not head:
        raise SystemExit
    head += _received(line, HEAD - len(head)) if len(head) < HEAD else b""
    return streams, json.loads(_received(line, int.from_bytes(head, "big")))


def _become(streams: list[int], words: list[str], environment: dict[str, str], folder: str) -> None:
    """Make a fork what a start of Python would have made."""
    for number, stream in enumerate(streams):
        os.dup2(stream, number)
        os.close(stream)
    os.environ.clear()
    os.environ.update(environment)
    os.chdir(folder)
    sys.argv = [str(ROOT / "perfmodel" / "__main__.py"), *words]
    encoding, _, errors = environment.get("PYTHONIOENCODING", "utf-8").partition(":")
    sys.stdin = os.fdopen(0, encoding=encoding, errors=errors or "strict")
    sys.stdout = os.fdopen(1, "w", encoding=encoding, errors=errors or "strict")
    sys.stderr = os.fdopen(2, "w", encoding=encoding, errors="backslashreplace", buffering=1)


def _served(number: int) -> None:
    """Fork for each request, and tell how the fork ended; a fork returns from here and is the program."""
    _begun()
    line = socket.socket(fileno=number)
    while True:
        streams, (words, environment, folder) = _next(line)
        child = os.fork()
        if child == 0:
            line.close()
            _become(streams, words, environment, folder)
            return
        for stream in streams:
            os.close(stream)
        code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        line.sendall(code.to_bytes(HEAD, "big", signed=True))


def _end(ended: SystemExit) -> None:
    """End a fork at once where all was written: to take down what it shares with its parent takes as long as a run."""
    with suppress(OSError, ValueError):  # Python tells these as it ends
        atexit._run_exitfuncs()
        sys.stdout.flush()
        sys.stderr.flush()
        if isinstance(ended.code, int | None):
            os._exit(ended.code or 0)


if __name__ == "__main__":
    _served(int(sys.argv[1]))
    from perfmodel.__main__ import main

    try:
        main()
    except SystemExit as ended:
        _end(ended)
        raise
