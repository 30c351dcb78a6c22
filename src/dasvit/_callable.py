"""Rooms that are functions as well: `dasvit.search` is a package, and `dasvit.search(images)` searches.

Python makes every imported submodule an attribute of its package, in place of a function of that name.
"""

import importlib
import inspect
import sys
from collections.abc import Callable
from types import ModuleType
from typing import Any


class CallableRoom(ModuleType):
    """A package of ours that is called like the function of `dasvit.api` that has its name."""

    def __call__(self, *args: Any, **options: Any) -> Any:
        """Call the function."""
        return self._function()(*args, **options)

    @property
    def __doc__(self) -> str:  # type: ignore[override] # what help() shows of a module
        function = self._function()
        return f"{function.__name__}{inspect.signature(function)}\n\n{inspect.getdoc(function)}"

    @property
    def __signature__(self) -> inspect.Signature:
        return inspect.signature(self._function())

    def _function(self) -> Callable[..., Any]:
        function: Callable[..., Any] = getattr(importlib.import_module("dasvit.api"), self.__name__.rpartition(".")[2])
        return function


def make_callable(name: str) -> None:
    """Let a package be called."""
    sys.modules[name].__class__ = CallableRoom
