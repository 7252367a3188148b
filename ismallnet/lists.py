"""The lists of training and test images of a data set: where they are, and what a list file says."""

from pathlib import Path

from ismallnet.cli import DataError

LIST_FOLDERS = ("50_50", "img_idx", ".", "80_20", "idx_427", "idx_320", "splits")


def find_lists(root: Path, name: str, split: list[str] | None) -> dict[str, Path] | None:
    """{"train": file, "test": file} of the split asked for or the one that wins; None: no list."""
    if split is not None and len(split) == 2:
        places = [[Path(s)] if ".." in Path(s).parts else [root / s, Path(s)] for s in split]
        files = [next((p for p in paths if p.is_file()), None) for paths in places]
        if missing := [s for s, file in zip(split, files) if file is None]:
            raise DataError(f"{root}: found no split file {', '.join(missing)}; expected text files")
        return dict(zip(("train", "test"), files))
    if split is not None and any(p.is_file() for p in (root / split[0], Path(split[0]))):
        raise DataError(
            f"{split[0]}: one list, expected a training and a test list: --split TRAIN.txt TEST.txt"
        )
    if split is not None:
        lists = lists_in(root / split[0], name) or lists_in(Path(split[0]), name)
        if not lists:
            folders = sorted({str(p.parent.relative_to(root)) for p in root.glob("**/*.txt")})
            raise DataError(
                f"{root / split[0]}: found no lists there; expected {{train,trainval,test}}.txt. "
                f"This data set has lists in: {', '.join(folders) or 'no folder'}"
            )
        return lists
    if (root / "train.txt").is_file() and (root / "test.txt").is_file():
        return lists_in(root, name)
    candidates = [lists for f in LIST_FOLDERS if (lists := lists_in(root / f, name))]
    return next((c for c in candidates if len(c) == 2), candidates[0] if candidates else None)


def lists_in(folder: Path, name: str) -> dict[str, Path]:
    """The lists in one folder; `trainval` is taken before `train`."""
    others = [p.stem.removeprefix("test") for p in sorted(folder.glob("test_*.txt"))]
    endings = ["", f"_{name}", "_full", "_v1", *(others if len(others) == 1 else [])]
    best: dict[str, Path] = {}
    for ending in endings:
        stems = {"train": (f"trainval{ending}", f"train{ending}"), "test": (f"test{ending}",)}
        files = {k: [p for s in v if (p := folder / f"{s}.txt").is_file()] for k, v in stems.items()}
        lists = {k: v[0] for k, v in files.items() if v}
        if len(lists) > len(best):
            best = lists
    return best


def read_list(path: Path) -> list[str]:
    """The entries of a list file: blank lines, CRLF and byte-order marks do not count."""
    raw = path.read_bytes()
    utf16 = raw[:2] in (b"\xff\xfe", b"\xfe\xff")
    try:
        text = raw.decode("utf-16" if utf16 else "utf-8-sig")
    except UnicodeDecodeError as error:
        raise DataError(
            f"{path}: not a text file ({error.reason}); expected one name a line"
        ) from error
    return [line.strip() for line in text.split("\n") if line.strip()]
