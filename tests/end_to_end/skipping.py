"""A host that skips what fails: the extension's defaults, without the retry policy of our app."""

from __future__ import annotations

from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent.parent
SETTINGS = (
    "AzureFunctionsJobHost__extensions__kafka__commitOnFailure=true",
    "AzureFunctionsJobHost__extensions__kafka__maxRetries=0",
)


def an_app_without_retries(folder: Path) -> Path:
    """Our app as a host without retry policies runs it: an older extension, or whatever else ignores ours."""
    source = (ROOT / "function_app.py").read_text()
    assert "trigger(app.retry(**RETRY)(deliver))" in source
    folder.mkdir()
    source = source.replace("trigger(app.retry(**RETRY)(deliver))", "trigger(deliver)")
    (folder / "function_app.py").write_text(source.replace("import RETRY, ", "import "))
    (folder / "host.json").write_text((ROOT / "host.json").read_text())
    (folder / "sinkcore").symlink_to(ROOT / "sinkcore")
    return folder
