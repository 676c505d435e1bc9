"""EmoDB with few utterances of some classes: every fourth of disgust, fear, happiness and sadness.

python -m experiments.imbalance.thin emodb.zip thin
"""

import argparse
import zipfile
from pathlib import Path

RARE = "EAFT"  # the letters of disgust, fear, happiness and sadness in EmoDB's file names
EVERY = 4


def thin(archive: str, folder: Path) -> int:
    """Unpacks the archive's wav files without most of the rare classes, and returns how many it has written."""
    folder.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(archive) as files:
        names = sorted(name for name in files.namelist() if name.endswith(".wav"))
        letter = {name: Path(name).name[5] for name in names}
        kept = [name for name in names if letter[name] not in RARE]
        for rare in RARE:
            kept += [name for name in names if letter[name] == rare][::EVERY]
        for name in kept:
            (folder / Path(name).name).write_bytes(files.read(name))
    return len(kept)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("archive", help="emodb.zip")
    parser.add_argument("folder", type=Path, help="where the wav files are written")
    arguments = parser.parse_args()
    print(f"{thin(arguments.archive, arguments.folder)} utterances in {arguments.folder}")


if __name__ == "__main__":
    main()
