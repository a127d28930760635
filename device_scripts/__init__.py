"""The runner: what edgequant pushes to a device to load MNN there, run models and bring the results back.

It stands alone: it imports nothing from edgequant, runs on Python 3.8 or newer, and needs only MNN and NumPy (psutil
where there is no /proc).  edgequant packs this folder into one zip file, pushes it, starts it and talks to it over its
stdin and stdout in the format of `wire`.
"""

RUNNER_VERSION = "1"
