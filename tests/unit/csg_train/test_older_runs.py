"""Runs of csg 0.2.0, with a recipe of version 1: what they left can be used, and an unfinished one is not resumed."""

import json
import shutil

import pytest
import yaml
from safetensors.torch import load_file, save_file

from csg.errors import InputError
from csg_export.sources import from_run
from csg_train.training.command import train
from csg_train.training.run_folder import Run
from tests.helpers.cli import csg, refused
from tests.helpers.small_runs import noisy_images, stopped_run, tiny_recipe


@pytest.fixture
def old(trained, tmp_path):
    """A run as csg 0.2.0 left it."""
    run = Run(shutil.copytree(trained.path, tmp_path / "old"))
    tree = yaml.safe_load((run.path / "recipe.yaml").read_text()) | {"version": 1, "evaluate_every": 2}
    tree["augment"]["magnitude"] = 6
    del tree["checkpoint"], tree["optim"]["warm_up"], tree["optim"]["average"]
    (run.path / "recipe.yaml").write_text(yaml.safe_dump(tree))
    result = json.loads((run.path / "result.json").read_text()) | {"version": 1}
    for name in ("mirrored", "student", "last", "best_on_real"):
        del result[name]
    (run.path / "result.json").write_text(json.dumps(result))
    (run.path / "predictions.npz").unlink()
    return run


def test_an_older_run_is_embedded_and_exported(old, trained):
    done = csg("embed", old.path, "--json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["energy"]["E_1"] == trained.result().energy.E_1
    assert from_run(old).provenance == from_run(trained).provenance.model_copy(update={"run": "old"})
    assert old.result().student is None


def test_an_unfinished_older_run_is_not_resumed(old):
    (old.path / "result.json").unlink()
    (old.path / "student.safetensors").unlink()
    refused(csg("train", "cls", "--resume", "--out", old.path), 3, "was started by an older csg")


def without_final_norm(file, prefix):
    """Rewrite a file of tensors as a csg left it that took maps of timm's transformers without their final norm."""
    state = load_file(file)
    norm = [name for name in state if name.startswith(f"{prefix}encoder.stages.model.model.norm.")]
    assert len(norm) == 2
    save_file({name: value for name, value in state.items() if name not in norm}, file, {"step": "3"})


def test_a_run_whose_encoder_had_other_maps_is_neither_exported_nor_resumed(tmp_path):
    pytest.importorskip("timm")
    recipe = tiny_recipe(noisy_images(tmp_path / "images", 4), model__backbone="timm:test_vit", optim__steps=4)
    run = stopped_run(tmp_path / "run", recipe)
    whole = Run(shutil.copytree(run.path, tmp_path / "whole"))
    train(recipe, whole)
    without_final_norm(whole.path / "student.safetensors", "")
    exported = csg("export", whole.path, "--out", tmp_path / "bundle")
    refused(exported, 3, "was trained by an older csg, which took other maps of timm:test_vit")
    for file in run.checkpoints.iterdir():
        without_final_norm(file, "method.student.")
    with pytest.raises(InputError, match="does not fit its network"):
        train(recipe, run)
