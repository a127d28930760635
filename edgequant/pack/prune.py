"""What of Python and of the wheels a runner needs; the rest stays out of the pack."""

from __future__ import annotations

import re

_STDLIB_FOLDERS = {
    "__pycache__", "config", "curses", "dbm", "distutils", "ensurepip", "idlelib", "lib2to3", "msilib", "pydoc_data",
    "site-packages", "sqlite3", "test", "tests", "tkinter", "turtledemo", "venv", "wsgiref", "xmlrpc",
}  # fmt: skip
_STDLIB_FILES = re.compile(
    r"(turtle|antigravity|this|pdb|doctest|cgi|cgitb|pydoc|imaplib|nntplib|smtplib|telnetlib|poplib|ftplib|mailbox"
    r"|_osx_support|_aix_support|_sysconfigdata.*|sitecustomize)\.py$"
)
# What needs libraries that are not in the pack, self-tests, and the large East Asian codecs.
_EXTENSIONS = re.compile(
    r"(_ssl|_hashlib|_sqlite3|_bz2|_lzma|_curses|_curses_panel|_dbm|_gdbm|_tkinter|_crypt|nis|readline|_uuid"
    r"|ossaudiodev|audioop|_test\w*|_ctypes_test|_xx\w*|xx\w*|_codecs_\w+|_multibytecodec)\."
)
_SITE = re.compile(
    r"_tools\."  # MNN's converter
    r"|MNN/tools/"  # imports what installs packages and reports to a server
    r"|numpy/(f2py|typing|_typing/_add_docstring|testing|distutils|doc|_pyinstaller|_core/include|_core/lib|core/include)/"
    r"|numpy/conftest\.py|numpy/_configtool\.py"
    r"|numpy/_core/_(simd|\w*_tests)\."
    r"|(.*/)?tests?/"
    r"|psutil/_ps(aix|bsd|osx|sunos|windows)\.py"
    r"|[^/]+\.data/"
)
_NUMPY_RANDOM = "numpy/random/"


def keep_stdlib(path: str) -> bool:
    """Whether a file of lib/pythonX.Y belongs into the pack; `path` is relative to that."""
    folders = path.split("/")[:-1]
    if any(folder in _STDLIB_FOLDERS or folder.startswith("config-") for folder in folders):
        return False
    name = path.rsplit("/", 1)[-1]
    if name.endswith(".so"):
        return not _EXTENSIONS.match(name)
    return name.endswith(".py") and not (not folders and _STDLIB_FILES.match(name))


def keep_site(path: str, *, numpy_major: int) -> bool:
    """Whether a file of a wheel belongs into the pack."""
    if _SITE.match(path) or ".dist-info/" in path:
        return False
    # NumPy 1 imports it always, NumPy 2 when somebody asks.
    if path.startswith(_NUMPY_RANDOM) and numpy_major >= 2:
        return False
    return path.endswith(".py") or ".so" in path.rsplit("/", 1)[-1]
