"""The commands as Python functions: `import csg; csg.train()`.

They take what the commands take, print the same progress on standard error, return objects, and raise CsgError where a
command prints an error. What they import, they import when they are called.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from csg.errors import UsageError
from csg_cli.calls import PathLike, Sources, command_function, folder_of, path_of, sources_of, text_of

if TYPE_CHECKING:
    import csg_train.tasks.base
    from csg.bundle import Bundle
    from csg_serve.evaluate.loaded_model import LoadedModel
    from csg_serve.evaluate.records import ClassificationResult, SegmentationResult
    from csg_serve.repository.deploy import Deployed
    from csg_serve.server.running import RunningServer
    from csg_serve.triton.deploy_options import DeployOptions
    from csg_train.training.run_folder import Run


@command_function("train")
def train(
    task: Literal["cls", "seg"] = "cls",
    *,
    recipe: PathLike | None = None,
    data: Sources | None = None,
    real_data: Sources | None = None,
    labels: PathLike | None = None,
    method: str | None = None,
    backbone: str | None = None,
    weights: PathLike | None = None,
    epochs: int | None = None,
    seed: int | None = None,
    settings: Mapping[str, Any] | None = None,
    trackers: Iterable[str] = (),
    out: PathLike | None = None,
    resume: bool = False,
) -> Run:
    """Train a model on synthetic images, as `csg train` does; without arguments, a classifier of the embedded digits.

    In the main thread, Ctrl-C (in a notebook: interrupt) ends the training after the current step with a checkpoint.

    Args:
        task: cls, a classifier, or seg, a segmenter.
        recipe: name or YAML file of the recipe; None: that of the task's embedded dataset.
        data: synthetic training images: class folders or a list file; for segmenters folders with images/ and labels/.
        real_data: real images to measure on.
        labels: segmenters: label set of the masks, a name or a YAML file.
        method: the method, with settings after colons, such as csg:temperature=0.2; None: the recipe's.
        backbone: name of the backbone.
        weights: file of pretrained weights, or none.
        epochs: passes over the synthetic images.
        seed: of all random numbers.
        settings: any other settings of the recipe, by their dotted names.
        trackers: what follows the run besides TensorBoard: mlflow, wandb, trackio.
        out: folder of the run; None: a new one in runs/.
        resume: continue the newest unfinished run, or the one at `out`.

    Returns:
        the run: its `path`, and the figures in `result()`.

    Raises:
        CsgError: a setting or the data can't be used, or the training diverged or was stopped.

    Example:
        >>> run = csg.train("cls", settings={"optim.steps": 200})
        >>> run.result().evaluation.accuracy
        0.93
    """
    from csg_cli.options import RecipeOptions
    from csg_train.methods.spec import parse_method
    from csg_train.recipe import merge_settings
    from csg_train.training.command import TrainRequest, start_or_resume

    if task not in ("cls", "seg"):
        raise UsageError(f"task {task!r} is not one", "use cls or seg")
    options = RecipeOptions(
        data=sources_of(data),
        real_data=sources_of(real_data),
        backbone=backbone,
        weights=text_of(weights),
        epochs=epochs,
    )
    method_settings = parse_method(method).changes if method else {}
    given = options.settings({"seed": seed, "data.labels": text_of(labels)} | method_settings)
    request = TrainRequest(
        task=task,
        recipe=text_of(recipe),
        settings=merge_settings(given, settings or {}),
        out=path_of(out),
        resume=resume,
        trackers=tuple(trackers),
    )
    return start_or_resume(request)


@command_function("embed")
def embed(
    run: PathLike | Run | None = None, *, data: Sources | None = None, mirrored: bool = False
) -> csg_train.tasks.base.Measurement:
    """Measure the student of a run on its real images, or on any others, as `csg embed` does.

    Args:
        run: the run or its folder; None: the newest in runs/.
        data: images, as `train` takes them; None: the run's real images.
        mirrored: also measure image and mirror image together.

    Returns:
        the pooled `embeddings` of the images, float32 (N, C), with what is `true` and `predicted` and the scores in
        `evaluation`.

    Raises:
        CsgError: the run is not finished, or the images can't be used.

    Example:
        >>> csg.embed(run).embeddings.shape
        (1797, 1280)
    """
    from csg_train.training.embed import measure_run
    from csg_train.training.run_files import RUNS
    from csg_train.training.run_folder import Run, newest_run

    _, measurement = measure_run(
        Run(newest_run(RUNS) if run is None else folder_of(run)), sources_of(data) or (), mirrored
    )
    return measurement


@command_function("export")
def export(
    run: PathLike | Run | None = None,
    *,
    precision: str = "fp32",
    data: Sources | None = None,
    real_data: Sources | None = None,
    size: tuple[int, int] | None = None,
    logits: bool = False,
    embedding: bool = False,
    tolerance: float | None = None,
    torchvision: str | None = None,
    out: PathLike | None = None,
) -> Bundle:
    """Export the trained model of a run as a bundle, as `csg export` does, every stage checked against PyTorch.

    Args:
        run: the run or its folder; None: the newest in runs/.
        precision: fp32, fp16, bf16 or int8.
        data: int8: where the run's training images are now; None: where they were.
        real_data: where the run's real images are now; None: where they were.
        size: segmenters: fixed (height, width) of the input, multiples of 8; None: any.
        logits: segmenters: also return the logits.
        embedding: classifiers: also return the pooled features.
        tolerance: largest accepted difference of a logit from PyTorch's, as a share of the largest logit; None: the
            precision's own.
        torchvision: export this ImageNet classifier of torchvision, not a run.
        out: folder of the bundle; None: a new one in bundles/.

    Returns:
        the bundle: its `path`, and its model card in `card`.

    Raises:
        CsgError: the run can't be used, or the export differs too much from PyTorch; then nothing is written.

    Example:
        >>> bundle = csg.export(run, precision="fp16")
        >>> bundle.card.parity.agreement
        1.0
    """
    from csg_export.command import export_request
    from csg_export.options import ExportOptions, ExportRequest

    request = ExportRequest(
        run=None if run is None else folder_of(run),
        torchvision=torchvision,
        data=tuple(sources_of(data) or ()),
        real_data=tuple(sources_of(real_data) or ()),
        size=f"{size[0]}x{size[1]}" if size else None,
        options=ExportOptions(precision=precision, logits=logits, embedding=embedding, tolerance=tolerance),
        out=path_of(out),
    )
    return export_request(request)


@command_function("predict")
def load(bundle: PathLike | Bundle) -> LoadedModel:
    """Open a bundle in this process, to predict and evaluate without a server.

    Its answers are compared with its golden ones first.

    Args:
        bundle: the bundle or its folder.

    Returns:
        the model: `predict`, `predict_iter`, `evaluate` and `card`.

    Raises:
        CsgError: it is not a bundle, a file has changed, it answers wrongly here, or its runtime is not installed.

    Example:
        >>> model = csg.load("bundles/digits")
        >>> model.predict("seven.png").label
        '7'
    """
    from csg_serve.evaluate.loaded_model import LoadedModel

    model = LoadedModel(folder_of(bundle))
    model.card()
    return model


@command_function("evaluate")
def evaluate(
    bundle: PathLike | Bundle | None = None,
    *,
    server: str | Iterable[str] | None = None,
    model: str | None = None,
    data: Sources | None = None,
    labels: PathLike | None = None,
    tile: int | None = None,
    mirrored: bool = False,
    on_unreadable: Literal["fail", "skip"] = "fail",
    against: PathLike | Bundle | None = None,
    report: bool = False,
    out: PathLike | None = None,
    resume: bool = False,
) -> ClassificationResult | SegmentationResult:
    """Evaluate a bundle in this process, or a served model, on labelled real images, as `csg evaluate` does.

    Args:
        bundle: the bundle or its folder; None: a served model.
        server: address of the server, or of several of the same model; None: localhost:8001.
        model: name of the served model; None: the only csg model on the server.
        data: real images: class folders or a list file; for segmenters folders with images/ and labels/. None: the
            embedded dataset of the model's task.
        labels: segmenters: label set of the masks; None: the model's own.
        tile: segmenters: side in pixels of overlapping tiles to send, a multiple of 8; None: whole images.
        mirrored: also measure image and mirror image together.
        on_unreadable: what to do with an image that can't be read: fail, or skip and count it.
        against: an earlier evaluation of the same images, a bundle, or the name of another served model, to compare
            with.
        report: write an HTML page, report.html in the folder of the evaluation.
        out: folder of the evaluation; None: a new one in evaluations/.
        resume: continue the newest unfinished evaluation, or the one at `out`.

    Returns:
        the figures, with intervals, and the `folder` that keeps them; the comparison in `against`.

    Raises:
        CsgError: the data or the model can't be used, or no server answers.

    Example:
        >>> csg.evaluate("bundles/digits", report=True).accuracy
        0.93
    """
    from csg_serve.client.endpoints import named_servers
    from csg_serve.evaluate.against import Against
    from csg_serve.evaluate.command import evaluated
    from csg_serve.evaluate.session import EvaluateOptions

    if bundle is not None and (server or model):
        raise UsageError("a bundle and a served model are two models", "give one of them")
    servers = [server] if isinstance(server, str) else list(server or ())
    options = EvaluateOptions(
        source=named_servers(servers or None) if bundle is None else folder_of(bundle),
        model=model,
        data=tuple(sources_of(data) or ()),
        labels=text_of(labels),
        tile=tile,
        mirrored=mirrored,
        out=path_of(out),
        on_unreadable=on_unreadable,
        resume=resume,
        report=report,
        against=None if against is None else Against(str(folder_of(against))),
    )
    return evaluated(options)


@command_function("deploy")
def deploy(
    bundle: PathLike | Bundle | None = None,
    repository: PathLike = "model_repository",
    name: str | None = None,
    *,
    version: int | None = None,
    options: DeployOptions | None = None,
    only_if_better_on: Sources | None = None,
) -> Deployed:
    """Add a bundle to a Triton model repository as the model's next version, as `csg deploy` does.

    If a server runs on the repository, the version is live and verified when this returns.

    Args:
        bundle: the bundle or its folder; None: the newest in bundles/.
        repository: folder of the model repository; created if it does not exist.
        name: name of the model; None: the card's.
        version: number of the version; None: one more than the highest.
        options: how Triton serves it; None: the defaults of `csg deploy`.
        only_if_better_on: labelled real images on which the bundle must be shown to be better than the live version,
            as with `csg deploy --only-if-better --data`; None: no comparison.

    Returns:
        what was deployed: `model`, `version`, and the `live_address` of the server that serves it.

    Raises:
        CsgError: the bundle, the name or the repository can't be used, the running server answers wrongly, or
            the bundle is not shown to be better.

    Example:
        >>> csg.deploy("bundles/digits").version
        1
    """
    from csg.bundle import BUNDLES, newest_bundle, read_bundle
    from csg_serve.evaluate.only_if_better import check_better
    from csg_serve.repository.deploy import deploy as deploy_bundle
    from csg_serve.repository.deploy import unchecked
    from csg_serve.triton.deploy_options import DeployOptions
    from csg_serve.triton.executable import has_python_backend

    data = tuple(sources_of(only_if_better_on) or ())
    if only_if_better_on is not None and not data:
        raise UsageError("only_if_better_on names no images", "name their folder, or leave it out")
    return deploy_bundle(
        read_bundle(newest_bundle(BUNDLES) if bundle is None else folder_of(bundle)),
        Path(repository),
        name,
        version=version,
        options=options or DeployOptions(encoded=has_python_backend()),
        check=partial(check_better, data=data, apart=True) if data else unchecked,
    )


@command_function("serve")
def serve(repository: PathLike = "model_repository", *, ports: tuple[int, int, int] = (0, 0, 0)) -> RunningServer:
    """Start a Triton server on a model repository, on loopback, as `csg serve --detach` does.

    It runs until `stop`, the end of `with`, or `csg serve --stop`, also when this process ends.

    Args:
        repository: folder of the model repository.
        ports: of HTTP, gRPC and metrics; 0 takes a free one.

    Returns:
        the server, with every model ready and verified: its addresses `grpc`, `http` and `metrics`.

    Raises:
        CsgError: there is no model, a port is in use, or a model does not load or answers wrongly.

    Example:
        >>> with csg.serve() as server:
        ...     print(Client(server.grpc).predict("seven.png").label)
        7
    """
    from csg_serve.server.options import ServerOptions
    from csg_serve.server.running import RunningServer
    from csg_serve.server.serve import start
    from csg_serve.triton.machine import available_cores

    options = ServerOptions(ports=ports, threads=available_cores())
    return RunningServer(Path(repository), start(Path(repository), options))
