"""The trainings that ask when csg helps.

    python -m benchmarks.training.verdict DATA OUT [--at-once 2] [--minutes M] [--lines NAME ...]

DATA has the folders pacs, vehicles, signs, street and camvid. What the tables in OUT lack is trained and added to them
(`comparisons`).
"""

from __future__ import annotations

from benchmarks.training.comparisons import Line, main

ALL = {"optim.average": 0.25, "evaluate_every": 200, "precision": "bf16", "data.workers": 1}
LONG = {**ALL, "optim.steps": 2400, "optim.warm_up": 100}
SHORT = {**ALL, "optim.steps": 600}
STREET = {
    **SHORT,
    **{"data.labels": "camvid11", "data.crop": [160, 208], "model.freeze_batch_norm": True},
    **{"model.freeze_affine": True, "optim.batch": 4, "optim.warm_up": 50},
    **{"optim.lr_backbone": 0.0003, "optim.lr_heads": 0.001},
}
"""Batch norm stays frozen, as published. The recipe's learning rates diverge then: these are, of eight pairs, the best
for plain fine-tuning on held-out synthetic scenes."""
THREE = ("none", "none:augment=true", "csg")
EIGHT = (*THREE, "csg:attention=detached", "l2", "ewc", "feature-l2", "asg")

PACS, VEHICLES, SIGNS = ("pacs/cartoon", "pacs/art_painting"), ("vehicles/rendered",), ("signs/synthetic",)
LINES = (
    Line("vehicles-long", "pacs", VEHICLES, "vehicles/real", LONG, THREE, seeds=5, rates=True),
    Line("pacs-long", "pacs", PACS, "pacs/photo", LONG, THREE, seeds=5, rates=True),
    Line("street", "camvid", ("street",), "camvid", STREET, THREE, tune=True),
    Line("vehicles-short", "pacs", VEHICLES, "vehicles/real", SHORT, EIGHT),
    Line("pacs-short", "pacs", PACS, "pacs/photo", SHORT, EIGHT),
    Line("signs-short", "pacs", SIGNS, "signs/real", SHORT, EIGHT),
)

if __name__ == "__main__":
    main(LINES, __doc__)
