"""Names of the files in a run folder (csg_train/training/run_folder.py), for code that needs no torch."""

from pathlib import Path

RUNS = Path("runs")
"""Where `csg train` makes run folders, unless another folder is named."""
RECIPE = "recipe.yaml"
ENVIRONMENT = "environment.json"
METRICS = "metrics.jsonl"
STUDENT = "student.safetensors"
BEST_ON_REAL = "best-on-real.safetensors"
PREDICTIONS = "predictions.npz"
RESULT = "result.json"
DIVERGED = "diverged.txt"
CHECKPOINTS = "checkpoints"
PICTURES = "pictures"
PROFILE = "profile"
TRACKED = "trackers.json"
WRITTEN = frozenset(
    (
        *(RECIPE, ENVIRONMENT, METRICS, STUDENT, BEST_ON_REAL, PREDICTIONS, RESULT, DIVERGED),
        *(CHECKPOINTS, PICTURES, PROFILE, TRACKED, "wandb", ".lock"),
    )
)
"""All that a training writes into the folder."""
WRITTEN_PREFIXES = ("events.out.tfevents.", *(f".{name}." for name in sorted(WRITTEN)))
"""How the names of TensorBoard's files begin, and of files that were being written when a training was killed."""
