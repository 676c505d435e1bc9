"""Splits that names of folders and files tell, by the rules of Hugging Face's `datasets` (repository_structure.mdx)."""

import re
from collections.abc import Mapping, Sequence

from sejax.corpora.schema import is_split
from sejax.corpora.spelling import show
from sejax.errors import InputError
from sejax.host.wording import count

WORDS = {
    **dict.fromkeys(("train", "training"), "train"),
    **dict.fromkeys(("validation", "valid", "val", "dev"), "val"),
    **dict.fromkeys(("test", "testing", "eval", "evaluation"), "test"),
}
"""The words for a split, and the split."""

_BETWEEN = r"[-._ 0-9]"  # what may stand beside a word in a name
_WORD = re.compile(rf"(?:^|(?<={_BETWEEN}))({'|'.join(sorted(WORDS, key=len, reverse=True))})(?=$|{_BETWEEN})")


def splits_by_name(paths: Sequence[str]) -> tuple[dict[str, str], str | None]:
    """Returns the split of each file, and a note; no splits where the names do not tell those of all files.

    A word for a split in the name of a folder counts, and where no folder has one, a word in the name of a file. As
    with the library, words stand between points, hyphens, underscores, blanks and digits, and capitals matter. Unlike
    there, files without a word are never left out because others have one, and files of one split have none.

    Args:
      paths: of the files, relative to the folder of the corpus, with `/`.

    Raises:
      InputError: a path has words for two splits.
    """
    for named in (lambda path: path.split("/")[:-1], lambda path: path.split("/")[-1:]):
        found = {path: _split_of(path, named(path)) for path in paths}
        if any(found.values()):
            return _all_or_none({path: split for path, split in found.items() if split}, paths)
    return {}, None


def name_splits(names: Sequence[str]) -> dict[str, str]:
    """Returns the split that each of the corpus's own names means; several tests are numbered in their order.

    `train`, `val`, `test1` and the like stay; names with a word for a split in them, such as `test-clean`, mean it.
    Names without one are left out.
    """
    meant = {name: name if is_split(name) else _split_of(name, [name]) for name in dict.fromkeys(names)}
    tests = [name for name, split in meant.items() if split and split.startswith("test")]
    if list(meant.values()).count("test") > 1:
        meant |= {name: f"test{number}" for number, name in enumerate(tests, start=1)}
    return {name: split for name, split in meant.items() if split}


def _split_of(path: str, names: Sequence[str]) -> str | None:
    words = {WORDS[word]: word for name in names for word in _WORD.findall(name)}
    if len(words) > 1:
        raise InputError(f"{path} has words for several splits in it ({', '.join(words.values())}), expected one")
    return next(iter(words), None)


def _all_or_none(found: Mapping[str, str], paths: Sequence[str]) -> tuple[dict[str, str], str | None]:
    if len(found) == len(paths):
        return (dict(found), None) if len(set(found.values())) > 1 else ({}, None)
    first = next(iter(found))
    other = next(path for path in paths if path not in found)
    note = (
        f"{count(len(found), 'file')} of {len(paths):,} have the word of a split in their names (such as "
        f"{show(first)}) and the others have none (such as {show(other)}): no splits are taken from names"
    )
    return {}, note
