"""The folder that `csg page` writes, and what it says where it can't."""

import json
import os
import shutil
import signal
import subprocess
import time
import urllib.request

import pytest

from csg.bundle import MODEL, WEIGHTS, write_bundle
from csg_serve.page import runtime
from csg_serve.page.write import STATIC
from tests.conftest import ROOT
from tests.helpers.cli import CSG, csg, refused
from tests.helpers.page_files import page_of, served
from tests.helpers.tiny_bundle import tiny_card, write_colour_bundle, write_scene_bundle


def listed(folder):
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}


def test_a_page_holds_all_that_it_needs(tmp_path):
    page = page_of(tmp_path / "page", write_colour_bundle(tmp_path / "a"), write_scene_bundle(tmp_path / "b"))
    described = json.loads((page / "page.json").read_text())
    assert [entry["title"] for entry in described["models"]] == ["colour", "scenes"]
    own = {f"{entry['folder']}/{name}" for entry in described["models"] for name in (MODEL, "golden.json")}
    files = {f"{runtime.FOLDER}/{name}" for name in runtime.FILES}
    assert listed(page) == {"page.json"} | own | files | listed(STATIC)
    assert f'"../{runtime.FOLDER}/' in (page / "js/worker.js").read_text()
    assert runtime.VERSION in (page / "onnxruntime-licence.txt").read_text()


def test_the_packages_data_hold_every_file_of_the_page():
    import tomllib

    patterns = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["package-data"]
    room = ROOT / "csg_serve/page"
    packed = {path for pattern in patterns["csg_serve.page"] for path in room.glob(pattern)}
    assert {path for path in STATIC.rglob("*") if path.is_file()} <= packed


def test_a_command_writes_it_beside_the_bundle(tmp_path):
    bundle = write_colour_bundle(tmp_path / "bundles/colour")
    page_of(tmp_path / "first", bundle)
    done = csg("page", "--json", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["page"] == "bundles/colour-page"
    assert (tmp_path / "bundles/colour-page/index.html").is_file()
    refused(csg("page", bundle.path, "--json"), 3, "colour-page exists already")


@pytest.mark.parametrize("name", ["../../out", "<b>", "a b", "é", "-x"])
def test_names_of_folders_are_titles_alone(tmp_path, name):
    """Two models of one name are told apart by their folders, whatever these are called."""
    first, second = write_colour_bundle(tmp_path / "one"), write_colour_bundle(tmp_path / "two", side=40)
    folder = (tmp_path / name.replace("/", "_")).resolve()
    second.path.rename(folder)
    page = page_of(tmp_path / "page", first, folder)
    models = json.loads((page / "page.json").read_text())["models"]
    assert [model["title"] for model in models] == ["one", folder.name]
    assert all(model["folder"].removeprefix("models/").isalnum() for model in models)


def test_what_a_browser_cannot_run_is_refused(tmp_path):
    card = tiny_card().model_copy(update={"runtime": "openvino", "precision": "bf16", "compute_type": "bf16"})
    graph = write_colour_bundle(tmp_path / "a").model.read_bytes()
    write_bundle(tmp_path / "bf16", card, {MODEL: graph})
    refused(csg("page", tmp_path / "bf16"), 2, "bf16 needs OpenVINO; export the run again with --precision fp32")
    write_bundle(tmp_path / "large", tiny_card(), {MODEL: graph, WEIGHTS: b"0"})
    refused(csg("page", tmp_path / "large"), 2, "can't run .*large")
    refused(csg("page", tmp_path / "a", tmp_path / "a"), 2, "twice")
    refused(csg("page", tmp_path / "none"), 3, "no folder")
    assert not list(tmp_path.glob("*-page"))


def test_a_runtime_that_cannot_be_had_is_one_line(tmp_path, monkeypatch):
    monkeypatch.setenv("CSG_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(runtime, "PACKAGED", tmp_path / "not packaged")
    bundle = write_colour_bundle(tmp_path / "a")
    for registry in ("http://127.0.0.1:9", "nonsense", "file:///nowhere"):
        monkeypatch.setenv("NPM_CONFIG_REGISTRY", registry)
        refused(csg("page", bundle.path), 3, "can't be downloaded", "NPM_CONFIG_REGISTRY")
    other = tmp_path / "onnxruntime-web/-" / f"{runtime.FOLDER}.tgz"
    other.parent.mkdir(parents=True)
    other.write_bytes(b"another package")
    with served(tmp_path) as address:
        monkeypatch.setenv("NPM_CONFIG_REGISTRY", address)
        refused(csg("page", bundle.path), 5, "SHA-512")
    assert not (tmp_path / "a-page").exists()


def test_a_damaged_runtime_is_not_used(tmp_path, monkeypatch):
    page = page_of(tmp_path / "page", write_colour_bundle(tmp_path / "a"))
    folder = tmp_path / "cache" / runtime.FOLDER
    shutil.copytree(page / runtime.FOLDER, folder)
    (folder / "ort.wasm.bundle.min.mjs").write_text("alert(1)")
    monkeypatch.setenv("CSG_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(runtime, "PACKAGED", tmp_path / "not packaged")
    refused(csg("page", tmp_path / "a"), 5, "is not the file of onnxruntime-web")


def test_the_local_server_gives_the_types_that_browsers_insist_on(tmp_path):
    for name in ("a.mjs", "a.wasm", "a.js"):
        (tmp_path / name).touch()
    with served(tmp_path) as address:
        assert address.startswith("http://127.0.0.1:")
        types = [urllib.request.urlopen(address + name).headers["Content-Type"] for name in ("a.mjs", "a.wasm", "a.js")]
    assert types == ["text/javascript", "application/wasm", "text/javascript"]


def test_its_scripts_are_short_and_make_no_markup_of_texts():
    for script in STATIC.glob("js/*.js"):
        text = script.read_text()
        assert len(text.splitlines()) < 300
        assert not {word for word in ("innerHTML", "outerHTML", "insertAdjacent", "eval(") if word in text}


def test_a_page_is_opened_in_the_browser_until_ctrl_c(tmp_path):
    """The browser is a program that writes the address down."""
    bundle = page_of(tmp_path / "page", write_colour_bundle(tmp_path / "a")) and tmp_path / "a"
    browser, asked = tmp_path / "browser", tmp_path / "asked"
    browser.write_text(f'#!/bin/sh\necho "$1" > {asked}.new && mv {asked}.new {asked}\n')
    browser.chmod(0o755)
    surroundings = os.environ | {"BROWSER": str(browser), "TMPDIR": str(tmp_path / "temporary")}
    (tmp_path / "temporary").mkdir()
    command = subprocess.Popen([*CSG, "page", bundle, "--open"], env=surroundings, start_new_session=True)
    try:
        while not asked.exists() and command.poll() is None:
            time.sleep(0.05)
        with urllib.request.urlopen(asked.read_text().strip() + "page.json") as answer:
            assert json.load(answer)["models"][0]["title"] == "colour"
    finally:
        command.send_signal(signal.SIGINT)
    assert command.wait() == 0
    assert not list((tmp_path / "temporary").glob("csg-page-*"))
    assert not (tmp_path / "a-page").exists()


@pytest.mark.slow
def test_an_export_writes_the_page_of_its_bundle(trained, tmp_path):
    page_of(tmp_path / "page", write_colour_bundle(tmp_path / "a"))  # or skips
    done = csg("export", trained.path, "--page", "--json", "--out", "bundle")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["bundle"] == "bundle"
    assert (tmp_path / "bundle-page/index.html").is_file()


def test_no_export_for_a_page_that_cannot_run_it():
    refused(csg("export", "--bf16", "--page"), 2, "--page is not for --precision bf16")
