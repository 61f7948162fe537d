"""Publishing to a Hugging Face repository, in one commit."""

from __future__ import annotations

import shutil
from pathlib import Path

from zoo.collection.index import INDEX, Index, write_index
from zoo.collection.merge import Merged, Receipt, merge
from zoo.collection.sources_hub import HubSource, Repository, endpoint, hub_errors
from zoo.errors import UserError
from zoo.paths import offline


def check_address(to: str) -> Repository:
    """The repository hf://ORG/REPO; raises `UserError` if nothing can be sent there."""
    if offline():
        raise UserError(f"cannot publish to {to}: offline mode is on")
    return Repository.parse(to)


def publish_to_hub(stage: Path, name: str, to: str) -> Receipt:
    """Uploads what is staged; the repository is made if there is none.

    The commit names the state that it was built upon, so if somebody else published
    meanwhile, the hub refuses it and nothing is lost.

    Args:
        stage: Holds the verified folder `name`.
        name: Of the encoder.
        to: hf://ORG/REPO.

    Raises:
        UserError: offline mode, a name taken by other content, no permission.
        RobrepError: the hub cannot be reached or refuses.
    """
    from huggingface_hub import HfApi

    address = check_address(to)
    api = HfApi(endpoint=endpoint(), library_name="robrep")
    with hub_errors(to):
        api.create_repo(address.repo, exist_ok=True)
        info = api.model_info(address.repo, revision=address.revision)
        present = {file.rfilename for file in info.siblings or ()}
    target = HubSource(f"hf://{address.repo}@{info.sha}")
    if INDEX not in present:
        target.__dict__["index"] = Index(encoders=[])  # a repository without a zoo
    place = _place(target, name)
    merged = merge(stage, name, target, place, f"hf://{address.repo}")
    upload = _upload_folder(stage, merged, name)
    with hub_errors(to):
        api.upload_folder(
            repo_id=address.repo,
            folder_path=upload,
            commit_message=_message(merged),
            revision=address.revision,
            parent_commit=info.sha,
        )
    return merged.receipt(to)


def _place(target: HubSource, name: str) -> str:
    """A new repository holds one encoder at its root; a collection, a folder each."""
    rows = target.index.encoders
    if not rows:
        return "."
    alone = rows[0].folder == "."
    if alone and rows[0].card.name != name:
        raise UserError(
            f"{target.at.repo} is the repository of '{rows[0].card.name}'; publish "
            f"'{name}' to one of its own"
        )
    return "." if alone else name


def _upload_folder(stage: Path, merged: Merged, name: str) -> Path:
    """Arranges the new files as they will lie in the repository."""
    upload = stage / ".upload"
    for path in merged.new_files:
        place = upload / merged.row.located(path)
        place.parent.mkdir(parents=True, exist_ok=True)
        shutil.move(stage / name / path, place)
    write_index(upload / INDEX, merged.index)
    return upload


def _message(merged: Merged) -> str:
    name = merged.row.card.name
    if merged.new_encoder:
        return f"Publish {name}"
    return f"Entries of {name}: {', '.join(merged.added) or 'none new'}"
