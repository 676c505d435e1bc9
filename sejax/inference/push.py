"""Uploads a folder to the Hugging Face hub."""

from functools import partial
from pathlib import Path

from sejax.errors import InputError
from sejax.host.wording import one_line
from sejax.inference.portable.inputs import DESCRIPTION
from sejax.pretrained.hub import read_json, without_warnings
from sejax.workdir import trained

_words = partial(one_line, most=300)


def push_folder(folder: Path, repository: str, *, private: bool, revision: str = "main") -> str:
    """Uploads a bundle, or a portable model, in one commit, and returns what was done, in a sentence.

    Args:
      folder: its files are uploaded, those in folders of it too; files of the repository that it lacks are deleted.
      repository: "owner/name"; it is made if it is not there.
      private: whether a new repository is private; one that is there stays as it is.
      revision: the branch, which is made if it is not there.

    Raises:
      InputError: the folder is no model, there is no token, the hub refuses it, or it cannot be reached.
    """
    if not (folder / DESCRIPTION).is_file() and read_json(folder / trained.CONFIG).get("format") != trained.FORMAT:
        raise InputError(f"{folder}: is no bundle, expected what python -m sejax.export writes")
    with without_warnings():
        from huggingface_hub import HfApi, get_token
        from huggingface_hub.errors import HfHubHTTPError, HFValidationError
        from huggingface_hub.utils import disable_progress_bars

        if get_token() is None:
            raise InputError(
                "--push needs a token of the Hugging Face hub that may write, expected one: hf auth login, or the "
                "variable HF_TOKEN"
            )
        disable_progress_bars()
        api = HfApi()
        try:
            made = api.create_repo(repository, private=private, exist_ok=True)
            if revision != "main":
                api.create_branch(made.repo_id, branch=revision, exist_ok=True)
            commit = api.upload_folder(
                folder_path=folder,
                repo_id=made.repo_id,
                revision=revision,
                commit_message=f"Upload {folder.resolve().name} with sejax",
                delete_patterns="*",
            )
        except HFValidationError as error:
            raise InputError(f"--push {repository!r} is no hub id ({_words(error)}), expected OWNER/NAME") from error
        except HfHubHTTPError as error:
            raise InputError(
                f"--push {repository}: the hub refuses it ({_words(error)}), expected a repository to which the token "
                "may write"
            ) from error
        except Exception as error:  # of the HTTP library, which depends on the hub's version, or of the disk
            raise InputError(
                f"--push {repository}: the hub cannot be reached ({_words(error)}), expected a network; {folder} is "
                "complete, and --model with it uploads it later"
            ) from error
    return f"{made.repo_id}: uploaded as {commit.oid} of {revision}"
