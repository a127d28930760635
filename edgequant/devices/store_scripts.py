"""What the store has a device's shell do.  Plain POSIX sh, so it works with any driver.

Every script takes what it needs as arguments, so nothing is spliced into it.
"""

MARKER = ".edgequant-store"
"""File that tells a directory of ours from one of the user's that merely looks like it."""

LOCK = "@edgequant-device"
"""Name of the runner's lock in /proc/net/unix."""

# The function that hashes is not called hash, nor any other name that is an alias in mksh, Android's shell.
_OURS = r"""
export LC_ALL=C
marker=MARKER
place() {
  case $root in
    @home) root=${XDG_CACHE_HOME:-${HOME:-/nonexistent}/.cache}/edgequant/device ;;
    @tmp) root=${TMPDIR:-/tmp}/edgequant-$(id -u) ;;
    '~/'*) root=${HOME:-/nonexistent}/${root#'~/'} ;;
  esac
}
hex() { case $1 in *[!0-9a-f]*) return 1 ;; esac; [ ${#1} -eq "$2" ]; }
is_object() { hex "$1" 64; }
is_incoming() { case $1 in *.*) hex "${1%%.*}" 16 && hex "${1#*.}" 16 ;; *) return 1 ;; esac; }
marked() { [ -f "$root/$marker" ] && [ ! -L "$root/$marker" ]; }
# Nothing in directory $1 but names that $2 accepts.
only() (
  [ ! -L "$1" ] && cd "$1" 2>/dev/null || exit 1
  for entry in * .*; do
    case $entry in .|..) continue ;; esac
    [ -e "$entry" ] || [ -L "$entry" ] || continue
    "$2" "$entry" || exit 1
  done
)
of_older() { case $1 in incoming|objects) ;; *) return 1 ;; esac; }
probe_or_incoming() { [ "$1" = .probe ] || is_incoming "$1"; }
# Stores made before there was a marker: incoming/ was made first, objects/ may be missing.
older() {
  only "$root" of_older && only "$root/incoming" probe_or_incoming \
    && { [ ! -e "$root/objects" ] || only "$root/objects" is_object; }
}
ours() {
  marked && return 0
  # It becomes private: that must not happen to a directory with another use, such as /tmp.
  [ ! -k "$root" ] && said=$(ls -A "$root" 2>/dev/null) || return 1
  # The marker once more: somebody else may have claimed it just now.
  [ -z "$said" ] || marked || older
}
""".replace("MARKER", MARKER)
RULES = _OURS
"""Shell functions: where a work directory is, and whether a directory is one.  They change nothing."""

PREPARE = (
    _OURS
    + r"""
umask 077
why=
for root in "$@"; do
  place
  said=$(mkdir -p "$root" 2>&1) || { why="$why$root: ${said##*: }|"; continue; }
  # In a shared directory somebody else may have made the name first.
  if [ -L "$root" ]; then why="$why$root: is a symbolic link|"; continue; fi
  if [ ! -O "$root" ]; then why="$why$root: belongs to somebody else|"; continue; fi
  ours || { why="$why$root: is used for other things|"; continue; }
  # The marker comes first: that is how the directory is known again.
  said=$({ marked || : > "$root/$marker"; } 2>&1 && chmod 700 "$root" 2>&1 \
    && mkdir -p "$root/incoming" "$root/objects" 2>&1 \
    && echo probe | cat 2>&1 > "$root/incoming/.probe" && rm -f "$root/incoming/.probe" 2>&1) \
    || { why="$why$root: ${said##*: }|"; continue; }
  # What an interrupted push left behind; a day is longer than any push that still runs.
  for file in "$root"/incoming/*; do
    is_incoming "${file##*/}" && find "$file" -type f -mtime +0 -exec rm -f {} + 2>/dev/null
  done
  # Names may hold anything but a zero byte, and echo would take backslashes apart.  No awk: small boards have none.
  cd "$root" && printf 'root=%s\0df=%s\0' "$(pwd; echo /)" "$(df -Pk . 2>/dev/null | tail -n 1)"
  exit 0
done
printf 'why=%s\0' "$why"
"""
)
"""DIR...: make the first usable one a work directory; prints ``root=`` and ``df=``, or ``why=``, each with a NUL."""

HASH = r"""
export LC_ALL=C
# The first that gets the hash of nothing right; openssl is three times as fast as coreutils.
nothing=e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855
try() { sum=$("$@" </dev/null 2>/dev/null); [ "${sum%% *}" = $nothing ]; }
if try openssl dgst -sha256 -r; then sha256() { openssl dgst -sha256 -r; }
elif try sha256sum; then sha256() { sha256sum; }
elif try shasum -a 256; then sha256() { shasum -a 256; }
else echo "nohash"; exit 0; fi
"""
"""Shell function: `sha256` of its stdin.  Ends the script with ``nohash`` where nothing there can."""

HAVE = (
    HASH
    + r"""
root=$1; shift
for digest in "$@"; do
  object=$root/objects/$digest
  [ -e "$object" ] || [ -L "$object" ] || continue
  # A link or a directory is nothing we made.
  if [ -L "$object" ] || [ ! -f "$object" ]; then rm -rf "$object"; continue; fi
  sum=$(sha256 < "$object"); sum=${sum%% *}
  if [ "$sum" = "$digest" ]; then echo "$digest"; else rm -f "$object"; fi
done
echo done
"""
)
"""ROOT SHA256...: prints those that are there and whole, removes what is not, then prints ``done``; or ``nohash``."""

FINISH = (
    HASH
    + r"""
incoming=$1 digest=$2 object=$3
# Another edgequant cleaned the place, as it may while nobody holds the device.
[ -f "$incoming" ] || { echo gone; exit 0; }
sum=$(sha256 < "$incoming"); sum=${sum%% *}
if [ "$sum" = "$digest" ]; then
  # mv would move into a directory.
  if [ -L "$object" ] || [ -d "$object" ]; then rm -rf "$object" || { rm -f "$incoming"; exit 1; }; fi
  if mv -f "$incoming" "$object"; then echo ok
  elif [ -d "${object%/*}" ]; then exit 1
  else echo gone; fi
else rm -f "$incoming"; echo "bad $sum"; fi
"""
)
"""INCOMING SHA256 OBJECT: put what came in its place; prints ``ok``, ``gone``, ``nohash``, or ``bad`` and the hash."""

IS_THERE = '[ -d "$1/incoming" ] && [ -d "$1/objects" ] && [ -f "$1/MARKER" ] && echo yes; :'.replace("MARKER", MARKER)
"""ROOT: prints ``yes`` where the work directory is still prepared."""

CLEAN = (
    _OURS
    + r"""
why= exclusive=$1
shift
# A runner that measures has a lock (device_scripts/lock.py), which Linux lists here, where it lets us look.
if [ "$exclusive" = yes ]; then
  while read -r line; do
    case $line in *" NAME_OF_LOCK$EDGEQUANT_LOCK_SCOPE") echo busy; exit 0 ;; esac
  done 2>/dev/null < /proc/net/unix
fi
is_other_object() { ! is_object "$1"; }
is_other_incoming() { ! is_incoming "$1"; }
gone() { [ ! -e "$1" ] || only "$1" "$2"; }
for root in "$@"; do
  place
  [ -e "$root" ] || [ -L "$root" ] || continue
  [ ! -L "$root" ] && [ -O "$root" ] && cd "$root" 2>/dev/null || { why="$why$root|"; continue; }
  if ! marked; then
    # An empty directory is nobody's yet; it stays as it is.
    said=$(ls -A . 2>/dev/null) && [ -z "$said" ] && continue
    older || { why="$why$root|"; continue; }
  fi
  echo before; du -sk objects incoming packs 2>/dev/null
  # By name: the user may keep other things in there.
  for file in objects/* incoming/* packs/*; do
    case $file in
      packs/*) name=${file#*/}; is_object "${name%%.new.*}" && rm -rf "$file" ;;
      objects/*) is_object "${file#*/}" && rm -rf "$file" ;;
      *) is_incoming "${file#*/}" && rm -f "$file" ;;
    esac
  done
  rm -f incoming/.probe
  rmdir objects incoming packs 2>/dev/null
  echo after; du -sk objects incoming packs 2>/dev/null
  # The marker goes last, so that an interrupted clean can be done again.
  gone objects is_other_object && gone incoming is_other_incoming || { why="$why$root|"; continue; }
  # What a killed runner did not give back is for the next one to do.
  [ ! -e .edgequant-governor ] || continue
  rm -f "$marker" || { why="$why$root|"; continue; }
  cd / && rmdir "$root" 2>/dev/null
done
printf 'why=%s' "$why"
"""
).replace("NAME_OF_LOCK", LOCK)
"""EXCLUSIVE DIR...: remove what was pushed; prints sizes before and after in KiB, then ``why=``; or ``busy``."""

DF = 'LC_ALL=C df -Pk "$1" 2>/dev/null | tail -n 1 2>/dev/null; :'
"""PATH: prints the line df has of its file system."""
