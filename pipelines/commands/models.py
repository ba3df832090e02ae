"""``gwm train``, ``gwm evaluate`` and ``gwm retrain``."""

from __future__ import annotations

from typing import Annotated

import typer

from pipelines.commands.data import DatasetUri, Sources
from pipelines.commands.tables import print_table

ModelReference = Annotated[
    str,
    typer.Option("--model", help="models:/NAME@alias, models:/NAME/3, runs:/ID, or a folder.", show_default=False),
]
Overrides = Annotated[
    list[str] | None,
    typer.Option("--set", help="Override of the preset, such as optimisation.num_steps=500; may be repeated."),
]
Sequences = Annotated[str | None, typer.Option(help="Only these sequences, or images, separated by commas.")]


def train(
    experiment: Annotated[str, typer.Option(help="Preset: a file name in pipelines/experiments.", show_default=False)],
    dataset: Annotated[
        list[str], typer.Option(help="Folder or s3://bucket/key; several are trained on together.", show_default=False)
    ],
    version: Annotated[
        list[int] | None, typer.Option(min=0, help="Dataset version, one for each dataset; unset takes the latest.")
    ] = None,
    override: Overrides = None,
    register: Annotated[str | None, typer.Option(help="Register the model in MLflow under this name.")] = None,
    initial_model: Annotated[
        str | None, typer.Option(help="Start from the weights of this model, not from scratch.")
    ] = None,
    checkpoint: Annotated[
        str | None,
        typer.Option(help="What becomes the model: last, held_out_loss or stability; unset takes the preset's."),
    ] = None,
    resume: Annotated[
        str | None, typer.Option(help="Training id of a run that was cut short; it goes on from its checkpoint.")
    ] = None,
) -> None:
    """Train a model on a dataset, or on several together; one MLflow run, checkpoints on the way.

    Datasets ingested over unlike gaps, as FBMS59 and DAVIS2016 are, train together with --set data.gaps_from=recipe.
    """
    from pipelines.train import paired, train_gwm

    (first, pinned), *others = paired(dataset, version)
    result = train_gwm(
        experiment=experiment,
        dataset=first,
        version=pinned,
        joint=[uri for uri, _ in others],
        joint_versions=version[1:] if version else None,
        overrides=[*(override or []), *([f"recording.checkpoint_choice={checkpoint}"] if checkpoint else [])],
        register_as=register,
        training_id=resume,
        initial_model=initial_model,
    )
    print_table([{"what": key, "value": value} for key, value in result.items()], title="training")


def evaluate(
    model: ModelReference,
    benchmark: Annotated[
        str,
        typer.Option(help="davis16, segtrackv2, fbms59, rendered; cub, duts, ecssd, dut-omron.", show_default=False),
    ],
    root: Annotated[str, typer.Option(help="Folder of the benchmark.", show_default=False)],
    sequences: Sequences = None,
    json_file: Annotated[str | None, typer.Option("--json", help="Write the scores to this file.")] = None,
    report: Annotated[str | None, typer.Option(help="Write an HTML report into this folder.")] = None,
    features: Annotated[str, typer.Option(help="Merge segments by decoder, colour, motion or dino.")] = "decoder",
    feature_weights: Annotated[str | None, typer.Option(help="DINO ViT: dino-vit-s8, a file or a URI.")] = None,
    feature_sha256: Annotated[str | None, typer.Option(help="SHA-256 of the checkpoint; required for a URI.")] = None,
    network_size: Annotated[
        str, typer.Option(help="Size at which still images are looked at: auto, native, model or ROWSxCOLUMNS.")
    ] = "auto",
    adapt_steps: Annotated[
        int, typer.Option(min=0, help="Score also after so many steps of adaptation to each sequence (GWM: 20).")
    ] = 0,
    adapt_rate: Annotated[
        str, typer.Option(help="Of these steps: final, where the training ended, or full, as it was given.")
    ] = "final",
    crf: Annotated[
        str | None, typer.Option(help="Refine masks by a dense CRF before they are scored: gwm or rcf.")
    ] = None,
    candidates: Annotated[
        bool,
        typer.Option("--candidates", help="Score also the checkpoints that the model was chosen among."),
    ] = False,
) -> None:
    """Score a model on annotated sequences: label-free first, ground-truth-chosen beside it, labelled as such."""
    from pipelines.evaluate import evaluate_model

    result = evaluate_model(
        model=model,
        benchmark=benchmark,
        root=root,
        sequences=split(sequences),
        json_file=json_file,
        report=report,
        features=features,
        feature_weights=feature_weights,
        feature_sha256=feature_sha256,
        network_size=network_size,
        adapt_steps=adapt_steps,
        adapt_rate=adapt_rate,
        crf=crf,
        candidates=candidates,
    )
    print_table(result["sequences"], title=f"{benchmark}, {result['coverage']}")
    print_table(result["averages"], title="averages")
    if candidates:
        print_table(result["candidates"], title="checkpoints that the model was chosen among")
        print_table(result["costs"], title="what choosing the checkpoint without labels costs")


def retrain(
    sources: Sources,
    dataset: DatasetUri,
    model: Annotated[str, typer.Option(help="Name of the registered model.", show_default=False)],
    experiment: Annotated[str, typer.Option(help="Preset to train with.")] = "gwm_unet",
    override: Overrides = None,
    benchmark: Annotated[str | None, typer.Option(help="Decide on this benchmark's label-free score.")] = None,
    root: Annotated[str | None, typer.Option(help="Folder of the benchmark.")] = None,
    force: Annotated[bool, typer.Option("--force", help="Train although nothing is new.")] = False,
    weights: Annotated[
        str | None, typer.Option(help="Weights of the dataset's flow estimator, if it was made with your own.")
    ] = None,
) -> None:
    """Ingest what is new, train on from the champion, and move the alias when the result is better.

    New footage is ingested by the dataset's own recipe: estimator, gaps, rate and size.
    """
    from pipelines.retrain import retrain_on_new_footage

    if (benchmark is None) != (root is None):
        raise typer.BadParameter("--benchmark and --root go together")
    result = retrain_on_new_footage(
        sources=sources,
        dataset=dataset,
        model=model,
        experiment=experiment,
        overrides=override or [],
        benchmark=benchmark,
        root=root,
        force=force,
        weights=weights,
    )
    print_table([{"what": key, "value": value} for key, value in result.items()], title="retraining")


def split(names: str | None) -> list[str] | None:
    """Turn ``a,b,c`` into a list; None stays None."""
    return None if names is None else [name.strip() for name in names.split(",") if name.strip()]
