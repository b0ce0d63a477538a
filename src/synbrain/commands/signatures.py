"""The signature of a library function, read without importing its module.

Help and mistakes shall cost a fraction of a second, but the module of ``train`` imports torch. So the
``def`` is read from the source file, and only the names that its annotations and defaults need are
imported, each from where the module itself would import it. ``Dataset``, ``SynBrain`` and ``Decoder`` are not
imported at all: on a command line they are folders. A name that the module defines itself (but for plain
assignments) makes the module be imported after all: correct, only slower.
"""

from __future__ import annotations

import ast
import builtins
import inspect
from collections.abc import Callable
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from docstring_parser import Docstring
from docstring_parser import parse as parse_docstring


class DatasetFolder:
    """Stands for ``Dataset`` in a signature: a folder that is opened before the function is called."""


class RunFolder:
    """Stands for ``SynBrain`` in a signature: a run folder or hub id that is opened before the call."""


class DecoderFolder:
    """Stands for ``Decoder`` in a signature: a decoder's folder that is opened before the call."""


MARKERS: dict[str, Any] = {"Dataset": DatasetFolder, "SynBrain": RunFolder, "Decoder": DecoderFolder}


def signature_of(home: str, hidden: tuple[str, ...] = ()) -> tuple[inspect.Signature, Docstring]:
    """Signature (annotations as objects, MARKERS in place) and docstring of ``module:function``.

    >>> signature, doc = signature_of("synbrain.data.dataset:load_dataset")
    >>> list(signature.parameters)
    ['path']
    """
    module, _, name = home.partition(":")
    spec = find_spec(module)
    if spec is None or spec.origin is None:
        raise ModuleNotFoundError(module)
    tree = ast.parse(Path(spec.origin).read_text(encoding="utf-8"))
    node = next(n for n in tree.body if isinstance(n, ast.FunctionDef) and n.name == name)
    names = _Names(module, tree)
    arguments = node.args
    parameters = [
        _parameter(names, a, default, kind)
        for group, defaults, kind in (
            _with_defaults(arguments),
            (arguments.kwonlyargs, arguments.kw_defaults, inspect.Parameter.KEYWORD_ONLY),
        )
        for a, default in zip(group, defaults, strict=True)
        if a.arg not in hidden  # their types need not be known
    ]
    places = [
        p.replace(kind=p.POSITIONAL_ONLY) if i < len(arguments.posonlyargs) else p
        for i, p in enumerate(parameters)
    ]
    return inspect.Signature(places), parse_docstring(ast.get_docstring(node) or "")


def signature_of_function(function: Callable[..., Any]) -> tuple[inspect.Signature, Docstring]:
    """The same of a function that is at hand."""
    hints = _hints(function)
    signature = inspect.signature(function)
    parameters = [p.replace(annotation=hints.get(key, Any)) for key, p in signature.parameters.items()]
    return inspect.Signature(parameters), parse_docstring(function.__doc__ or "")


def _hints(function: Callable[..., Any]) -> dict[str, Any]:
    from typing import get_type_hints

    return get_type_hints(function, localns=MARKERS)


def _with_defaults(arguments: ast.arguments) -> tuple[list[ast.arg], list[ast.expr | None], Any]:
    places = [*arguments.posonlyargs, *arguments.args]
    missing: list[ast.expr | None] = [None] * (len(places) - len(arguments.defaults))
    return places, [*missing, *arguments.defaults], inspect.Parameter.POSITIONAL_OR_KEYWORD


def _parameter(names: _Names, argument: ast.arg, default: ast.expr | None, kind: Any) -> inspect.Parameter:
    # "str | torch.device" is a word on the command line, and torch stays out of it
    hint = str if argument.arg == "device" else names.value(argument.annotation)
    value = inspect.Parameter.empty if default is None else names.value(default)
    return inspect.Parameter(argument.arg, kind, default=value, annotation=hint)


class _Names(dict[str, Any]):
    """The names of a module, each looked up when it is asked for."""

    def __init__(self, module: str, tree: ast.Module) -> None:
        super().__init__(MARKERS)
        self.module = module
        self.imports: dict[str, tuple[str, str | None]] = {}
        self.assigned: dict[str, ast.expr] = {}
        for statement in ast.walk(tree):
            if isinstance(statement, ast.ImportFrom) and statement.module:
                for alias in statement.names:
                    self.imports[alias.asname or alias.name] = (statement.module, alias.name)
            elif isinstance(statement, ast.Import):
                for alias in statement.names:
                    self.imports[alias.asname or alias.name.split(".")[0]] = (alias.name, None)
        for statement in tree.body:
            target = statement.targets[0] if isinstance(statement, ast.Assign) else None
            if isinstance(statement, ast.AnnAssign):
                target = statement.target
            if isinstance(target, ast.Name) and statement.value is not None:  # type: ignore[attr-defined]
                self.assigned[target.id] = statement.value  # type: ignore[attr-defined]

    def value(self, expression: ast.expr | None) -> Any:
        """What an annotation or a default evaluates to."""
        if expression is None:
            return Any
        if isinstance(expression, ast.Constant) and isinstance(expression.value, str):
            return expression.value
        return eval(compile(ast.Expression(expression), self.module, "eval"), {}, self)

    def __missing__(self, name: str) -> Any:
        if name in self.imports:
            module, attribute = self.imports[name]
            loaded = import_module(module)
            value = loaded if attribute is None else getattr(loaded, attribute)
        elif name in self.assigned:
            value = self.value(self.assigned[name])
        elif hasattr(builtins, name):
            raise KeyError(name)  # eval looks there next
        else:
            value = getattr(import_module(self.module), name)
        self[name] = value
        return value
