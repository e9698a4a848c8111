"""Put a flat folder of ImageNet images, named WNID_CLASS.JPEG, into class folders that nayer takes as --eval-data.

python benchmarks/imagenet_sample.py FOLDER OUT        # FOLDER: a checkout of imagenet-sample-images, one image a class
"""

import argparse
import shutil
from pathlib import Path


def arrange(source: Path, out: Path) -> int:
    """Copy each picture to OUT/WNID/; return how many there are. Order of WNIDs is that of ImageNet's classes."""
    pictures = sorted(source.glob("n????????_*.JPEG"))
    for picture in pictures:
        folder = out / picture.name.split("_")[0]
        folder.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(picture, folder / picture.name)
    return len(pictures)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("source", type=Path)
    parser.add_argument("out", type=Path)
    args = parser.parse_args()
    print(f"{arrange(args.source, args.out)} images in {args.out}")


if __name__ == "__main__":
    main()
