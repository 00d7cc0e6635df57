"""What to say about a setting that does not exist. What is suggested is always a setting that the recipe takes."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass

from csg.did_you_mean import closest
from csg.errors import UsageError
from csg_train.methods.settings import SETTINGS
from csg_train.methods.spec import METHOD_SYNONYMS
from csg_train.recipe.catalogue import RECIPES, Task, method_catalogue, recipe_settings

SYNONYMS: dict[str, tuple[str, ...]] = {
    **dict.fromkeys(("lr", "learning_rate", "base_lr", "init_lr", "rate"), ("optim.lr_heads", "optim.lr_backbone")),
    **dict.fromkeys(("lr_head", "head_lr"), ("optim.lr_heads",)),
    **dict.fromkeys(("backbone_lr", "lr_encoder", "encoder_lr"), ("optim.lr_backbone",)),
    **dict.fromkeys(("batch_size", "batchsize", "bs", "train_batch_size", "samples_per_gpu"), ("optim.batch",)),
    **dict.fromkeys(("num_epochs", "n_epochs", "max_epochs", "epoch", "ep"), ("optim.epochs",)),
    **dict.fromkeys(
        ("iterations", "iters", "iter", "max_iter", "max_iters", "num_steps", "n_steps", "total_steps"),
        ("optim.steps",),
    ),
    **dict.fromkeys(("wd", "decay", "l2_reg"), ("optim.weight_decay",)),
    **dict.fromkeys(("m", "beta", "sgd_momentum", "beta1", "adam_beta1"), ("optim.momentum",)),
    **dict.fromkeys(("optimiser", "optim.name", "opt", "adam", "adamw", "sgd"), ("optim.optimizer",)),
    **dict.fromkeys(("layer_wise_decay", "llrd", "layerwise_decay", "lr_layer_decay"), ("optim.layer_decay",)),
    **dict.fromkeys(("freeze", "freeze_backbone", "freeze_encoder", "lora", "peft", "finetune"), ("model.training",)),
    **dict.fromkeys(("rank", "lora_r", "r"), ("model.lora_rank",)),
    **dict.fromkeys(("warmup", "warmup_steps", "warmup_iters"), ("optim.warm_up",)),
    **dict.fromkeys(("grad_clip", "clip_grad", "clip_norm", "max_grad_norm", "gradient_clip_val"), ("optim.clip",)),
    **dict.fromkeys(
        ("grad_accum", "accumulation", "gradient_accumulation_steps", "accumulate_grad_batches"),
        ("optim.accumulate",),
    ),
    **dict.fromkeys(("ema", "swa"), ("optim.average",)),
    **dict.fromkeys(("wise_ft", "wiseft", "interpolate", "interpolation"), ("optim.wise",)),
    **dict.fromkeys(("num_workers", "n_workers", "nworkers", "threads", "jobs"), ("data.workers",)),
    **dict.fromkeys(("image_size", "img_size", "imgsz", "input_size", "size"), ("data.size", "data.crop")),
    **dict.fromkeys(("crop_size", "crop"), ("data.crop", "data.size")),
    **dict.fromkeys(("source", "synthetic", "train_data", "root", "dataset"), ("data.train",)),
    **dict.fromkeys(("target", "val", "test", "val_data", "real_data"), ("data.real",)),
    **dict.fromkeys(("val_split", "validation_split", "test_size"), ("data.holdout",)),
    **dict.fromkeys(("classes", "class_names", "num_classes"), ("data.labels",)),
    **dict.fromkeys(("arch", "encoder", "network", "net", "architecture"), ("model.backbone",)),
    **dict.fromkeys(("pretrained", "init_weights"), ("model.weights",)),
    **dict.fromkeys(("freeze_bn", "frozen_bn", "bn_eval"), ("model.freeze_batch_norm",)),
    **dict.fromkeys(("n", "num_ops"), ("augment.operations",)),
    **dict.fromkeys(("fourier", "amplitude", "fda"), ("augment.pasta",)),
    **dict.fromkeys(("amp", "mixed_precision", "fp16", "bf16", "half", "dtype"), ("precision",)),
    **dict.fromkeys(("torch_compile", "compile_model"), ("speed.compile",)),
    **dict.fromkeys(("allow_tf32", "matmul_precision"), ("speed.tf32",)),
    **dict.fromkeys(("cudnn.benchmark", "benchmark"), ("speed.cudnn_benchmark",)),
    **dict.fromkeys(("grad_checkpointing", "activation_checkpointing"), ("speed.gradient_checkpointing",)),
    **dict.fromkeys(("sync_bn", "sync_batchnorm"), ("speed.sync_batch_norm",)),
    **dict.fromkeys(("random_seed", "manual_seed", "rng"), ("seed",)),
    **dict.fromkeys(("eval_every", "eval_interval", "val_interval", "val_check_interval"), ("evaluate_every",)),
    **dict.fromkeys(("algorithm", "algo", "loss", "trainer"), ("method",)),
}
"""Settings by the words that other programs have for them, the likeliest first."""
NOTES = {
    **dict.fromkeys(
        ("gpu", "gpus", "gpu_id", "num_gpus", "device", "devices", "cuda"),
        "csg trains on the GPU that it finds; CUDA_VISIBLE_DEVICES chooses one, and torchrun uses several",
    ),
    **dict.fromkeys(("scheduler", "lr_scheduler", "schedule"), "rates decay polynomially: optim.power, optim.warm_up"),
    **dict.fromkeys(("out", "output", "output_dir", "work_dir", "save_dir"), "--out names the folder"),
}
"""What to do instead of setting what csg has no setting for."""
TASKS = {"cls": "classification", "seg": "segmentation"}


@dataclass(frozen=True)
class Guess:
    """What may be meant by the name of a setting that a recipe does not have."""

    meant: tuple[str, ...] = ()
    """Settings that the recipe takes."""
    elsewhere: str = ""
    """Whose setting it is, in words, if it is one of another task or method."""


def unknown_setting(name: str, task: Task, method: str) -> UsageError:
    """The error for a setting that a recipe does not have.

    Args:
        name: its dotted name, as the user wrote it.
        task: of the recipe.
        method: of the recipe.

    Example:
        >>> print(unknown_setting("lr", "cls", "csg"))
        there is no setting lr; did you mean optim.lr_heads or optim.lr_backbone?
    """
    guess = guess_setting(name, task, method)
    what = f"there is no setting {name}" + (f": {guess.elsewhere}" if guess.elsewhere else "")
    if guess.meant:
        return UsageError(what, f"did you mean {' or '.join(guess.meant)}?")
    return UsageError(what, _note(name) or "`csg config` lists all settings")


def unknown_method_setting(setting: str, task: Task, method: str) -> UsageError:
    """The error for a setting that a method does not have; arguments as `unknown_setting`."""
    guess = guess_setting(f"methods.{method}.{setting}", task, method)
    what = f"method {method}: {setting}: is not a setting of this method"
    what += f"; {guess.elsewhere}" if guess.elsewhere else ""
    if guess.meant:
        own = f"methods.{method}."
        return UsageError(what, f"did you mean {' or '.join(one.removeprefix(own) for one in guess.meant)}?")
    names = ", ".join(one.name.rpartition(".")[2] for one in method_catalogue(method, task))
    return UsageError(what, _note(setting) or f"it has {names or 'none'}")


def guess_setting(name: str, task: Task, method: str) -> Guess:
    """What may be meant: a setting with another group, by another word, of another task or method, or spelled alike.

    Args:
        name: a name that is no setting of the recipe.
        task: of the recipe.
        method: whose settings may be meant, besides those of the recipe.
    """
    recipe, own = ([one.name for one in some] for some in (recipe_settings(task), method_catalogue(method, task)))
    taken = [*own, *recipe] if name.startswith("methods.") else [*recipe, *own]
    others = {one.name: other for other in RECIPES for one in recipe_settings(other) if one.name not in recipe}
    if name in others:
        return Guess(_by_word(name, method, taken), _of_task("it", others[name], task))
    if meant := _by_last_part(name, taken) or _by_word(name, method, taken):
        return Guess(meant)
    last = _plain(name).rpartition(".")[2]
    if elsewhere := [*_by_last_part(name, others), *_by_word(name, method, others)]:
        return Guess((), _of_task(elsewhere[0], others[elsewhere[0]], task))
    setting = METHOD_SYNONYMS.get(last, last)
    if having := [other for other, kind in SETTINGS.items() if setting in kind.model_fields]:
        return Guess((), f"{setting} belongs to {_listed(having)}, and the method is {method}")
    if _note(name):
        return Guess()
    near = closest(name, [*taken, *others]) or _by_near_last_part(last, taken)
    return Guess((), _of_task(near, others[near], task)) if near in others else Guess((near,) if near else ())


def _by_last_part(name: str, taken: Iterable[str]) -> tuple[str, ...]:
    last = _plain(name).rpartition(".")[2]
    same = tuple(one for one in taken if one.rpartition(".")[2] == last)
    return same[:1] if name.startswith("methods.") else same


def _by_word(name: str, method: str, taken: Collection[str]) -> tuple[str, ...]:
    word = _plain(name)
    last = word.rpartition(".")[2]
    meant = [f"methods.{method}.{METHOD_SYNONYMS[last]}"] if last in METHOD_SYNONYMS else []
    return tuple(one for one in (*meant, *SYNONYMS.get(word, SYNONYMS.get(last, ()))) if one in taken)


def _by_near_last_part(last: str, taken: Iterable[str]) -> str | None:
    lasts = {one.rpartition(".")[2]: one for one in taken}
    near = closest(last, lasts)
    return lasts[near] if near else None


def _of_task(name: str, other: Task, task: Task) -> str:
    return f"{name} belongs to {TASKS[other]}, and the task is {TASKS[task]}"


def _note(name: str) -> str | None:
    return NOTES.get(_plain(name)) or NOTES.get(_plain(name).rpartition(".")[2])


def _listed(words: list[str]) -> str:
    return " and ".join(filter(None, [", ".join(words[:-1]), words[-1]]))


def _plain(name: str) -> str:
    return name.lower().replace("-", "_").strip("_ ")
