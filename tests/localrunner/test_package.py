"""The zip that is published: what is in it, and that the Python it is for can run it."""

from __future__ import annotations

import json
import subprocess
import zipfile
from pathlib import Path

import pytest

from localrunner.package import PYTHON, SITE_PACKAGES, WWWROOT, build, find_python, remove_tests

ROOT = Path(__file__).resolve().parent.parent.parent
RUN = """
import json, sys
sys.path[:0] = [".", ".python_packages/lib/site-packages"]
import function_app
import sinkcore.clients, azure.kusto.ingest, confluent_kafka, isal.igzip_lib
print(json.dumps([f.get_function_name() for f in function_app.app.get_functions()]))
"""


@pytest.fixture(scope="module")
def package(tmp_path_factory: pytest.TempPathFactory) -> Path:
    target = tmp_path_factory.mktemp("package") / "app.zip"
    build(target, find_python())
    return target


def test_it_holds_the_app_its_packages_and_nothing_else(package: Path) -> None:
    with zipfile.ZipFile(package) as archive:
        names = archive.namelist()

    tops = {name.partition("/")[0] for name in names}
    assert tops - {"__pycache__"} == {
        "function_app.py",
        "host.json",
        "requirements.txt",
        "sinkcore",
        ".python_packages",
    }
    assert [name for name in names if "/tests/" in name] == []
    assert f"{SITE_PACKAGES.as_posix()}/msgspec/__init__.py" in names


def test_tests_of_a_package_stay_where_a_module_that_is_published_imports_them(tmp_path: Path) -> None:
    for package, source in (("plain", "import json"), ("tied", "from tied.tests import helpers"), ("tests", "")):
        (tmp_path / package / "tests").mkdir(parents=True)
        (tmp_path / package / "tests" / "__init__.py").write_text(f"from {package}.tests import itself")
        (tmp_path / package / "__init__.py").write_text(source)

    remove_tests(tmp_path)

    assert sorted(path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("tests")) == [
        "tests",
        "tied/tests",
    ]


def test_the_python_it_is_for_runs_it_without_looking_at_a_source(package: Path, tmp_path: Path) -> None:
    """Bytecode that is checked against its source by time would be made anew at each start of an instance."""
    python = find_python()
    if python is None:
        pytest.skip(f"no Python {PYTHON} is here to compile for it and to run it")
    with zipfile.ZipFile(package) as archive:
        archive.extractall(tmp_path)
    module = tmp_path / "sinkcore" / "__pycache__" / "sink.cpython-312.pyc"
    assert int.from_bytes(module.read_bytes()[4:8], "little") == 0b01, "hash-based, and not to be checked"
    assert WWWROOT.encode() in module.read_bytes()
    assert str(tmp_path.parent).encode() not in module.read_bytes()
    # A source that would not even compile is not looked at.
    (tmp_path / "sinkcore" / "sink.py").write_text("this is not Python")

    sample = json.loads((ROOT / "local.settings.sample.json").read_text())["Values"]
    values = {**sample, "KUSTO_INGESTION_URL": "https://ingest-mycluster.westeurope.kusto.windows.net"}
    done = subprocess.run(
        [python, "-c", RUN], cwd=tmp_path, env=values, capture_output=True, text=True, timeout=120, check=False
    )

    assert done.returncode == 0, done.stderr
    assert "sweeper" in json.loads(done.stdout.splitlines()[0])


def test_the_same_content_makes_the_same_zip(package: Path) -> None:
    """All times in it are the same, so that a deployment that changes nothing can be seen to change nothing."""
    with zipfile.ZipFile(package) as archive:
        assert {item.date_time for item in archive.infolist()} == {(1980, 1, 1, 0, 0, 0)}
