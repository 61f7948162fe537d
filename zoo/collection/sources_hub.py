"""A collection in a repository on the Hugging Face hub: hf://ORG/REPO[@REVISION].

The hub's own client downloads, resumes and caches (`HF_HOME`, `HF_TOKEN` and the rest
are its own); checksums of the index are compared before use all the same.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from zoo import budgets
from zoo.collection.index import INDEX, EncoderRow, FileRecord, Index
from zoo.collection.serial import goes_back
from zoo.collection.sources import Source, check_file
from zoo.errors import RobrepError, UserError
from zoo.paths import offline
from zoo.records import read_record

HUB_ALIAS = "hf-hub:"
ADDRESS = re.compile(r"(?P<repo>[\w.-]+/[\w.-]+?)(@(?P<revision>[\w./-]+))?/?$")


def endpoint() -> str | None:
    """Another hub than the public one, if the environment names it."""
    return os.environ.get("HF_ENDPOINT")


class NoSuchFileError(UserError):
    """The repository is there, and the file is not."""


@dataclass(frozen=True)
class Repository:
    """A repository on the hub, at a revision."""

    uri: str
    repo: str
    revision: str | None = None

    @classmethod
    def parse(cls, uri: str) -> Repository:
        """From hf://ORG/REPO[@REVISION]; raises `UserError` for another form."""
        found = ADDRESS.match(uri.removeprefix("hf://").removeprefix(HUB_ALIAS))
        if found is None:
            raise UserError(f"'{uri}' is not of the form hf://ORG/REPO[@REVISION]")
        return cls(uri, found["repo"], found["revision"])

    def get(self, path: str) -> Path:
        """One file, from the cache or fetched.

        Raises:
            NoSuchFileError: the repository does not hold it.
            UserError: no such repository, or no access.
            RobrepError: the hub cannot be reached and the file is not in the cache.
        """
        from huggingface_hub import hf_hub_download

        with hub_errors(f"{path} of {self.uri}"):
            return Path(
                hf_hub_download(
                    self.repo,
                    path,
                    revision=self.revision,
                    endpoint=endpoint(),
                    local_files_only=offline(),
                )
            )


class HubSource(Source):
    """A collection in a hub repository, which may hold one encoder alone."""

    def __init__(self, uri: str) -> None:
        super().__init__(uri)
        self.at = Repository.parse(uri)

    def _read_index(self) -> Index:
        index = read_record(self.at.get(INDEX), Index)
        if not offline():
            goes_back(f"{endpoint() or ''}{self.uri}", index)
        return index

    def _fetch(self, row: EncoderRow, file: FileRecord) -> Path:
        path = self.at.get(row.located(file.path))
        try:
            check_file(path, file, again="nothing was kept")
        except UserError:
            path.resolve().unlink(missing_ok=True)  # the client's copy and its link
            path.unlink(missing_ok=True)
            raise
        return path


@contextmanager
def hub_errors(what: str) -> Iterator[None]:
    """Turns the client's errors into ours."""
    from huggingface_hub import errors

    # The client's transport changes from version to version; its base error is here.
    transport: type[Exception] = errors.HfHubHTTPError.__bases__[0]
    try:
        yield
    except errors.LocalEntryNotFoundError:
        reason = "offline mode is on" if offline() else "the hub cannot be reached"
        raise RobrepError(f"{reason}, and {what} is not in the cache") from None
    except errors.EntryNotFoundError:
        raise NoSuchFileError(f"there is no {what}") from None
    except errors.GatedRepoError:
        raise UserError(
            f"{what} is for people who have been granted access: ask for it on its "
            "page, then log in with `hf auth login`"
        ) from None
    except (errors.RepositoryNotFoundError, errors.RevisionNotFoundError):
        raise UserError(
            f"{what} is not there, or not public (then log in with `hf auth login`)"
        ) from None
    except errors.HFValidationError as error:
        raise UserError(f"{what}: {budgets.plain_reason(error)}") from None
    except transport as error:
        first = (str(error).splitlines() or [type(error).__name__])[0]
        raise RobrepError(f"{what}: {first}") from None
