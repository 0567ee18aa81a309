"""Hub repositories: what of one is fetched, at which commit, and what to say when it cannot be.

Two steps, so that what a repository says of itself is looked at before gigabytes move. Only files
that hold text and safetensors are ever asked for: no pickle and no code reaches the disk.
"""

from __future__ import annotations

from pathlib import Path

from geomkit.errors import CheckpointError

DESCRIPTION = ("*.json", "*.txt", "*.model", "*.jinja", "*.tiktoken")
LONGEST = 160  # characters that are kept of an error of the hub's client


def description(repo: str, revision: str | None) -> Path:
    """The cache folder of the commit that `revision` is now, with everything but the weights.

    Its name is the commit.

    Raises:
        CheckpointError: there is no such repository or revision, or it cannot be reached.
    """
    return _snapshot(repo, revision, DESCRIPTION)


def weights(repo: str, commit: str, files: tuple[str, ...]) -> None:
    """Fetch the weight files of one commit into its folder in the cache.

    Raises:
        CheckpointError: the repository does not have them, or it cannot be reached.
    """
    folder = _snapshot(repo, commit, files)
    missing = [name for name in files if not (folder / name).is_file()]
    if missing:
        raise CheckpointError(
            f"Expected {missing[0]} in {repo} at {commit[:12]}, found none (only safetensors are"
            " read: convert other weights with save_pretrained; run once online to complete a"
            " cached copy)."
        )


def everything(repo: str, commit: str) -> Path:
    """The folder of one commit with all its files, to be copied; nothing here opens them.

    Raises:
        CheckpointError: it cannot be reached.
    """
    return _snapshot(repo, commit, ("*",))


def _snapshot(repo: str, revision: str | None, patterns: tuple[str, ...]) -> Path:
    from huggingface_hub import snapshot_download  # the client, which no help needs

    try:
        return Path(snapshot_download(repo, revision=revision, allow_patterns=list(patterns)))
    except Exception as cause:  # whatever its transport raises
        if partly := getattr(cause, "snapshot_path", None):
            return Path(partly)  # offline and not all is cached: what is needed may well be
        shown = f"{repo}@{revision}" if revision else repo
        raise CheckpointError(
            f"Expected a repository of the hub at '{shown}', {_reason(cause, revision)}."
        ) from cause


def _reason(cause: Exception, revision: str | None) -> str:
    from huggingface_hub import constants, errors

    if isinstance(cause, errors.GatedRepoError):
        return "got one that is gated: accept its terms on its page and log in (hf auth login)"
    if isinstance(cause, errors.RepositoryNotFoundError):
        return "found none, nor a folder here: check the spelling, or log in if it is private"
    if isinstance(cause, errors.RevisionNotFoundError):
        return f"which has no revision '{revision}': name a branch, a tag or a commit"
    if isinstance(cause, errors.LocalEntryNotFoundError):
        why = "HF_HUB_OFFLINE is set" if constants.HF_HUB_OFFLINE else "the hub cannot be reached"
        return f"found neither a folder of that name nor a cached copy, and {why}"
    first = next(iter(str(cause).splitlines()), "")
    return f"the hub's client says: {type(cause).__name__}: {first[:LONGEST]}".rstrip(".: ")
