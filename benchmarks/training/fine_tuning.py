"""How to train an encoder: in four ways, with and without what keeps it near its start; and the formulas of A-pool.

    python -m benchmarks.training.fine_tuning DATA OUT [--at-once 2] [--minutes M] [--lines NAME ...]

DATA has the folders pacs and vehicles. The learning rates of each encoder, pair and way to train are those that plain
fine-tuning does best with on held-out synthetic images; the weights of csg and MIRO are their own. What the tables in
OUT lack is trained and added to them (`comparisons`).
"""

from __future__ import annotations

from itertools import product

from benchmarks.training.comparisons import Line, main

SETTINGS = {"optim.steps": 150, "optim.warm_up": 10, "precision": "bf16", "data.workers": 1, "data.holdout": 0.1}
WAYS = (":model.training=lp-ft", ":model.training=lora:optim.optimizer=adamw:optim.lr_heads=0.0003")
"""How the encoder trains, if not all of it at once: after the head (LP-FT), or by low-rank changes (LoRA)."""
FROZEN = ":model.training=frozen"
AVERAGED = ":optim.average=0.25"
KEEPING = ("none" + AVERAGED, "csg" + AVERAGED, "miro" + AVERAGED, "none:optim.wise=auto")
"""What keeps it near its start. Each run also has the scores of its last weights, which are neither averaged nor
interpolated (`last` in comparison.json)."""
ROWS = (*(method + way for way in ("", *WAYS) for method in KEEPING), "none" + AVERAGED + FROZEN)
PAIRS = {
    "pacs": (("pacs/cartoon", "pacs/art_painting"), "pacs/photo"),
    "vehicles": (("vehicles/rendered",), "vehicles/real"),
}
NETWORKS = {"mobilenet_v2": "mobilenet_v2", "lite0": "timm:tf_efficientnet_lite0"}
POOLING = ("csg:apool_by=relu", "csg:apool_by=norm", "csg:apool_by=softmax", "csg:apool=false")
"""Formulas of A-pool's weights, on an encoder whose maps are half negative."""


def line(name: str, pair: str, network: str, rows: tuple[str, ...], ways: tuple[str, ...] = ()) -> Line:
    """A comparison of rows that share an encoder, a pair and learning rates."""
    settings = SETTINGS | {"model.backbone": NETWORKS[network]}
    return Line(name, "pacs", *PAIRS[pair], settings, rows, rates=True, ways=ways)


LINES = (
    *(line(f"{pair}-{network}", pair, network, ROWS, (*WAYS, FROZEN)) for pair, network in product(PAIRS, NETWORKS)),
    line("apool", "pacs", "lite0", POOLING),
)

if __name__ == "__main__":
    main(LINES, __doc__)
