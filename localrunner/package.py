"""`make package`: the zip for a zip deploy, with its dependencies and compiled bytecode inside.

An instance starts the faster the less it has to do: packages that can only be read cannot keep the bytecode that
Python makes of them, so that without it every start compiles everything again.
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
TARGET = ROOT / "dist" / "app.zip"
APP = ("function_app.py", "host.json", "requirements.txt", "sinkcore")
PYTHON = "3.12"
# Source: Functions on Linux for Python 3.12 runs Debian 12, whose glibc is 2.36.
PLATFORMS = ("manylinux2014_x86_64", "manylinux_2_17_x86_64", "manylinux_2_28_x86_64", "manylinux_2_34_x86_64")
SITE_PACKAGES = Path(".python_packages/lib/site-packages")
WWWROOT = "/home/site/wwwroot"  # where Functions mounts the app; tracebacks name it
EPOCH = (1980, 1, 1, 0, 0, 0)  # a zip's earliest time: the same content makes the same zip
_IMPORTS_TESTS = re.compile(rb"^\s*(?:from|import)\b.*\btests\b", re.MULTILINE)
SLOWER = (
    f"package: no Python {PYTHON} is here to compile with, so the zip has no bytecode and a start takes longer;"
    " install one, or name it with --python"
)


class PackageError(Exception):
    """The zip could not be built."""


def main(arguments: list[str]) -> int:
    """The exit code of `make package`."""
    parser = argparse.ArgumentParser(prog="python -m localrunner.package", description=__doc__)
    parser.add_argument("--python", help=f"a Python {PYTHON} to compile with (default: looked for)")
    parser.add_argument("--target", type=Path, default=TARGET, help="the zip")
    parsed = parser.parse_args(arguments)
    try:
        compiled = build(parsed.target, parsed.python or find_python())
    except PackageError as error:
        print(error, file=sys.stderr)
        return 1
    size_mb = parsed.target.stat().st_size / 1e6
    with zipfile.ZipFile(parsed.target) as archive:
        unpacked_mb = sum(item.file_size for item in archive.infolist()) / 1e6
    if not compiled:
        print(SLOWER, file=sys.stderr)
    print(f"{os.path.relpath(parsed.target)}: {size_mb:.1f} MB, {unpacked_mb:.1f} MB unpacked")
    return 0


def build(target: Path, python: str | None) -> bool:
    """`target` is the zip; whether it holds bytecode, which takes a `python` of the right version.

    Raises:
        PackageError: a package has no wheel for the platform, or does not compile.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="package-") as folder:
        stage = Path(folder)
        for name in APP:
            source = ROOT / name
            if source.is_dir():
                shutil.copytree(source, stage / name, ignore=shutil.ignore_patterns("__pycache__"))
            else:
                shutil.copy(source, stage / name)
        _install(stage / SITE_PACKAGES)
        if python is not None:
            _compile(stage, python)
        _zip(stage, target)
    return python is not None


def find_python() -> str | None:
    """A Python of the target's version: on the PATH, or one of pyenv's."""
    pyenv = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv"))
    candidates = [f"python{PYTHON}", *map(str, sorted(pyenv.glob(f"versions/{PYTHON}.*/bin/python{PYTHON}")))]
    return next((name for name in candidates if _version(name) == PYTHON), None)


def _version(python: str) -> str | None:
    script = "import sys; print('%d.%d' % sys.version_info[:2])"
    try:
        done = subprocess.run([python, "-c", script], capture_output=True, text=True, check=False)
    except OSError:
        return None
    return done.stdout.strip() if done.returncode == 0 else None


def _install(folder: Path) -> None:
    """The production dependencies are in `folder`, as wheels for Functions' platform and nothing else."""
    command = [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check", "install"]
    command += ["--requirement", str(ROOT / "requirements.txt"), "--target", str(folder), "--no-compile"]
    command += ["--python-version", PYTHON, "--implementation", "cp", "--only-binary", ":all:"]
    for platform in PLATFORMS:
        command += ["--platform", platform]
    _run(command, "pip")
    # Programs of packages, which nobody starts there.
    shutil.rmtree(folder / "bin", ignore_errors=True)
    remove_tests(folder)


def remove_tests(folder: Path) -> None:
    """Packages below `folder` are without their tests, unless a module of theirs that stays imports some."""
    for tests in sorted(path for path in folder.rglob("tests") if path.is_dir()):
        package = folder / tests.relative_to(folder).parts[0]
        sources = [source for source in package.rglob("*.py") if not source.is_relative_to(tests)]
        if tests != package and not any(_IMPORTS_TESTS.search(source.read_bytes()) for source in sources):
            shutil.rmtree(tests)


def _compile(stage: Path, python: str) -> None:
    """Every module has bytecode that is used without a look at its source.

    Source: PEP 552; a zip's times and a mounted file system's need not agree, so times are no proof.
    """
    command = [python, "-m", "compileall", "-q", "-j", "0", "--invalidation-mode", "unchecked-hash"]
    _run([*command, "-s", str(stage), "-p", WWWROOT, str(stage)], "compileall")


def _run(command: list[str], what: str) -> None:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise PackageError(f"package: {what} failed with {done.returncode}:\n{done.stdout}{done.stderr}")


def _zip(stage: Path, target: Path) -> None:
    unfinished = target.with_suffix(".part")
    with zipfile.ZipFile(unfinished, "w", zipfile.ZIP_DEFLATED) as archive:
        for path in sorted(path for path in stage.rglob("*") if path.is_file()):
            item = zipfile.ZipInfo(path.relative_to(stage).as_posix(), EPOCH)
            item.compress_type = zipfile.ZIP_DEFLATED
            item.external_attr = 0o644 << 16
            archive.writestr(item, path.read_bytes())
    unfinished.replace(target)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
