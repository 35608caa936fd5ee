"""What the other processes of the lease's tests do."""

from __future__ import annotations

import time
from multiprocessing.connection import Connection

from nasattn.latency import DeviceLease


def obey(pipe: Connection, folder: str) -> None:
    """Take and leave the device as told: `turn` or `alone` enters and says so, `leave` leaves and says so.

    `loop` takes turns without a pause until the next order; `measure` enters alone, leaves at once and says so.
    """
    lease = DeviceLease("cpu", folder)
    pipe.send("ready")
    while True:
        order = pipe.recv()
        if order == "loop":
            pipe.send(order)
            while not pipe.poll():
                with lease.turn():
                    time.sleep(0.002)
        elif order == "measure":
            with lease.alone():
                pass
            pipe.send(order)
        else:
            with getattr(lease, order)():
                pipe.send(order)
                assert pipe.recv() == "leave"
            pipe.send("left")
