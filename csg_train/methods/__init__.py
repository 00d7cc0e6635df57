"""The methods that csg can train and compare (docs/method.md section 8).

METHODS is the only list of them: the default comparison, its order, the help texts and the completion in a shell are
derived from it. Reading it imports neither torch nor the methods themselves.

A method in another package joins the list through the entry-point group `csg.methods` (docs/how-to/method.md):

    [project.entry-points."csg.methods"]
    my-method = "my_package.my_module:MyMethod"
"""

from __future__ import annotations

from importlib.metadata import EntryPoint, entry_points
from typing import TYPE_CHECKING

from csg.did_you_mean import use_one_of
from csg.errors import UsageError
from csg.files import validate_name

if TYPE_CHECKING:
    from csg_train.methods.base import Method

GROUP = "csg.methods"

METHODS: dict[str, str] = {
    "none": "csg_train.methods.none:NoneMethod",
    "l2": "csg_train.methods.l2:L2",
    "ewc": "csg_train.methods.l2:Ewc",
    "si": "csg_train.methods.si:Si",
    "feature-l2": "csg_train.methods.feature_l2:FeatureL2",
    "asg": "csg_train.methods.asg:Asg",
    "asg-l2o": "csg_train.methods.asg:AsgL2o",
    "ibn-a": "csg_train.methods.ibn:IbnA",
    "ibn-b": "csg_train.methods.ibn:IbnB",
    "drpc": "csg_train.methods.drpc:Drpc",
    "simclr": "csg_train.methods.simclr:SimClr",
    "moco-v2": "csg_train.methods.moco_v2:MocoV2",
    "csg": "csg_train.methods.csg:Csg",
    "miro": "csg_train.methods.miro:Miro",
}
"""Where the class of each method is, as `module:class`; the methods of other packages follow in alphabetical order."""

_PACKAGES: dict[str, list[str]] = {name: ["csg"] for name in METHODS}  # the packages that define a method


def _add_installed() -> None:
    found = [(entry.name, entry.dist.name if entry.dist else "?", entry.value) for entry in entry_points(group=GROUP)]
    for name, package, value in sorted(found):
        METHODS.setdefault(name, value)
        _PACKAGES.setdefault(name, []).append(package)


_add_installed()


def load_method(name: str) -> type[Method]:
    """The class of a method.

    Raises:
        UsageError: there is no such method, two packages define it, its name cannot be a folder's name, or the package
            that defines it is broken.
    """
    if name not in METHODS:
        raise UsageError(f"there is no method {name!r}", use_one_of(name, METHODS))
    validate_name(name, "method")
    packages = _PACKAGES[name]
    if len(packages) > 1:
        by = " and by ".join(packages)
        raise UsageError(f"method {name!r} is defined by {by}", "uninstall one of them, or rename its method")
    if packages == ["csg"]:
        return _load(name)
    try:
        return _load(name)
    except Exception as error:  # whatever a foreign package raises when it is imported
        what = f"method {name!r} of package {packages[0]} cannot be loaded: {type(error).__name__}: {error}"
        raise UsageError(what, "repair or uninstall that package") from error


def _load(name: str) -> type[Method]:
    from csg_train.methods.base import Method

    found = EntryPoint(name, METHODS[name], GROUP).load()
    if not (isinstance(found, type) and issubclass(found, Method)):
        raise TypeError(f"{METHODS[name]} is not a subclass of csg_train.methods.base.Method")
    if hasattr(found, "segmentation_defaults"):
        raise TypeError("segmentation_defaults is an attribute of its Settings class now")
    return found
