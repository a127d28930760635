"""The second push of a file the device has: nothing may be sent.

Timed: Store.put of a file of 200 MB that an earlier connection pushed, on a new connection that is open already.
edgequant does not trust the name: the device hashes the file before it counts as there, which is what the seconds
are.  `again` is a third put on the same connection, which needs no hash.  There is no peer; the bound is on payload:
0 bytes.
"""

from __future__ import annotations

import time

from bench.harness import Result, Settings, median
from bench.material import ssh_server
from bench.push import MEGABYTES, connected, fresh_file, work_folder


def run(settings: Settings) -> list[Result]:
    from edgequant.deadline import Deadline
    from edgequant.devices.store import Store

    megabytes = settings.pairs(MEGABYTES, 50)
    sent: list[float] = []
    seconds: list[float] = []
    again: list[float] = []
    with ssh_server() as server, work_folder(settings) as folder:
        source, sha256 = fresh_file(folder, megabytes)
        with connected(server) as device:
            store = Store(device, str(folder / "store"))
            store.prepare(Deadline(60))
            first = store.put(source, sha256, Deadline(600))
        for _ in range(settings.pairs(7, 2)):
            with connected(server) as device:
                store = Store(device, str(folder / "store"))
                store.prepare(Deadline(60))
                start = time.perf_counter()
                second = store.put(source, sha256, Deadline(600))
                seconds.append(time.perf_counter() - start)
                start = time.perf_counter()
                third = store.put(source, sha256, Deadline(600))
                again.append(time.perf_counter() - start)
                sent.append(float(second.sent + third.sent))
    return [
        Result(
            "second_push bytes",
            sent,
            0,
            unit=" B",
            notes=f"first push sent {first.sent} B",
            detail={"sent": sent},
        ),
        Result(
            "second_push seconds",
            seconds,
            unit=" s",
            notes=f"hash of {megabytes} MB there; again on the same connection {median(again) * 1e3:.2f} ms",
            detail={"seconds": seconds, "again": again},
        ),
    ]
