"""Disturbances: kinds and parameters, each with the name that it has to get."""

from __future__ import annotations

import functools
import itertools
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from edgequant.archive.timing import PhoneCapture, Readied
from edgequant.lab.phone import parse
from tests.disturbances.world import Death, World

Change = Callable[[World], object]


@dataclass(frozen=True)
class Planted:
    """code: what it has to be called."""

    kind: str
    name: str
    code: str
    plant: Change


def planted() -> list[Planted]:
    """All of them."""
    found = [
        Planted(kind, f"{kind}: {words}", code, plant) for kind, code, variants in _kinds() for words, plant in variants
    ]
    assert len({each.name for each in found}) == len(found)
    return found


def _set(**fields: object) -> Change:
    def change(world: World) -> None:
        for name, value in fields.items():
            setattr(world, name, value)

    return change


def _later(seconds: float, change: Change) -> Change:
    return lambda world: world.at(seconds, functools.partial(change, world))


def _file(path: str, text: str) -> Change:
    return lambda world: world.tree.write(path, text)


def _each(name: str, text: str) -> Change:
    return lambda world: world.tree.each(name, text)


def _all(*changes: Change) -> Change:
    return lambda world: [change(world) for change in changes]


def _supply(**files: object) -> Change:
    return lambda world: world.tree.supply("battery", type="Battery", **files)


def _phone(power: str, setting: str = "0", battery: str = "") -> Change:
    return _set(readied=Readied(phone=parse(f"{power}\n===\n{setting}\n===\n{battery}")))


def _death() -> None:
    raise Death


def _kinds() -> Iterator[tuple[str, str, list[tuple[str, Change]]]]:
    yield "busy programs", "OTHERS_RUNNING", [
        (f"{others} CPUs beside {threads} thread(s)", _set(others=others, threads=threads))
        for others, threads in itertools.product((0.15, 0.3, 0.5, 0.9), (1, 2))
    ] + [
        ("1 CPU from the middle on", _later(0.5, _set(others=1.0))),
        ("0.5 CPUs at its begin", _all(_set(others=0.5), _later(0.5, _set(others=0.0)))),
    ]  # fmt: skip
    yield (
        "stolen time",
        "CPU_STOLEN",
        [
            (f"{stolen} CPUs {words}", plant(_set(stolen=stolen)))
            for stolen in (0.15, 0.3, 0.9)
            for words, plant in (("throughout", lambda change: change), ("later", functools.partial(_later, 0.4)))
        ],
    )
    yield (
        "pressure",
        "CPU_CONTENDED",
        [(f"{share:.0%} of the time", _set(waiting=share)) for share in (0.15, 0.3, 0.6, 0.95)],
    )
    own = _file("proc/self/cgroup", "0::/user.slice/app.scope\n4:cpu,cpuacct:/box")
    yield "quota", "CPU_QUOTA", [
        (f"{times} times, {path}",
         _all(own, _file(path, "nr_periods 9\nnr_throttled 2"), _later(0.3, _file(path, f"nr_throttled {2 + times}"))))
        for times in (1, 5, 40)
        for path in ("sys/fs/cgroup/cpu.stat", "sys/fs/cgroup/user.slice/cpu.stat", "sys/fs/cgroup/cpu/box/cpu.stat")
    ]  # fmt: skip
    yield (
        "swap",
        "SWAPPING",
        [(f"{pages} pages", _later(0.3, _file("proc/vmstat", f"pswpin {17 + pages}"))) for pages in (1, 60, 9000)],
    )
    yield (
        "memory",
        "MEMORY_SHORT",
        [(f"{mb} MB", _later(0.2, _file("proc/meminfo", f"MemAvailable: {mb * 1000} kB"))) for mb in (90, 40, 3)],
    )
    yield (
        "governor",
        "GOVERNOR_SLOW",
        [(name, _each("cpufreq/scaling_governor", name)) for name in ("powersave", "conservative")]
        + [("powersave on one CPU", _file("sys/devices/system/cpu/cpu1/cpufreq/scaling_governor", "powersave"))],
    )
    yield (
        "governor set by others",
        "GOVERNOR_CHANGED",
        [
            (f"{name} after {when} s", _later(when, _each("cpufreq/scaling_governor", name)))
            for name, when in (("performance", 0.2), ("ondemand", 0.5), ("userspace", 0.9))
        ],
    )
    yield "battery", "BATTERY_LOW", [
        (f"{level} %, {status}", _supply(capacity=level, status=status))
        for level, status in ((19, "Discharging"), (10, "Not charging"), (1, "Discharging"))
    ] + [
        (f"{level} % by dumpsys", _phone("mWakefulness=Awake", battery=f"  level: {level}\n  status: 3"))
        for level in (18, 4)
    ]  # fmt: skip
    yield (
        "phone",
        "POWER_SAVE",
        [
            ("by its service", _phone("mWakefulness=Awake\n mBatterySaverEnabled=true")),
            ("by its setting", _phone("mWakefulness=Awake", "1")),
        ],
    )
    yield "screen", "SCREEN_OFF", [
        (word, _phone(f"mWakefulness={word}")) for word in ("Asleep", "Dozing", "Dreaming")
    ] + [("by its display", _phone("Display Power: state=OFF"))]  # fmt: skip
    yield (
        "never cool",
        "TOO_HOT",
        [
            (f"{at:g} degrees", _set(readied=Readied(cool_below=45, waited=300, by="thermometer", cooled=False, at=at)))
            for at in (45.5, 60.0)
        ]
        + [("by known work", _set(readied=Readied(cool_below=45, waited=300, by="work", cooled=False)))],
    )
    yield (
        "frequency",
        "FREQUENCY_FELL",
        [
            (f"{name} to {1 - drop:.0%}", _later(0.4, _each(f"cpufreq/{name}", str(round(1_800_000 * (1 - drop))))))
            for name, drop in itertools.product(("scaling_cur_freq", "scaling_max_freq"), (0.06, 0.1, 0.3, 0.6))
        ],
    )
    yield (
        "heat",
        "THROTTLED",
        [
            (f"speed {speed} {words}", plant(_set(speed=speed)))
            for speed in (0.88, 0.7, 0.4)
            for words, plant in (("throughout", lambda change: change), ("later", functools.partial(_later, 0.6)))
        ],
    )
    device = "sys/class/thermal/cooling_device0/"
    yield "cooled by the kernel", "THROTTLED", [
        (kind, _all(_file(device + "type", kind), _file(device + "cur_state", "0"),
                    _later(0.2, _file(device + "cur_state", "2"))))
        for kind in ("Processor", "thermal-cpufreq-0", "cpufreq-cpu0")
    ] + [
        (f"firmware says {word}", _file("sys/devices/platform/soc/soc:firmware/get_throttled", word))
        for word in ("4", "50001", "80008")
    ] + [("x86 counts it", _all(_each("thermal_throttle/core_throttle_count", "5"),
                                _later(0.5, _each("thermal_throttle/core_throttle_count", "6"))))]  # fmt: skip
    yield (
        "memory bandwidth",
        "SLOWS_DOWN",
        [(f"{share:g} of it", _later(0.55, _set(bandwidth=share))) for share in (0.8, 0.6, 0.4)],
    )
    yield "held up", "STALLED", [
        (f"{count} x {ms} ms", _set(pauses=[float(ms)] * count))
        for ms, count in itertools.product((120, 700, 4000), (1, 4))
    ]  # fmt: skip
    yield (
        "calendar",
        "CLOCK_JUMPED",
        [
            (f"set by {seconds:g} s", _later(0.5, _set(calendar=seconds)))
            for seconds in (0.2, -0.2, 1, -5, 3600, -86400)
        ],
    )
    yield (
        "boot clock",
        "CLOCK_JUMPED",
        [(f"back by {seconds:g} s", _later(0.5, _set(boot=-seconds))) for seconds in (3.0, 900.0)],
    )
    yield "clock's speed", "CLOCK_ODD", [(f"{clock:g} times", _set(clock=clock)) for clock in (0.25, 0.5, 1.5, 3.0)]
    yield "in passing", "FREQUENCY_FELL", [
        (f"{name} to {1 - drop:.0%} and back", _all(
            _later(0.32, _each(f"cpufreq/{name}", str(round(1_800_000 * (1 - drop))))),
            _later(0.95, _each(f"cpufreq/{name}", "1800000"))))
        for name, drop in itertools.product(("scaling_cur_freq", "scaling_max_freq"), (0.15, 0.4, 0.7))
    ]  # fmt: skip
    yield (
        "a policy's cap",
        "FREQUENCY_CAPPED",
        [(f"at {share:.0%}", _each("cpufreq/scaling_max_freq", str(round(1_800_000 * share)))) for share in (0.9, 0.5)]
        + [
            (f"throttled from the begin, speed {speed}",
             _all(_each("cpufreq/scaling_max_freq", str(round(1_800_000 * speed))), _set(speed=speed, fastest=None)))
            for speed in (0.8, 0.4)
        ],
    )  # fmt: skip
    yield (
        "userspace governor",
        "GOVERNOR_SLOW",
        [
            (f"at {mhz} MHz", _all(_each("cpufreq/scaling_governor", "userspace"),
                                   _each("cpufreq/scaling_cur_freq", str(1000 * mhz)), _set(fastest=None)))
            for mhz in (600, 1600)
        ],
    )  # fmt: skip
    yield (
        "cores",
        "CPUS_CHANGED",
        [
            (f"{words} after {when} s", _later(when, _set(cpus=cpus)))
            for words, cpus in (("one goes offline", [0]), ("its cpuset shrinks", [1]))
            for when in (0.1, 0.8)
        ]
        + [("one goes and another busy", _all(_set(others=0.6), _later(0.5, _set(cpus=[0])))),
           ("one comes", _all(_set(cpus=[0]), _later(0.5, _set(cpus=[0, 1]))))],
    )  # fmt: skip
    yield (
        "another cgroup",
        "CPU_QUOTA",
        [
            (f"held back {times} times in it", _all(
                own, _file("sys/fs/cgroup/user.slice/cpu.stat", "nr_throttled 900"),
                _later(0.3, _all(_file("proc/self/cgroup", "0::/small"),
                                 _file("sys/fs/cgroup/small/cpu.stat", f"nr_throttled {times}")))))
            for times in (0, 40)
        ],
    )  # fmt: skip
    yield "clock's steps", "CLOCK_ODD", [
        (f"{1000 * tick:g} ms", _set(tick=tick)) for tick in (0.0005, 0.001, 0.004)
    ] + [
        (f"{1000 * tick:g} ms, a noisy model", _set(tick=tick, noise=0.3)) for tick in (0.0005, 0.001)
    ]  # fmt: skip
    yield "always the same", "CLOCK_ODD", [
        (f"{ms:g} ms more", _set(noise=0.0, drift=lambda _, ms=ms: 1 + ms / 10)) for ms in (0.0, 3.0)
    ]  # fmt: skip
    yield "faster and faster", "NOT_AT_REST", [
        (f"bandwidth of {share:g} comes back", _all(_set(bandwidth=share), _later(0.55, _set(bandwidth=1.0))))
        for share in (0.85, 0.6, 0.4)
    ]  # fmt: skip
    yield "slow drift", "SLOWS_DOWN", [
        (f"{share:.0%} a second", _later(0.0, lambda world, share=share: setattr(
            world, "drift", lambda now, begun=world.now: 1 + share * (now - begun))))
        for share in (0.15, 0.2, 0.3)
    ]  # fmt: skip
    yield "two sorts of cores", "UNEVEN", [
        (f"{times:g} times as long, {part:.0%} of the time", _set(drift=lambda now, times=times, part=part: (
            times if now * 37.7 % 1 < part else 1.0)))
        for times in (1.4, 2.0, 3.0) for part in (0.3, 0.45)
    ]  # fmt: skip
    yield "waiting unseen", "STALLED", [
        (f"{ms} ms in each", _set(held=ms / 1e3)) for ms in (4, 10, 30)
    ]  # fmt: skip
    yield (
        "no rest",
        "NOT_AT_REST",
        [
            ("slower and slower", _set(drift=lambda now: 1.25**now)),
            ("swinging", _set(drift=lambda now: 1 + 0.6 * (now % 0.4 > 0.2))),
            ("noise", _set(noise=2.5)),
        ],
    )
    yield (
        "too little time",
        "TOO_FEW_SAMPLES",
        [(f"{seconds:g} s", _set(most_seconds=seconds)) for seconds in (0.5, 1.0)],
    )
    yield (
        "death",
        "NOT_FINISHED",
        [(f"{seconds:g} s after the warm-up", _later(seconds, lambda _: _death())) for seconds in (0.0, 0.7)]
        + [("in the warm-up", lambda world: world.at(-0.2, _death))],
    )


def quiet() -> list[tuple[str, Change]]:
    """What a sound machine does, too: a hundred of them."""
    awake = PhoneCapture(screen=True, power_save=False, battery=64, plugged=True, charging=True)
    twins: list[tuple[str, Change]] = [
        ("two threads", _set(threads=2)),
        ("a little beside it", _set(others=0.04)),
        ("a little stolen", _set(stolen=0.01)),
        ("a little pressure", _set(waiting=0.04)),
        ("noise of 5 %", _set(noise=0.05)),
        ("noise of 15 %", _set(noise=0.15)),
        ("a slow start", _set(drift=lambda now: 1 + 2 * 0.02**now)),
        ("short pauses", _set(pauses=[20.0, 15.0, 30.0])),
        ("an old quota", _file("sys/fs/cgroup/cpu.stat", "nr_throttled 900")),
        ("warm, and not held back", _later(0.3, _file("sys/class/thermal/thermal_zone0/temp", "78000"))),
        ("frequency that jitters", _later(0.4, _each("cpufreq/scaling_cur_freq", "1764000"))),
        ("frequency that was low before it began", _all(
            _each("cpufreq/scaling_cur_freq", "600000"), lambda world: world.at(-0.05, functools.partial(
                world.tree.each, "cpufreq/scaling_cur_freq", "1800000")))),
        ("powersave that is none", _all(_each("cpufreq/scaling_governor", "powersave"),
                                        _each("cpufreq/scaling_driver", "intel_pstate"))),
        ("performance", _each("cpufreq/scaling_governor", "performance")),
        ("a calendar that is slewed", _later(0.3, _set(calendar=0.004))),
        ("a battery that is full", _supply(capacity=100, status="Discharging")),
        ("a low battery at the charger", _supply(capacity=9, status="Charging")),
        ("a phone that is awake", _set(readied=Readied(phone=awake))),
        ("it was waited for", _set(readied=Readied(cool_below=45, waited=20, by="thermometer", cooled=True, at=44))),
        ("a fan that turns", _all(_file("sys/class/thermal/cooling_device0/type", "Fan"),
                                  _file("sys/class/thermal/cooling_device0/cur_state", "3"))),
        ("firmware tells of the past", _file("sys/devices/platform/soc/soc:firmware/get_throttled", "50000")),
        ("x86 counted before", _each("thermal_throttle/core_throttle_count", "5")),
        ("a machine that tells nothing", lambda world: [path.unlink() for path in world.tree.root.rglob("*")
                                                        if path.is_file()]),
        ("clocks 1 % apart", _set(clock=1.01)),
        ("slower than ever, but not by much", _set(speed=0.94)),
        ("a dip between two looks", _all(_later(0.35, _each("cpufreq/scaling_cur_freq", "1720000")),
                                         _later(0.9, _each("cpufreq/scaling_cur_freq", "1800000")))),
        ("a cap by a little", _each("cpufreq/scaling_max_freq", "1740000")),
        ("userspace at its highest", _each("cpufreq/scaling_governor", "userspace")),
        ("a clock of 20 us", _set(tick=2e-5)),
        ("a clock of 1 us", _set(tick=1e-6)),
        ("a drift of 4 %", _later(0.0, lambda world: setattr(
            world, "drift", lambda now, begun=world.now: 1 + 0.04 * (now - begun)))),
        ("now and then on a slow core", _set(drift=lambda now: 1.3 if now * 37.7 % 1 < 0.1 else 1.0)),
        ("a tenth of a wait", _set(held=0.001)),
        ("frequencies that are none", _all(*(_each(f"cpufreq/{name}", "0") for name in (
            "scaling_cur_freq", "scaling_max_freq", "cpuinfo_max_freq")))),
        ("noise of 30 %", _set(noise=0.3)),
    ]  # fmt: skip
    return [(f"{name} ({turn + 1})", plant) for turn in range(4) for name, plant in twins]
