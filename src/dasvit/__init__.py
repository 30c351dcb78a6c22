"""dasvit: differentiable architecture search for vision transformers.

Importing this package is quick: torch and timm are imported with the first name that needs them. From then on, in
whichever order they are imported, `timm.create_model("dasvit_base_patch16_224")` knows this package's models.
"""

import importlib
import sys
from collections.abc import Sequence
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import TYPE_CHECKING, Any

from dasvit._version import __version__

if TYPE_CHECKING:
    from dasvit.api import FoundCell, StudyResult, TrainedModel, compare, cost, report, search, study, train
    from dasvit.cell.cost import Cost
    from dasvit.cell.genotype import PUBLISHED, Edge, Genotype, load_genotype
    from dasvit.cell.ops import Parametric, register_operation
    from dasvit.cell.space import Space
    from dasvit.config import Config
    from dasvit.data import load_data
    from dasvit.errors import UserError
    from dasvit.models.cost import count_cost
    from dasvit.models.dasvit import DasViT
    from dasvit.models.folder import load_model
    from dasvit.search.architecture import Architecture
    from dasvit.search.derive import derive
    from dasvit.search.supernet import Supernet

_NAMES = {
    "api": "FoundCell StudyResult TrainedModel compare cost report search study train",
    "cell.cost": "Cost",
    "cell.genotype": "PUBLISHED Edge Genotype load_genotype",
    "cell.ops": "Parametric register_operation",
    "cell.space": "Space",
    "config": "Config",
    "data": "load_data",
    "errors": "UserError",
    "models.cost": "count_cost",
    "models.dasvit": "DasViT",
    "models.folder": "load_model",
    "search.architecture": "Architecture",
    "search.derive": "derive",
    "search.supernet": "Supernet",
}
"""Public names by the module that has them."""
_HOMES = {name: f"dasvit.{module}" for module, names in _NAMES.items() for name in names.split()}

__all__ = [
    "PUBLISHED",
    "Architecture",
    "Config",
    "Cost",
    "DasViT",
    "Edge",
    "FoundCell",
    "Genotype",
    "Parametric",
    "Space",
    "StudyResult",
    "Supernet",
    "TrainedModel",
    "UserError",
    "__version__",
    "compare",
    "cost",
    "count_cost",
    "derive",
    "load_data",
    "load_genotype",
    "load_model",
    "register_operation",
    "report",
    "search",
    "study",
    "train",
]


def __getattr__(name: str) -> Any:
    """Import a public name when it is first asked for."""
    if name not in _HOMES:
        raise AttributeError(f"module 'dasvit' has no attribute {name!r}")
    found = getattr(importlib.import_module(_HOMES[name]), name)
    return sys.modules.get(f"dasvit.{name}", found)  # a package of that name is the function as well


class _RegisterWithTimm(MetaPathFinder):
    """Registers this package's models right after timm itself has been imported.

    timm has no entry point for models of other packages, and importing it here instead would cost the command line's
    `--help` and every typo several seconds. Being asked where timm is says nothing: many programs ask and never
    import. So the finder stays until a module of timm has really run.
    """

    def find_spec(self, name: str, path: Sequence[str] | None, target: ModuleType | None = None) -> ModuleSpec | None:
        if name != "timm":
            return None
        others = (finder for finder in sys.meta_path if finder is not self)
        spec = next(filter(None, (finder.find_spec(name, path, target) for finder in others)), None)
        if spec is not None and spec.loader is not None:
            import_timm = spec.loader.exec_module

            def import_both(module: ModuleType) -> None:
                import_timm(module)
                if self in sys.meta_path:
                    sys.meta_path.remove(self)
                importlib.import_module("dasvit.models.dasvit")

            spec.loader.exec_module = import_both  # type: ignore[method-assign]
        return spec


if "timm" in sys.modules:
    importlib.import_module("dasvit.models.dasvit")
else:
    sys.meta_path.insert(0, _RegisterWithTimm())
