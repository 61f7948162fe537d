"""Commands of `robrep-zoo` that make something: publish, worst-case, submit, import."""

from __future__ import annotations

from pathlib import Path

import rich_click as click

from zoo.commands.again import ATTACK, ATTACK_SEED, DEVICE
from zoo.commands.options import DATA_DIR, RUNS, RUNS_IF_ANY, SOURCE
from zoo.plain_text import plain


@click.command()
@RUNS
@click.option("--to", required=True, help="A folder, or hf://ORG/REPO.")
@click.option("--entry", help="Name of the entry, if the usual one is taken.")
@DATA_DIR
@SOURCE
def publish(
    runs: tuple[Path, ...],
    to: str,
    entry: str | None,
    data_dir: Path | None,
    source: str | None,
) -> None:
    """Publish encoders and results, after every claim was verified again.

    RUN is the folder of an evaluation, or of an encoder (card.json and weights). An
    entry whose evidence does not hold is refused; a published name never changes.
    """
    from zoo.collection.publish import Publication
    from zoo.collection.publish import publish as publish_

    request = Publication(runs=runs, source=source, entry=entry, data_dir=data_dir)
    receipt = publish_(request, to)
    if receipt.new_encoder:
        click.echo(f"published {receipt.encoder} to {receipt.where}")
    for name in receipt.added:
        click.echo(f"published entry {receipt.encoder}/{name}")
    for name in receipt.known:
        click.echo(f"entry {receipt.encoder}/{name} was there already")


@click.command("worst-case")
@click.argument("reference", metavar="ENCODER/ENTRY")
@RUNS_IF_ANY
@click.option(
    "--to",
    required=True,
    type=click.Path(file_okay=False, path_type=Path),
    help="Folder of the collection that holds the entry.",
)
@ATTACK
@ATTACK_SEED
@DEVICE
@DATA_DIR
def worst_case(
    reference: str,
    runs: tuple[Path, ...],
    to: Path,
    attack: int | None,
    seed: int | None,
    device: str,
    data_dir: Path | None,
) -> None:
    """Add what RUN found to the worst case known of a published entry.

    RUN is the folder of an evaluation on the same images and under the same threat
    model, such as one with --battery fast. Those of its adversarials count that fool
    the published classifier on an image that the entry calls robust. The entry and its
    figure stay as they are. With --attack N, what `verify --attack N` finds counts too.
    """
    from zoo.collection.gathering import Further
    from zoo.collection.strengthen import strengthen
    from zoo.commands.again import reattack
    from zoo.device import check_device
    from zoo.errors import UserError

    check_device(device)
    again = reattack(attack, seed)
    if not runs and again is None:
        raise UserError("name a RUN, or --attack N images now")
    further = None if again is None else Further(again=again, device=device)
    if again:  # so that a killed call can be repeated
        click.echo(f"attacking {again.count} images, seed {again.seed}", err=True)
    worst = strengthen(to, reference, runs, further=further, data_dir=data_dir)
    click.echo(plain(f"{reference}: worst case known {worst}"))


@click.command()
@click.option(
    "--robustbench",
    "reference",
    required=True,
    metavar="ENCODER/ENTRY",
    help="Make the bundle that RobustBench asks for.",
)
@click.option("--title", default="", help="Of the paper.")
@click.option("--authors", default="", help="Comma separated.")
@click.option("--link", default="", help="Of the paper.")
@click.option("--venue", default="", help='"ICML 2020" or "arXiv, Apr 2022".')
@click.option("--footnote", help="Shown below the leaderboard.")
@click.option("--checkpoint", help="Where the weights can be downloaded.")
@click.option("--variant", help="For several models of one paper: WRN-28-10.")
@click.option(
    "--output",
    type=click.Path(file_okay=False, path_type=Path),
    help="Folder of the bundle; by default its RobustBench name.",
)
@click.option("--draft", is_flag=True, help="Write it though something is missing.")
@DATA_DIR
@SOURCE
def submit(
    reference: str,
    variant: str | None,
    output: Path | None,
    draft: bool,
    data_dir: Path | None,
    source: str | None,
    **paper: str | None,
) -> None:
    """Make a submission to RobustBench from an entry.

    Checks what its maintainers require and says what is missing; then writes their
    JSON, the filled issue, a model definition that needs torch alone, the weights,
    AutoAttack's log and a table of verdicts.
    """
    from zoo.collection.opening import open_source
    from zoo.submission.bundle import submit as submit_
    from zoo.submission.info import Paper

    bundle = submit_(
        open_source(source),
        reference,
        Paper(**paper),  # type: ignore[arg-type]
        output=output,
        variant=variant,
        data_dir=data_dir,
        draft=draft,
    )
    for check in bundle.checks:
        mark = "ok     " if check.holds else "MISSING"
        click.echo(plain(f"{mark} {check.what}: {check.found}"), err=True)
    click.echo(bundle.folder)


@click.command("import")
@click.argument(
    "checkpoint", type=click.Path(exists=True, dir_okay=False, path_type=Path)
)
@click.option(
    "--format",
    "method",
    required=True,
    help="rocl, acl, advcl, deacl, dynacl, dynacl-pp or efficientnet-lite0.",
)
@click.option("--name", required=True, help="Of the encoder, such as acl-cifar10.")
@click.option(
    "--to",
    required=True,
    type=click.Path(file_okay=False, path_type=Path),
    help="Folder in which the encoder's folder is made.",
)
@click.option("--dataset", default="cifar10", show_default=True, help="Trained on.")
@click.option("--licence", default="see source", show_default=True)
@click.option(
    "--labels/--no-labels",
    default=None,
    help="Whether the encoder saw labels. Default: if the file holds a classifier.",
)
@click.option(
    "--size",
    type=click.IntRange(32, 1024),
    help="Side of the images that an efficientnet-lite0 shall be for.  [default: 224]",
)
def import_(
    checkpoint: Path,
    method: str,
    name: str,
    to: Path,
    dataset: str,
    licence: str,
    labels: bool | None,
    size: int | None,
) -> None:
    """Import an authors' CHECKPOINT as an encoder of the zoo.

    Keeps the branch and the batch norms that its authors evaluate. No code from the
    checkpoint is run.
    """
    from zoo.collection.import_efficientnet import FORMAT, import_efficientnet_lite
    from zoo.collection.importers import import_checkpoint
    from zoo.errors import UserError

    if method == FORMAT:
        done = import_efficientnet_lite(
            checkpoint, to, name=name, licence=licence, size=size or 224
        )
        labels = True
    elif size is not None:
        raise UserError(f"--size is for {FORMAT}; {method} is for images of one size")
    else:
        done = import_checkpoint(
            checkpoint,
            method,
            to,
            name=name,
            dataset=dataset,
            licence=licence,
            labels=labels,
        )
    if done.head is not None and labels is None:
        click.echo(
            f"the file holds a classifier ('{done.head}'): the card says that the "
            "encoder saw labels; if it did not (pseudo-labels), --no-labels",
            err=True,
        )
    click.echo(
        f"{done.card.arch} {done.card.dim} features; {done.dropped} tensors are no "
        "part of the encoder",
        err=True,
    )
    click.echo(done.folder)


@click.command()
@click.argument("model")
@click.option(
    "--to",
    required=True,
    type=click.Path(file_okay=False, path_type=Path),
    help="Folder for the files.",
)
@SOURCE
def export(model: str, to: Path, source: str | None) -> None:
    """Write an encoder of timm, transformers or open_clip in that library's files.

    MODEL is a name of the zoo, or the folder or file of an encoder. The call that loads
    the files without robrep is printed, and how images must be normalised for it.
    """
    from zoo.collection.native import export as export_
    from zoo.collection.native import pixels
    from zoo.collection.references import weights_file
    from zoo.collection.store import load_encoder_by_name
    from zoo.encoder import load_encoder

    path = weights_file(model)
    if path.is_file():
        encoder = load_encoder(path)
    else:
        encoder = load_encoder_by_name(model.removeprefix("zoo:"), source)
    click.echo(export_(encoder, to))
    click.echo(f"# {pixels(encoder.spec)}")
