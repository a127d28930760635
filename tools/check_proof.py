"""Whether a device computes the same twice, and whether memory low made a difference there."""

from check_metrics import TEXT, finding, fold

# fmt: off


def differing(first, second):
    one, two = first["outputs"] or {}, second["outputs"] or {}
    return [name for name in {**one, **two} if one.get(name) != two.get(name)]


def repeats(judge, cap):
    """Whether it computes the same twice; where not, whether that takes another size before."""
    first, seen = {each["case"]: each for each in cap["cases"]}, cap["repeated"]
    changed = [(each, names) for each in seen if (names := differing(first[each["case"]], each))]
    if not changed:
        return (True if seen else None), []
    again, names = changed[0]
    both = [n for n in names if n in (first[again["case"]]["outputs"] or {}) and n in (again["outputs"] or {})]
    apart = [judge.pair(first[again["case"]], again, n)["sqnr_db"] for n in both]
    apart = min((db for db in apart if db is not None), default=None)
    shapes = {c["name"]: {n: ref["shape"] for n, ref in c["inputs"].items()} for c in judge.source["cases"]}
    ran = [c["case"] for c in cap["cases"] if c["outputs"] is not None]
    last, kept, moved, own = cap["timings"][0]["case"] if cap["timings"] else ran[-1], 0, 0, True
    for each in seen:
        name, other = each["case"], each in [one for one, _ in changed]
        place = ran.index(name)
        if shapes[name] == shapes[last] and (not place or shapes[ran[place - 1]] == shapes[name]):
            kept, own = kept + 1, own and not other
        else:
            moved += other
        last = name
    if apart is not None and apart < 60 and own and kept and moved:
        return False, [("FAIL", finding("STALE_SHAPE", "fail", names[0]))]
    return False, [("INCONCLUSIVE", finding("NOT_DETERMINISTIC", "error", names[0]))]


def settings(judge, cap, static):
    """Of another number of threads, and of what comes after another model."""
    first = {c["case"]: c for c in cap["cases"]}
    rounds = static or cap["memory_mode"] == "low" or judge.plan["options"]["precision"] == "low"
    for each in cap.get("settings", ()):
        once = first.get(each["case"])
        off = [n for n, ref in ((once and once["outputs"]) or {}).items() if each["outputs"].get(n) != ref]
        apart = [db for n in off if (db := judge.pair(once, each, n)["sqnr_db"]) is not None]
        if off and (each["kind"] == "model" or (apart and min(apart) < (20 if rounds else 60))):
            return [("INCONCLUSIVE", finding("NOT_DETERMINISTIC", "error", off[0]))]
    return []


class Proof:
    """What a judge says of captures of the same cases, held against each other."""

    def faint(self, host, cap):
        """How far memory low is from memory normal, on this host and on the device, where that is far less there."""
        def apart(of):
            normal = [c for c in of["normal"] if c["case"] not in self.strain]
            found = {name: fold(cases)["sqnr_db"] for name, cases in self.each(normal, of["cases"]).items()}
            return {name: db for name, db in found.items() if db is not None}

        mine, there = (apart(host), apart(cap)) if host and not cap["device"]["is_host"] else ({}, {})
        mine = {name: db for name, db in mine.items() if db < 90 and name in there}
        if not mine or any(there[name] < db + 20 for name, db in mine.items()):
            return None
        worst = min(mine, key=mine.get)
        return {"sqnr_db": there[worst], "host_sqnr_db": mine[worst]}

    def proof(self, made, cap, host):
        """Whether it computes the same twice, and whether memory low did something."""
        first, late = {each["case"]: each for each in cap["cases"]}, []
        steady, notes = repeats(self, cap)
        for t in cap["timings"] if any(f["code"] == "NOT_DETERMINISTIC" for _, f in notes) else ():
            then = next((c for c in cap["repeated"] if c["case"] == t["case"]), None)
            names = differing(first[t["case"]], then) if then and t.get("outputs") == then["outputs"] else []
            if names and t.get("outputs"):
                notes = [("INCONCLUSIVE", finding("OUTPUT_CHANGED_LATER", "error", names[0]))]
                break
        wanted, engaged, why, evidence = made["run_as"]["method"] == "dynamic", None, None, {}
        if cap["memory_mode"] != "low":
            engaged, why = (False, TEXT) if wanted and any(each["outputs"] for each in cap["cases"]) else (None, None)
        elif normals := [each for each in cap["normal"] if each["outputs"] is not None]:
            lows = first | {each["case"]: each for each in cap["repeated"]}
            normal = max(normals, key=lambda each: len(differing(lows[each["case"]], each)))
            mb = [(cap["session"] or {}).get(key) for key in ("mb", "normal_mb")]
            low = lows[normal["case"]]
            reached = differing(low, normal)
            missed = [name for name, ref in (low["outputs"] or {}).items()
                      if name not in reached and ref["dtype"].startswith("float")]
            evidence = {"case": normal["case"], "outputs_differ": bool(reached), "outputs_reached": reached,
                        "deterministic": steady, "session_mb_low": mb[0], "session_mb_normal": mb[1]}
            engaged, why = None if reached else False, TEXT
            if reached and (steady or (None not in mb and mb[0] < mb[1])):
                engaged, why, little = True, "outputs differ from memory normal", self.faint(host, cap)
                if little:
                    engaged, evidence = False, evidence | little
                elif missed and steady and wanted:
                    late.append(("PASS", finding("LOW_MEMORY_PARTIAL", "warn", missed[0])))
        if wanted and not engaged:
            why, ended = TEXT, cap["failure"] and why is None
            late += [] if ended else [("INCONCLUSIVE", finding("LOW_MEMORY_NOT_ENGAGED", "error", None))]
        return engaged, why, evidence, notes, late
