r"""Writes a checkpoint's model.safetensors from its pytorch_model.bin, which only PyTorch can read.

    python tools/convert_checkpoint.py FOLDER

FOLDER holds pytorch_model.bin, or pytorch_model.bin.index.json and its shards. All tensors are written to one file,
with their names and types unchanged.

FOLDER may also be an emotion2vec model of FunASR: config.yaml, one file .pt, and tokens.txt if it has a head. Its
tensors get the names that sejax reads, and config.json and preprocessor_config.json are written beside them.

It needs PyTorch, which is best installed in a separate environment:

    python3 -m venv /tmp/convert
    /tmp/convert/bin/pip install torch --index-url https://download.pytorch.org/whl/cpu
    /tmp/convert/bin/pip install safetensors numpy pyyaml
    /tmp/convert/bin/python tools/convert_checkpoint.py FOLDER

Pickle files can run code when they are read. This tool reads tensors only (`torch.load(weights_only=True)`) and refuses
any other file.
"""

import argparse
import json
import re
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent.parent))

from sejax.host.magic import FIRST_BYTES, describe_contents
from tools import emotion2vec_layout

BIN = "pytorch_model.bin"
INDEX = f"{BIN}.index.json"
SAFETENSORS = "model.safetensors"
NO_TORCH = (
    "{error}: converting needs PyTorch and safetensors. Install them, best in an environment of their own, with\n"
    "pip install torch --index-url https://download.pytorch.org/whl/cpu\npip install safetensors numpy"
)


def parts(folder: Path) -> tuple[list[Path], set[str] | None]:
    """Returns the pickle files of a checkpoint and the tensor names in its index (None without an index).

    Raises:
      SystemExit: no such folder, no checkpoint in it, a malformed index, or a missing shard.
    """
    if not folder.is_dir():
        raise SystemExit(f"{folder} is not a folder, expected the one that holds {BIN} or {INDEX}")
    if (folder / BIN).is_file():
        return [folder / BIN], None
    if (folder / emotion2vec_layout.CONFIG).is_file():
        pickles = sorted(folder.glob("*.pt"))
        if len(pickles) != 1:
            names = ", ".join(path.name for path in pickles) or "none"
            raise SystemExit(f"{folder} holds {names} beside {emotion2vec_layout.CONFIG}, expected one file .pt")
        return pickles, None
    index = folder / INDEX
    if not index.is_file():
        names = ", ".join(sorted(path.name for path in folder.iterdir())) or "nothing"
        raise SystemExit(f"{folder} holds {names}, expected {BIN} or {INDEX}")
    try:
        files: dict[str, str] = json.loads(index.read_text())["weight_map"]
        shards = [folder / file for file in sorted(set(files.values()))]
    except (ValueError, LookupError, TypeError, AttributeError) as error:
        raise SystemExit(f"{index} has no weight_map of tensor names to files ({error!r}), expected one") from None
    missing = [shard.name for shard in shards if not shard.is_file()]
    if missing:
        raise SystemExit(f"{index} names {', '.join(missing)}, expected beside it, in {folder}")
    return shards, set(files)


def check_contents(path: Path) -> None:
    """Refuses a file that is no pickle by its first bytes, such as a git-lfs pointer or a web page.

    Raises:
      SystemExit: it is something else, or cannot be opened.
    """
    try:
        with path.open("rb") as file:
            contents = describe_contents(file.read(FIRST_BYTES))
    except OSError as error:
        raise SystemExit(f"{path} cannot be opened ({error.strerror}), expected a PyTorch file") from None
    if contents and not contents.startswith(("a zip archive", "a pickle")):
        raise SystemExit(f"{path} is {contents}, expected a PyTorch file")


def read(path: Path, wrappers: Sequence[str] = ()) -> dict[str, Any]:
    """Reads the tensors of one pickle file, on the CPU; they may be under one of the names `wrappers`.

    Raises:
      SystemExit: the file holds more than tensors, is damaged, or is not a state dict.
    """
    import torch

    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # a damaged pickle can fail in any way
        wanted = re.search(r"\bGLOBAL (\S+)", str(error))
        if wanted:
            raise SystemExit(
                f"{path} holds more than tensors, which could run code when read ({wanted[1]}): it is refused. "
                "Expected a state dict, as torch.save(model.state_dict()) writes it."
            ) from None
        raise SystemExit(
            f"{path} cannot be read ({type(error).__name__}), expected a whole PyTorch file: it is damaged, or of "
            "something else"
        ) from None
    if not isinstance(state, dict):
        raise SystemExit(f"{path} holds a {type(state).__name__}, expected a state dict: tensors by their names")
    for name in wrappers:
        state = state[name] if isinstance(state.get(name), dict) else state
    others = [
        f"{name!r} is a {type(value).__name__}" for name, value in state.items() if not isinstance(value, torch.Tensor)
    ]
    if others or not state:
        raise SystemExit(
            f"{path}: {', '.join(others[:3]) or 'it is empty'}, expected a state dict: tensors by their names"
        )
    return {str(name): tensor.detach() for name, tensor in state.items()}


def convert(folder: Path, out: Path, *, force: bool) -> int:
    """Writes the checkpoint of `folder` to the file `out` and returns the number of tensors.

    The file appears whole or not at all.

    Raises:
      SystemExit: `out` exists and `force` is not set, is a folder or cannot be written; PyTorch is missing; tensors
        that the index names are not in the shards; or what `parts`, `check_contents` and `read` refuse.
    """
    paths, promised = parts(folder)
    conf = None if paths[0].name == BIN or promised is not None else emotion2vec_layout.read_model(folder)
    if out.is_dir():
        raise SystemExit(f"{out} is a folder, expected the name of the file to write, such as {out / SAFETENSORS}")
    if out.exists() and not force:
        raise SystemExit(f"{out} exists already, expected a new file, or --force to replace it")
    for path in paths:
        check_contents(path)
    try:
        import torch  # noqa: F401
        from safetensors import SafetensorError
        from safetensors.torch import save_file
    except ImportError as error:
        raise SystemExit(NO_TORCH.format(error=error)) from None
    tensors: dict[str, Any] = {}
    for path in paths:
        tensors |= read(path, emotion2vec_layout.WRAPPERS if conf is not None else ())
    if promised is not None and promised - set(tensors):
        lacking = sorted(promised - set(tensors))
        raise SystemExit(
            f"The shards in {folder} lack {', '.join(lacking[:3])} ({len(lacking)} in all), expected every tensor that "
            f"{INDEX} names"
        )
    if conf is not None:
        tensors, others = emotion2vec_layout.rename(tensors, conf)
        if others:
            print(f"left out, of no use here: {', '.join(others[:3])} ({len(others)} in all)")
    storages = set()
    for name, tensor in tensors.items():
        whole = tensor.contiguous()
        # The format has no tensors that share memory.
        if whole.untyped_storage().data_ptr() in storages:
            whole = whole.clone()
        storages.add(whole.untyped_storage().data_ptr())
        tensors[name] = whole
    out.parent.mkdir(parents=True, exist_ok=True)
    partial = out.with_name(f"{out.name}.partial")
    try:
        save_file(tensors, partial, metadata={"format": "pt"})
        shutil.copymode(paths[0], partial)  # safetensors makes it readable for its owner alone
        if conf is not None:
            described = emotion2vec_layout.describe(conf, emotion2vec_layout.read_labels(folder))
            for name, content in zip(("config.json", "preprocessor_config.json"), described, strict=True):
                (out.parent / name).write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n")
        partial.replace(out)
    except (OSError, SafetensorError) as error:  # a full disk
        raise SystemExit(f"{out} cannot be written ({error}), expected room for it") from None
    finally:
        partial.unlink(missing_ok=True)
    return len(tensors)


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help=f"the folder of {BIN}")
    parser.add_argument("--out", type=Path, help=f"the file to write (default: {SAFETENSORS} in that folder)")
    parser.add_argument("--force", action="store_true", help="replace a file that is there")
    options = parser.parse_args(arguments)
    out: Path = options.out or options.folder / SAFETENSORS
    count = convert(options.folder, out, force=options.force)
    print(f"{out}: {count} tensors, {out.stat().st_size / 1e6:.1f} MB")


if __name__ == "__main__":
    main()
