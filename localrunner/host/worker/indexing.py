"""Finds the functions of an app, and refuses what the real worker refuses. Any fault means no functions at all.

Source: azure-functions-python-worker, loader.py and functions.py.
"""

from __future__ import annotations

import importlib
import inspect
import os
import time
import typing
import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import azure.functions as func
from azure.functions._thirdparty import typing_inspect

from localrunner.host.wire import FunctionMetadata, RetryOptions

# The library's own functions, without type hints there.
converters: Final[Any] = func.get_binding_registry()  # type: ignore[no-untyped-call]
is_generic_type: Final[Any] = typing_inspect.is_generic_type

SCRIPT_SETTING: Final = "PYTHON_SCRIPT_FILE_NAME"
SCRIPT_DEFAULT: Final = "function_app.py"


class IndexingError(Exception):
    """The app cannot be indexed."""


@dataclass(frozen=True, slots=True)
class IndexedFunction:
    """A function that can be called.

    `binding_types` maps each parameter to the type of its binding; `returns` is that of `$return`.
    """

    metadata: FunctionMetadata
    call: Callable[..., Any]
    directory: str
    is_async: bool
    requires_context: bool
    binding_types: Mapping[str, str]
    returns: str | None


def index() -> list[IndexedFunction]:
    """The functions of the app whose directory comes first in `sys.path`.

    Raises:
        Exception: whatever importing the app raises.
        IndexingError: a function does not fit its bindings.
    """
    stem = Path(os.environ.get(SCRIPT_SETTING, SCRIPT_DEFAULT)).stem
    module = importlib.import_module(stem)
    apps = [value for value in vars(module).values() if isinstance(value, func.FunctionRegister)]
    if len(apps) > 1:
        raise IndexingError("More than one FunctionApp or other top level function app instances are defined.")
    if not apps:
        raise IndexingError(f"Could not find top level function app instances in {stem}.py.")
    return [_indexed(function) for function in apps[0].get_functions()]


def _indexed(function: Any) -> IndexedFunction:
    name = str(function.get_function_name())
    call: Callable[..., Any] = function.get_user_function()
    bindings = {binding.name: binding for binding in function.get_bindings()}
    parameters = set(inspect.signature(call).parameters)
    annotations = typing.get_type_hints(call)
    requires_context = "context" in parameters and "context" not in bindings
    if requires_context:
        parameters.discard("context")
        _check_context(name, annotations.get("context"))
    # `$return` is what the function returns, no parameter.
    returned = bindings.pop("$return", None)
    _check_names(name, parameters, set(bindings))
    for parameter, binding in bindings.items():
        if parameter in annotations:
            _check_annotation(name, parameter, binding.type, annotations[parameter])
    return IndexedFunction(
        metadata=FunctionMetadata(
            name=name,
            function_id=str(uuid.uuid5(uuid.NAMESPACE_OID, name)),
            raw_bindings=function.get_raw_bindings(),
            retry_options=_retry(function.get_settings_dict("retry_policy")),
        ),
        call=call,
        directory=str(Path(inspect.getfile(call)).parent),
        is_async=inspect.iscoroutinefunction(call),
        requires_context=requires_context,
        binding_types={parameter: binding.type for parameter, binding in bindings.items()},
        returns=None if returned is None else returned.type,
    )


def _check_context(name: str, annotation: Any) -> None:
    if annotation is None:
        return
    if not isinstance(annotation, type) or annotation.__name__ != "Context":
        raise IndexingError(
            f'cannot load the {name} function: the "context" parameter is expected to be of type '
            f"azure.functions.Context, got {annotation!r}"
        )


def _check_names(name: str, parameters: set[str], bound: set[str]) -> None:
    if parameters - bound:
        raise IndexingError(
            f"cannot load the {name} function: the following parameters are declared in Python but not in "
            f"function.json: {parameters - bound!r}"
        )
    if bound - parameters:
        raise IndexingError(
            f"cannot load the {name} function: the following parameters are declared in function.json but "
            f"not in Python: {bound - parameters!r}"
        )


def _check_annotation(name: str, parameter: str, binding_type: str, annotation: Any) -> None:
    """The annotation is a class or a generic of `typing`, and the binding's converter takes it.

    `list[func.KafkaEvent]` is neither, so it fails here as it does in Azure; `typing.List` does not.
    """
    if not isinstance(annotation, type) and not is_generic_type(annotation):
        raise IndexingError(
            f"cannot load the {name} function: binding {parameter} has invalid non-type annotation {annotation!r}"
        )
    converter = converters.get(binding_type)
    if converter is None:
        raise IndexingError(f"cannot load the {name} function: this worker has no converter for '{binding_type}'")
    if not converter.check_input_type_annotation(annotation):
        shown = getattr(annotation, "__name__", repr(annotation))
        raise IndexingError(
            f'cannot load the {name} function: type of {parameter} binding in function.json "{binding_type}" '
            f'does not match its Python annotation "{shown}"'
        )


def _retry(policy: Mapping[str, Any] | None) -> RetryOptions | None:
    if not policy:
        return None
    strategy, count = str(policy["strategy"]), int(policy["max_retry_count"])
    if strategy == "fixed_delay":
        return RetryOptions(strategy, count, delay_interval_s=_seconds(policy.get("delay_interval")))
    return RetryOptions(
        "exponential_backoff",
        count,
        minimum_interval_s=_seconds(policy.get("minimum_interval")),
        maximum_interval_s=_seconds(policy.get("maximum_interval")),
    )


def _seconds(text: Any) -> int:
    # The real worker parses with strptime too: a missing interval or one with a fraction stops indexing.
    parsed = time.strptime(text, "%H:%M:%S")
    return parsed.tm_hour * 3600 + parsed.tm_min * 60 + parsed.tm_sec
