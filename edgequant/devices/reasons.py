"""What a device's system says when it refuses a file, as stable codes."""

from __future__ import annotations

from edgequant.errors import DeviceError

_REASONS = (
    ("no space left", "NO_SPACE", "Free some space there, or choose another place with --work-dir."),
    ("quota exceeded", "NO_SPACE", "The user's quota is used up: free some space, or choose another --work-dir."),
    ("read-only file system", "READ_ONLY", "Choose a writable place with --work-dir."),
    ("permission denied", "PERMISSION_DENIED", "Choose a place this user may write to with --work-dir."),
    ("operation not permitted", "PERMISSION_DENIED", "Choose a place this user may write to with --work-dir."),
)


def reason(text: str, doing: str, uri: str) -> DeviceError:
    """A DeviceError for what the system of a device said (`text`, in English), with a stable code where it is known."""
    for words, code, hint in _REASONS:
        if words in text.lower():
            return DeviceError(code, f"{doing}: {text.strip()}", where=uri, hint=hint)
    return DeviceError("DEVICE_IO", f"{doing}: {text.strip() or 'no reason given'}", where=uri)
