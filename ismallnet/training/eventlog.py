"""TensorBoard events of a run, each on its way to the disk as soon as it is added.

tensorboardX's own SummaryWriter hands them to a thread, and what waits there is lost when a run is
killed, though the checkpoint that came after it stays.
"""

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
