"""The settings of `speed`: how fast a training runs on a device, and in how much memory."""

from __future__ import annotations

from typing import Literal

from pydantic import model_validator

from csg.records import Record


class Speed(Record):
    """What makes a training faster or smaller; with the defaults a seed fixes the weights (docs/training.md)."""

    compile: bool = False
    """Compile encoder and head with torch.compile. It needs a C++ compiler, and Triton on a GPU; results agree up to
    rounding. MobileNetV2 trained at 0.69 of its speed with it on a CPU."""
    tf32: Literal["none", "convolutions", "all"] = "convolutions"
    """Which float32 products may be computed in TF32 on a GPU: none, those of convolutions (torch's default), or
    matrix products too. No effect on a CPU."""
    fused: bool = False
    """Update all weights in one kernel (the optimizer's fused form); results agree up to rounding."""
    deterministic: bool = True
    """Use deterministic algorithms on a GPU, so that a seed fixes the weights. No effect on a CPU, where it always
    does."""
    cudnn_benchmark: bool = False
    """Let cuDNN time its algorithms and take the fastest one for each shape; the choice may differ from run to run, so
    it needs `deterministic: false`. No effect on a CPU."""
    copy_ahead: bool = False
    """Copy the next batch to the GPU on a stream of its own, during the step before. The weights are the same; the GPU
    holds one more batch. No effect on a CPU."""
    gradient_checkpointing: bool = False
    """Keep only the input of each block of the encoder, and compute the block again in the backward pass: less memory,
    about a third more computation (Chen et al. 2016, Training Deep Nets with Sublinear Memory Cost). The gradients are
    the same."""
    sync_batch_norm: bool = False
    """Where batch norm trains, normalise by the images of all processes instead of each process's own. It needs GPUs;
    no effect in a single process."""

    @model_validator(mode="after")
    def _blocks_are_compiled_or_computed_again(self) -> Speed:
        if self.compile and self.gradient_checkpointing:
            raise ValueError("compile and gradient_checkpointing do not work together; set one of them")
        return self

    @model_validator(mode="after")
    def _exact_repeats_are_not_timed(self) -> Speed:
        if self.cudnn_benchmark and self.deterministic:
            raise ValueError(
                "cudnn_benchmark chooses algorithms by time, so that a seed does not fix the weights; "
                "set deterministic to false too"
            )
        return self
