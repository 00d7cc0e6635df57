"""The list of methods, methods with settings as a user writes them, and methods of other packages."""

import subprocess
import sys

import pytest

from csg.errors import UsageError
from csg_train import methods
from csg_train.methods import METHODS, load_method
from csg_train.methods.base import Method
from csg_train.methods.settings import SETTINGS
from csg_train.methods.spec import method_settings, parse_method

PLUGIN = """
from csg_train.methods.base import Method
class Mine(Method): ...
not_a_method = 3
"""


def test_every_listed_method_can_be_loaded():
    assert all(issubclass(load_method(name), Method) for name in METHODS)
    with pytest.raises(UsageError, match="use one of none, l2"):
        load_method("cgs")


def test_the_list_of_methods_is_read_without_torch():
    check = "import sys; from csg_train.methods import METHODS; assert 'ewc' in METHODS; print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", check], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"


def test_a_method_is_written_with_its_settings():
    spec = parse_method("csg:stages=[layer4]:queue=64:augment.operations=0")
    assert spec.settings == {"stages": ["layer4"], "queue": 64, "augment.operations": 0}
    assert spec.changes == {
        "method": "csg",
        "methods.csg.stages": ["layer4"],
        "methods.csg.queue": 64,
        "augment.operations": 0,
    }
    assert parse_method("csg:stages=[layer4]").file_name == "csg-stages-layer4"
    assert parse_method("drpc:styles=a/b/c:versions=2").label == "drpc:versions=2"
    for wrong in ("cgs", "csg:apool", "csg:stages=[layer4"):
        with pytest.raises(UsageError):
            parse_method(wrong)


def test_variants_are_their_method_with_other_defaults():
    assert dict(method_settings("ewc", "cls", {})) == dict(method_settings("l2", "cls", {"fisher": True}))
    learned = {"learned": True, "cap": 9}
    assert dict(method_settings("asg-l2o", "seg", {})) == dict(method_settings("asg", "seg", learned))


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"temprature": 1}, "method csg: temprature: is not a setting of this method; it has weight, temperature"),
        ({"weight": float("inf")}, "method csg: weight: Input should be a finite number"),
        ({"temperature": 0}, "method csg: temperature: Input should be greater than 0"),
    ],
)
def test_a_wrong_setting_is_named_with_a_hint(given, message):
    with pytest.raises(UsageError) as raised:
        method_settings("csg", "cls", given)
    assert str(raised.value).startswith(message)
    with pytest.raises(UsageError, match=r"drpc: styles: has no default; set it: --method drpc:styles=VALUE"):
        method_settings("drpc", "cls", {})


@pytest.fixture
def installed(tmp_path, monkeypatch):
    """Registers methods of a package, as if it were installed."""
    (tmp_path / "plugin_module.py").write_text(PLUGIN)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(methods, "METHODS", dict(METHODS))
    monkeypatch.setattr(methods, "_PACKAGES", {name: ["csg"] for name in METHODS})

    def install(package, **entries):
        folder = tmp_path / f"{package}-1.0.dist-info"
        folder.mkdir()
        (folder / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {package}\nVersion: 1.0\n")
        lines = [f"{name} = {value}\n" for name, value in entries.items()]
        (folder / "entry_points.txt").write_text("[csg.methods]\n" + "".join(lines))

    return install


def test_methods_of_other_packages_follow_the_built_in_ones(installed):
    installed("plugin", zzz="plugin_module:Mine", mine="plugin_module:Mine")
    methods._add_installed()
    assert list(methods.METHODS) == [*METHODS, "mine", "zzz"]
    assert load_method("mine").__name__ == "Mine"
    assert parse_method("mine").name == "mine"


@pytest.mark.parametrize(
    ("entries", "name", "message"),
    [
        ({"broken": "no_such_module:Mine"}, "broken", "package plugin cannot be loaded: ModuleNotFoundError"),
        ({"broken": "plugin_module:not_there"}, "broken", "package plugin cannot be loaded: AttributeError"),
        ({"broken": "plugin_module:not_a_method"}, "broken", "is not a subclass of csg_train.methods.base.Method"),
        ({"broken": "a b c"}, "broken", "package plugin cannot be loaded"),
        ({"a/b": "plugin_module:Mine"}, "a/b", "method 'a/b'"),
        ({"csg": "plugin_module:Mine"}, "csg", "method 'csg' is defined by csg and by plugin"),
    ],
)
def test_what_another_package_does_wrong_is_one_clear_line(installed, entries, name, message):
    installed("plugin", **entries)
    methods._add_installed()
    with pytest.raises(UsageError) as raised:
        load_method(name)
    assert message in str(raised.value)
    assert "\n" not in str(raised.value)
    assert load_method("none")


def test_a_name_that_two_packages_use_is_refused(installed):
    installed("one", mine="plugin_module:Mine")
    installed("two", mine="plugin_module:Mine")
    methods._add_installed()
    with pytest.raises(UsageError, match="defined by one and by two"):
        load_method("mine")


def test_settings_without_torch_are_those_of_the_methods():
    assert {name: load_method(name).Settings for name in SETTINGS} == SETTINGS
    code = "import sys; from csg_train.recipe.schema import Recipe; from csg_train.methods.settings import SETTINGS"
    done = subprocess.run([sys.executable, "-c", f"{code}; print('torch' in sys.modules)"], capture_output=True)
    assert done.stdout.strip() == b"False"


def test_defaults_of_segmentation_at_their_old_place_are_refused(installed, monkeypatch):
    installed("plugin", mine="plugin_module:Mine")
    methods._add_installed()
    monkeypatch.setattr(load_method("mine"), "segmentation_defaults", {}, raising=False)
    with pytest.raises(UsageError, match="segmentation_defaults is an attribute of its Settings class"):
        load_method("mine")
