"""``kedge build``."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path
from typing import Annotated

import typer

from kedge_shared.options import Json, TokenFile

_EXTRA = ("torch", "torchvision", "ultralytics", "onnx", "onnxruntime", "jinja2")


def need_extra() -> None:
    """Tells of a missing extra before anything of the input is looked at."""
    for name in _EXTRA:
        if find_spec(name) is None:
            raise ModuleNotFoundError(name, name=name)


def build(
    weights: Annotated[Path, typer.Argument(help="Trained Ultralytics detection model (.pt).")],
    data: Annotated[Path, typer.Option(help="data.yaml: train, val, names.")],
    device_class: Annotated[
        list[str], typer.Option(help="Name in the catalogue or a YAML file; may be repeated.")
    ],
    out: Annotated[Path, typer.Option(help="Folder for the builds.")],
    policy: Annotated[
        Path | None, typer.Option(help="Model policy; without one a policy is proposed.")
    ] = None,
    model: Annotated[str, typer.Option(help="Name of the model; default: from the weights.")] = "",
    release: Annotated[str, typer.Option(help="Version of the release.")] = "0.1",
    release_counter: Annotated[
        int, typer.Option(help="Order of releases; default: the time, so that later is higher.")
    ] = 0,
    input_size: Annotated[int, typer.Option(help="Input pixels; default: the device class's.")] = 0,
    override: Annotated[
        list[str] | None,
        typer.Option(help="BUDGET=REASON: accept a missed budget, on the record."),
    ] = None,
    previous: Annotated[
        Path | None,
        typer.Option(help="Build that boards run now: states how much both may differ on them."),
    ] = None,
    shadow: Annotated[
        Path | None, typer.Option(help="YAML: what boards must see the release hold against it.")
    ] = None,
    images: Annotated[int, typer.Option(help="Images for the verdict; default: all.")] = 0,
    seed: Annotated[int, typer.Option(help="Of every draw.")] = 0,
    calibration_images: Annotated[
        int, typer.Option(help="Taken for calibration at the most; 100-500 are best.")
    ] = 128,
    if_it_loses: Annotated[
        str,
        typer.Option(help="What may be tried when INT8 loses too much: mixed, qat, float, none."),
    ] = "mixed",
    tune: Annotated[
        bool, typer.Option("--tune", help="Search over precision, pruning and input size.")
    ] = False,
    pick: Annotated[
        str, typer.Option(help="What the search is for: fastest, smallest or most-accurate.")
    ] = "fastest",
    trials: Annotated[int, typer.Option(help="Points the search measures, 12 at least.")] = 24,
    storage: Annotated[
        str, typer.Option(help="Database URL of the search, shared by machines; default: a file.")
    ] = "",
    prune_to: Annotated[
        float, typer.Option(help="Share of the MACs that the pruning chain goes down to; 1: none.")
    ] = 1.0,
    prune_epochs: Annotated[int, typer.Option(help="Of fine-tuning after each step.")] = 10,
    bench_server: Annotated[
        str, typer.Option(help="Server whose boards measure latency (`kedge bench-worker`).")
    ] = "",
    bench_key: Annotated[
        Path | None, typer.Option(help="Key that signs their jobs (`kedge keys bench`).")
    ] = None,
    bench_wait_seconds: Annotated[
        float, typer.Option(help="How long a board is waited for.")
    ] = 600.0,
    token_file: TokenFile = None,
    cache: Annotated[
        Path | None, typer.Option(envvar="KEDGE_BUILD_CACHE", help="Folder of steps already done.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Build, measure and judge a model for each device class.

    Exit status: 0 pass, 2 bad input, 3 budget missed, 4 undecided (too little data).
    """
    need_extra()
    from kedge_builder import recipe
    from kedge_builder.judge.acceptance import EXIT
    from kedge_builder.judge.ladder import read_rungs
    from kedge_builder.judge.terms import read_terms
    from kedge_builder.progress import Progress
    from kedge_builder.report.show import show_results
    from kedge_shared.device_classes import find_class
    from kedge_shared.ids import check_name
    from kedge_shared.manifest import Shadow

    wanted = recipe.read_tune(pick, trials, storage, prune_to, prune_epochs, seed)
    options = recipe.BuildOptions(
        weights=weights,
        data=data,
        classes=[find_class(each) for each in device_class],
        out=out,
        model=check_name("model", model) if model else recipe.model_name(weights),
        release=check_name("release", release),
        release_counter=release_counter or recipe.default_counter(),
        policy=policy,
        input_size=input_size or None,
        overrides=recipe.read_overrides(override or []),
        previous=previous,
        terms=read_terms(shadow) if shadow else Shadow(),
        images=images or None,
        seed=seed,
        calibration_images=calibration_images,
        rungs=read_rungs(if_it_loses),
        tune=wanted if tune else None,
        cache=cache,
        bench_server=bench_server or None,
        bench_key=bench_key,
        bench_wait_seconds=bench_wait_seconds,
        token_file=token_file,
    )
    from kedge_builder.pipeline import run

    results = run(options, Progress(quiet=as_json))
    show_results(results, options, as_json=as_json)
    worst = max(EXIT[each.decision.verdict] for each in results)
    if worst:
        raise typer.Exit(worst)
