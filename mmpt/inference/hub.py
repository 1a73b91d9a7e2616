"""Downloads from the Hugging Face Hub and uploads to it, with one clear error for each failure.

`huggingface_hub` does the work. Its environment variables apply, such as HF_TOKEN, HF_ENDPOINT,
HF_HOME and HF_HUB_OFFLINE.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import httpx2
from huggingface_hub import CommitOperationAdd, HfApi, get_token
from huggingface_hub.errors import (
    GatedRepoError,
    HfHubHTTPError,
    HFValidationError,
    LocalEntryNotFoundError,
    OfflineModeIsEnabled,
    RemoteEntryNotFoundError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
    XetDownloadError,
)
from huggingface_hub.utils import validate_repo_id  # type: ignore[attr-defined]

from mmpt import __version__
from mmpt.errors import HubError, UserError, causes_of, first_line
from mmpt.inference.model_card import CARD_NAME, may_replace, read_card
from mmpt.utils.log import get_logger

logger = get_logger(__name__)

LOG_IN = "Log in with `hf auth login`, or set HF_TOKEN to a token of huggingface.co/settings/tokens"
NO_TOKEN = (401, 403)
"""HTTP status codes for a token that is missing or wrong, or does not permit the request."""
UNREACHABLE = (LocalEntryNotFoundError, OfflineModeIsEnabled, httpx2.TransportError)
FAILURES = (
    *(OSError, ValueError, RuntimeError, XetDownloadError),
    *(httpx2.HTTPError, httpx2.InvalidURL),
)
"""Exceptions that huggingface_hub raises."""


def download(repo_id: str, revision: str | None, patterns: Sequence[str]) -> Path:
    """Downloads files of a repository, and returns their folder. The name of the folder is the
    commit.

    Files that were downloaded before are not transferred again. Without a network, they are used as
    they are.

    Args:
        repo_id: `user/name`.
        revision: branch, tag or commit. None: the main branch.
        patterns: glob patterns of file names.
    Raises:
        HubError: the files cannot be downloaded.
    """
    where = repo_id if revision is None else f"{repo_id} ({revision})"
    offline = (
        f" Or download it elsewhere (`hf download {repo_id} --local-dir FOLDER`), and load "
        "the folder."
    )
    with _as_hub_error(f"{where}: cannot be downloaded", offline):
        folder = _api().snapshot_download(
            repo_id, revision=revision, allow_patterns=list(patterns)
        )
    return Path(folder)


def check_name(repo_id: str) -> None:
    """Raises HubError if `repo_id` is not a valid `user/name`."""
    problem = f"{repo_id}: cannot be uploaded"
    with _as_hub_error(problem):
        validate_repo_id(repo_id)
    if "/" not in repo_id:
        raise HubError(f"{problem}: the name must be `user/name`.")


def check_token(repo_id: str, token: str | None = None) -> None:
    """Raises HubError if there is no token to upload `repo_id` with."""
    if not (token or get_token()):
        raise HubError(
            f"{repo_id}: cannot be uploaded: there is no token of the Hugging Face Hub. {LOG_IN}."
        )


def upload(
    folder: Path,
    repo_id: str,
    *,
    private: bool,
    overwrite_card: bool,
    token: str | None = None,
) -> str:
    """Uploads all files of a folder in one commit, and returns the address of the commit.

    A model card on the Hub that a user has changed is kept, with a warning.

    Args:
        folder: a folder with a model card.
        repo_id: `user/name`. The repository is created if it is missing.
        private: the repository must be private.
        overwrite_card: replace a card that a user has changed.
        token: access token. None: that of `hf auth login` or HF_TOKEN.
    Raises:
        HubError: the files cannot be uploaded.
    """
    api = _api(token)
    with _as_hub_error(f"{repo_id}: cannot be uploaded"):
        api.create_repo(repo_id, private=private or None, exist_ok=True)
        if private and not api.model_info(repo_id).private:
            raise HubError(
                f"{repo_id}: must be private, but is a public repository already. Make it private "
                "in its settings on the Hub, or choose another name. Nothing was uploaded."
            )
        paths = set(folder.iterdir())
        if not overwrite_card and not _may_replace_card(api, folder, repo_id):
            logger.warning(
                "the %s of %s is kept, because it was edited, or MMPT did not write it. "
                "`overwrite_card` replaces it.",
                CARD_NAME,
                repo_id,
            )
            paths.remove(folder / CARD_NAME)
        additions = [CommitOperationAdd(path.name, path) for path in sorted(paths)]
        message = "Upload a model of MMPT"
        commit = api.create_commit(repo_id, additions, commit_message=message)
    return str(commit.commit_url)


def _may_replace_card(api: HfApi, folder: Path, repo_id: str) -> bool:
    """Returns whether the card of a folder may replace that of a repository, if it has one."""
    try:
        path = api.hf_hub_download(repo_id, CARD_NAME)
    except RemoteEntryNotFoundError:
        return True
    new = read_card(folder / CARD_NAME)
    assert new is not None, "save_pretrained writes a card"
    return may_replace(read_card(Path(path)), new)


def _api(token: str | None = None) -> HfApi:
    """Returns a client of the Hub. With each request it sends the name of this package."""
    return HfApi(token=token, library_name="mmpt", library_version=__version__)


@contextmanager
def _as_hub_error(problem: str, offline: str = "") -> Iterator[None]:
    """Converts errors of huggingface_hub in the block to a HubError that says what to do.

    Args:
        problem: beginning of the message.
        offline: what to do without a network, as a sentence after a space.
    Raises:
        HubError: for any failure of the Hub or of the network.
    """
    try:
        yield
    except UserError:
        raise
    except FAILURES as err:
        raise HubError(f"{problem}: {_explain(err, offline)}") from err


def _explain(error: Exception, offline: str) -> str:
    """Returns the reason of a failure and its remedy, as sentences."""
    # The real error may be a cause: an upload in a thread fails with a RuntimeError, and a download
    # with the error that the file was not downloaded before.
    for cause in causes_of(error):
        if isinstance(cause, HFValidationError):
            return f"the name must be `user/name`. {first_line(cause).rstrip('.')}"
        if isinstance(cause, RevisionNotFoundError):
            return "there is no such revision. Correct it: a branch, a tag or a commit."
        if isinstance(cause, GatedRepoError):
            return f"its owner must allow you to read it. Ask on its page on the Hub. {LOG_IN}."
        if isinstance(cause, RepositoryNotFoundError):
            return (
                "there is no such file, folder or repository on the Hugging Face Hub, or it is "
                f"private and your token may not read it. Correct the name. {LOG_IN}."
            )
        if isinstance(cause, HfHubHTTPError) and cause.response is not None:
            status = cause.response.status_code
            if status in NO_TOKEN:
                return (
                    f"your token is not valid, or may not do this ({status}). {LOG_IN}."
                )
    for cause in causes_of(error):
        if isinstance(cause, UNREACHABLE):
            reason = first_line(cause).rstrip(".")
            return (
                f"the Hugging Face Hub cannot be reached ({reason}). Try again with a network "
                f"connection.{offline}"
            )
    return f"{first_line(error).rstrip('.')}. Try again later."
