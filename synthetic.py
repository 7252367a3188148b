"""A small synthetic infrared data set with exact masks, for the demo and the tests.

    python synthetic.py

Sky, cloud, sea and land scenes with sensor noise, column stripes, hot pixels and glints, and 1-4
targets each of 2-80 px, whose local SNR is 1.5 to 10. The same seed gives the same bytes.
"""

if __name__ == "__main__":
    import ismallnet.threads  # noqa: F401  before PyTorch

import argparse
import sys
from pathlib import Path

import cv2
import numpy as np
from skimage.filters import gaussian

from ismallnet.cli import DataError, HelpFormatter, command, gone, positive, progress, summary
from ismallnet.evaluation.metrics import local_snr, ring
from ismallnet.files import atomic_write, read_json, write_json, write_png

SNR_RANGE = (1.5, 10.0)
AREA_RANGE = (2, 80)  # px
CLEARANCE = 13  # px between two targets' masks, and to the border 3
SCENES = ("sky", "cloud", "sea", "land")


def texture(rng: np.random.Generator, side: int, sigmas: tuple[float, ...], slope: float) -> np.ndarray:
    """Correlated noise: one layer of unit variance per scale, weighted by sigma^slope; scaled
    to unit variance in all."""
    total = np.zeros((side, side))
    for sigma in sigmas:
        layer = gaussian(rng.standard_normal((side, side)), sigma, mode="reflect")
        total += layer / layer.std() * sigma**slope
    return (total - total.mean()) / total.std()


def background(rng: np.random.Generator, side: int, scene: str) -> np.ndarray:
    """A scene without targets and sensor, side x side, grey values about 30-180."""
    y, x = np.mgrid[:side, :side] / side
    angle = rng.uniform(0, 2 * np.pi)
    frame = rng.uniform(50, 110) + rng.uniform(0, 40) * (np.cos(angle) * x + np.sin(angle) * y)
    if scene == "sky":
        frame += rng.uniform(2, 8) * texture(rng, side, (4, 12, 30), 1.0)
    elif scene == "cloud":  # bright banks with edges of their own sharpness
        banks = texture(rng, side, (3, 8, 20), 0.9)
        edges = 1 / (1 + np.exp(-(banks - rng.uniform(-0.5, 0.8)) / rng.uniform(0.08, 0.5)))
        frame += rng.uniform(20, 60) * edges + rng.uniform(2, 5) * banks
    elif scene == "sea":  # waves: noise drawn out along the rows
        waves = gaussian(rng.standard_normal((side, side)), (1.2, rng.uniform(3, 6)), mode="reflect")
        frame += rng.uniform(4, 10) * waves / waves.std() + 4 * texture(rng, side, (10, 25), 1.0)
    else:
        frame += rng.uniform(5, 14) * texture(rng, side, (1.5, 4, 10), 0.5)
    if scene in ("sea", "land"):  # a horizon with cool sky above
        height = rng.uniform(0.15, 0.5) + rng.uniform(-0.15, 0.15) * (x - 0.5)
        if scene == "land":
            height = height + 0.03 * np.cumsum(rng.standard_normal(side))[None] / np.sqrt(side)
        beyond = (y - height) * side / rng.uniform(0.5, 2)
        sky = 1 / (1 + np.exp(np.minimum(beyond, 700)))  # exp(710) has no number
        plain = frame.mean() - rng.uniform(15, 40)
        plain = plain + rng.uniform(1, 4) * texture(rng, side, (12, 30), 1.0)
        frame = frame * (1 - sky) + plain * sky
    if scene == "sea":
        for _ in range(rng.poisson(4)):  # glints: short, flat, bright
            row, column = rng.integers(side // 2, side), rng.integers(0, side - 8)
            frame[row, column : column + rng.integers(2, 8)] += rng.uniform(15, 50)
    return frame


def sensor(rng: np.random.Generator, frame: np.ndarray) -> np.ndarray:
    """Adds noise, column stripes and hot pixels."""
    side = len(frame)
    frame = frame + rng.normal(0, rng.uniform(1, 3.5), frame.shape)
    frame += rng.normal(0, rng.uniform(0.3, 2), (1, side))
    hot = rng.integers(0, side, (rng.poisson(4), 2))
    frame[hot[:, 0], hot[:, 1]] += rng.uniform(30, 120, len(hot))
    return frame


def profile(rng: np.random.Generator, side: int) -> tuple[np.ndarray, np.ndarray]:
    """A target's point-spread profile (peak about 1, side x side) and its mask: where the profile
    is above 0.35. Small targets are Gaussian spots, larger ones flatter."""
    area = np.exp(rng.uniform(np.log(2.5), np.log(70)))
    power = rng.uniform(1, 1 + min(area / 40, 1))
    aspect = np.exp(rng.uniform(-0.4, 0.4))
    radius = np.sqrt(area / np.pi) / np.log(1 / 0.35) ** (0.5 / power)
    margin = 3 + radius * 2
    cy, cx = rng.uniform(margin, side - margin, 2)
    turn = rng.uniform(0, np.pi)
    y, x = np.mgrid[:side, :side]
    u = (np.cos(turn) * (x - cx) + np.sin(turn) * (y - cy)) / (radius * aspect)
    v = (np.cos(turn) * (y - cy) - np.sin(turn) * (x - cx)) / (radius / aspect)
    spot = np.exp(-((u**2 + v**2) ** power))
    return spot, spot > 0.35


def scene(seed: int, index: int, side: int) -> tuple[np.ndarray, np.ndarray]:
    """Image and mask number `index` of a seed: both HxW uint8, the mask 0 or 255."""
    rng = np.random.default_rng((seed, index))
    kind = SCENES[rng.integers(len(SCENES))]
    frame = sensor(rng, background(rng, side, kind))
    mask, taken = np.zeros((2, side, side), np.uint8)
    clearance = np.ones(2 * (2 * CLEARANCE + 1,), np.uint8)
    wanted, targets = rng.integers(1, 5), 0
    for _ in range(200):
        if targets == wanted:
            break
        spot, new = profile(rng, side)
        area, pixels = int(new.sum()), new.astype(np.uint8)
        lowest = SNR_RANGE[0] if area >= 12 else 3.0  # 3 px at 1.5 nobody could tell from noise
        snr = rng.uniform(lowest, SNR_RANGE[1])
        whole = cv2.connectedComponents(pixels)[0] == 2
        if not AREA_RANGE[0] <= area <= AREA_RANGE[1] or not whole or (taken[new] > 0).any():
            continue
        around = ring(new)
        gain = spot[new].mean() - spot[around].mean()
        lift = snr * frame[around].std() - (frame[new].mean() - frame[around].mean())
        candidate = frame + max(lift, 0) / gain * spot
        shot = np.rint(candidate.clip(0, 255)).astype(np.uint8)
        unfit = candidate[new].max() > 250 or lift / gain < 4
        if unfit or not SNR_RANGE[0] <= local_snr(shot, new) <= SNR_RANGE[1]:
            continue
        frame, targets = candidate, targets + 1
        mask[new] = 255
        taken |= cv2.dilate(pixels, clearance)
    return np.rint(frame.clip(0, 255)).astype(np.uint8), mask


def make(folder: Path, seed: int, train: int, test: int, side: int) -> None:
    """Writes the data set in DNANet's layout: images/, masks/, 50_50/train.txt, and last test.txt."""
    names = [f"{i:06d}" for i in range(train + test)]
    for i, name in enumerate(progress(names, folder.name, len(names))):
        for kind, pixels in zip(("images", "masks"), scene(seed, i, side)):
            write_png(folder / kind / f"{name}.png", pixels)
    for part, chosen in (("train", names[:train]), ("test", names[train:])):
        with atomic_write(folder / "50_50" / f"{part}.txt") as file:
            file.write("".join(f"{name}\n" for name in chosen).encode())


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=summary(__doc__), formatter_class=HelpFormatter)
    add = parser.add_argument
    add("--data-root", default="data", metavar="DIR", help="where the data sets are")
    add("--train", type=positive, default=240, metavar="N", help="training images")
    add("--test", type=positive, default=100, metavar="N", help="test images")
    add("--size", type=positive, default=128, metavar="PX", help="side of the images, 64 or more")
    add("--seed", type=int, default=0, help="of the images")
    gone(parser, "--name", "type --data-root DIR; the set is DIR/Synthetic-SIRST")
    gone(parser, "--force", "delete the folder of the data set, then type the command again")
    return parser


@command("type the same command to continue")
def main(argv: list[str] | None = None) -> None:
    args = build_parser().parse_args(argv)
    if args.size < 64 or args.seed < 0:
        raise DataError("expected --size of 64 or more, and --seed of 0 or more")
    folder = Path(args.data_root) / "Synthetic-SIRST"
    settings = {key: getattr(args, key) for key in ("seed", "train", "test", "size")}
    record, last = folder / "synthetic.json", folder / "50_50" / "test.txt"
    found = read_json(record)
    if found != settings and folder.exists() and any(folder.iterdir()):
        raise DataError(
            f"{folder}: found {found or 'files that this program did not make'}, expected {settings}; "
            "delete it, or type another --data-root"
        )
    if last.exists():
        print(f"{folder}: is there already, seed {args.seed}")
        return
    write_json(record, settings)
    make(folder, args.seed, args.train, args.test, args.size)
    print(f"{folder}: {args.train} training and {args.test} test images, seed {args.seed}")


if __name__ == "__main__":
    sys.exit(main())
