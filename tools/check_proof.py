"""Whether a device computes the same twice, and whether memory low made a difference there."""

from check_metrics import TEXT, finding, fold

# fmt: off


def differing(first, second):
    one, two = first["outputs"] or {}, second["outputs"] or {}
    return [name for name in {**one, **two} if one.get(name) != two.get(name)]


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
        first, notes, late = {each["case"]: each for each in cap["cases"]}, [], []
        steady = True if cap["repeated"] else None
        for again in cap["repeated"]:
            if steady and (names := differing(first[again["case"]], again)):
                steady = False
                notes.append(("INCONCLUSIVE", finding("NOT_DETERMINISTIC", "error", names[0])))
        for t in cap["timings"] if steady is False else ():
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
