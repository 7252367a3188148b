"""TensorBoard events of a run, each on its way to the disk as soon as it is added; and reading them.

tensorboardX's own SummaryWriter hands them to a thread, and what waits there is lost when a run is
killed, though the checkpoint that came after it stays.
"""

import re
import time
from pathlib import Path

import numpy as np
from tensorboardX import proto, summary
from tensorboardX.event_file_writer import EventsWriter


class EventLog:
    """A new event file in a run's folder; TensorBoard shows it in place of all that earlier files hold
    from `step` on.

    Args:
        folder: of the run.
        step: the first step that it will log.
    """

    def __init__(self, folder: Path, step: int):
        self.writer = EventsWriter(str(folder / "events"), f".{step}")  # two of one second are two
        start = proto.event_pb2.SessionLog(status=proto.event_pb2.SessionLog.START)
        self.write(step, session_log=start)

    def write(self, step: int, **content) -> None:
        event = proto.event_pb2.Event(wall_time=time.time(), step=step, **content)
        self.writer.write_event(event)

    def scalar(self, name: str, value: float, step: int) -> None:
        self.write(step, summary=summary.scalar(name, value))

    def image(self, name: str, pixels: np.ndarray, step: int) -> None:
        """HxWx3 uint8."""
        self.write(step, summary=summary.image(name, pixels, dataformats="HWC"))

    def flush(self) -> None:
        """Waits until the disk has all of it."""
        self.writer.flush()

    def close(self) -> None:
        self.writer.close()


def begun(path: Path) -> tuple[int, int]:
    """When a file of events was begun: by its name, in seconds, as copies have other times; then by its
    own time."""
    number = re.search(r"tfevents\.(\d+)", path.name)
    return int(number[1]) if number else 0, path.stat().st_mtime_ns


def read_scalar(folder: Path | str, name: str) -> list[tuple[int, float]]:
    """(step, value) of a scalar in a run's folder, as TensorBoard shows them: a file takes the place of
    all that earlier ones hold from its first step on."""
    values = []
    for path in sorted(Path(folder).glob("events*"), key=begun):
        raw = memoryview(path.read_bytes())
        while raw:  # records: 8 bytes length, 4 checksum, the event, 4 checksum
            size = int.from_bytes(raw[:8], "little")
            if len(raw) < 16 + size:  # cut off by a kill: TensorBoard, too, leaves the file there
                break
            event = proto.event_pb2.Event.FromString(raw[12 : 12 + size])
            raw = raw[16 + size :]
            if event.session_log.status == proto.event_pb2.SessionLog.START:
                values = [(step, value) for step, value in values if step < event.step]
            values += [(event.step, v.simple_value) for v in event.summary.value if v.tag == name]
    return values
