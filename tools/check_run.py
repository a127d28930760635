"""Check the folder of a run: python tools/check_run.py RUN_DIR

Every number and verdict of report.json is computed anew from the arrays and records beside it, and every file is held
against what refers to it.  Prints a line for each deviation; exits with 0 where there is none, 1 where there are some,
2 where the folder cannot be read.  It and the two files beside it need NumPy and nothing of edgequant: what one gets
wrong, the other notices.

Text that the report copies from a record has to be the same there.  Not computed anew are sentences that judging makes
(messages, remedies, reasons, hints), evidence other than that of limits, and the findings of UNCOMPUTED, which no
verdict depends on.  Nor are the findings of SYSTEMATIC: that a run with one of them that is "fail" is FAIL, is held.
"""

import hashlib
import json
import sys
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parent))
from check_judge import SYSTEMATIC, Judge
from check_metrics import ANY, TEXT, close
from check_names import safe, spell

# fmt: off
UNCOMPUTED = ("FILE_NOT_WRITTEN", "MEAN_HIDES_ERROR", "OUTPUT_NEAR_NOTHING", "REFERENCE_CONSTANT",
              "REFERENCE_ZERO", "STATIC_I8MM_UNSEEN", "STATIC_RESIZE_UNSEEN", "STATIC_POOL_ON_X86", "LESS_ON_X86",
              "DEVICE_LIMIT_UNUSED", "PRECISION_LOW_INEFFECTIVE", "STRAIN_ERROR", *SYSTEMATIC)


def same(want, got, where, say):
    """Hold a part of the report against what it should be; a set: any of these."""
    if isinstance(want, dict) and isinstance(got, dict):
        for key in sorted(want.keys() ^ got.keys()):
            say(f"{where}: '{key}' is {'missing' if key in want else 'not known'}")
        for key in want.keys() & got.keys():
            same(want[key], got[key], f"{where}.{key}", say)
    elif isinstance(want, (list, tuple)) and isinstance(got, list) and len(want) == len(got):
        for i, each in enumerate(want):
            same(each, got[i], f"{where}[{i}]", say)
    elif want is TEXT or isinstance(want, frozenset):
        if not (isinstance(got, str) and got and (want is TEXT or got in want)):
            say(f"{where}: {got!r}, should be {'a sentence' if want is TEXT else sorted(want)}")
    elif type(want) in (int, float) and type(got) in (int, float):
        if want != got and (type(want) is type(got) is int or not close(want, got)):
            say(f"{where}: {got!r}, computed {want!r}")
    elif want is not ANY and (type(want) is not type(got) or want != got):
        say(f"{where}: {str(got)[:80]!r}, should be {str(want)[:80]!r}")


class Check(Judge):
    def need(self, good, line):
        self.said += [] if good else [line]

    def files(self):
        """Every file is what others say of it."""
        hashes = {p: hashlib.sha256(p.read_bytes()).hexdigest() for p in self.root.rglob("*") if p.is_file()}
        for path in (self.root / "arrays").glob("*.npy"):
            self.need(hashes[path] == path.stem, f"{path.name}: not what its name says")
            self.arrays[path.stem] = np.load(path, allow_pickle=False)
        lines = map(json.loads, (self.root / "journal.jsonl").read_text().splitlines())
        journal = {line["file"]: line["sha256"] for line in lines if "closed" not in line}
        for name in sorted(journal.keys() | self.records.keys() - {"closing.json"}):
            self.need(journal.get(name) == hashes.get(self.root / name), f"{name}: not as journal.jsonl has it")
            if not name.startswith(("layers/", "diagnoses/")):  # numbers, and no arrays
                self.refs(self.records[name], name)
        for made in (record["artifact"] for name, record in self.records.items() if name.startswith("artifacts/")):
            if made:
                path = self.root / made["path"]
                found = [hashes.get(path), made["source_sha256"], path.stat().st_size]
                log = made["log"] is None or (self.root / "logs" / made["log"]).is_file()
                good = log and found == [made["sha256"], self.source["sha256"], made["size"]]
                self.need(good, f"{path.name}: not as its record has it, or its log is missing")
        for path in (self.root / "models").glob("*-????????????????.mnn"):
            self.need(hashes[path].startswith(path.stem[-16:]), f"{path.name}: not what its name says")
        float_sha = self.source["float_sha256"]
        self.need(float_sha in (None, *hashes.values()), "the float model is missing")
        for case in self.source["cases"]:
            kept = np.load(self.root / f"cases/{safe(case['name'])}.npz", allow_pickle=False)
            want = {name: self.arrays[ref["sha256"]] for name, ref in case["inputs"].items()}
            one, two = ({n: (str(a.dtype), a.shape, a.tobytes()) for n, a in x.items()} for x in (kept, want))
            self.need(one == two, f"case {case['name']}: its .npz does not hold its inputs")

    def refs(self, value, where):
        if isinstance(value, dict) and "sha256" in value and len(value) <= 3:
            a = self.arrays.get(value["sha256"])
            good = a is not None and value == {"sha256": value["sha256"], "dtype": a.dtype.name, "shape": list(a.shape)}
            self.need(good, f"{where}: no such array: {value}")
        for each in value.values() if isinstance(value, dict) else value if isinstance(value, list) else ():
            self.refs(each, where)

    def consistent(self):
        """What decides no number of the report has to fit all the same."""
        source, plan, need = self.source, self.plan, self.need
        need(plan["model"].endswith(source["path"]), "plan.json and source.json name different models")
        for name, record in self.records.items():
            kind = name.split("/")[0].removesuffix(".json").removesuffix("s")
            good = kind in ("closing", "artifact") or record["schema"] == f"edgequant.{kind}/1"
            need(good, f"{name}: not a {kind} of this version")
            both = kind != "artifact" or (record["artifact"] is None) != (record["failure"] is None)
            need(both, f"{name}: it was made and failed, or neither")
        known = {None, "probabilities", "scores", "classes", "ordered", "set"}
        need({*source.get("decisions", {}).values()} <= known, "source.json: no such decision")
        whole = self.older or all("moved" in each for name, each in self.records.items() if "captures/" in name)
        need(whole and (self.older or "decisions" in source), "records of different versions")
        need(plan["job"] in ("verify", "quantize"), f"plan.json: no such job: {plan['job']}")
        need(self.end["ended"] == (self.end["source_now"] is not None), "closing.json: it has ended, or it has not")
        if not self.reference:
            return
        for kind, one, variant in (("reference", self.reference, None), ("float-host", self.float, "float")):
            empty = ("repeated", "normal", "timings", "session")
            empty += ("load_ms", "threads", "pushed_bytes", "runtime_bytes")
            if one:
                told = [one[k][key] for k in ("before", "loaded") for key in ("rss", "rss_peak", "pss")]
                told += [one[k] for k in (*empty, "failure")] + [kind != "reference" and one.get("moved")]
                need(not any(told), f"{kind}: more than outputs were captured")
                named = [one["role"], one["trial"], one["variant"]] == [kind, kind, variant]
                need(named, f"{kind}: not what its name says")
        ran = any(self.reference[k] for k in ("artifact_sha256", "device", "memory_mode"))
        need(not ran, "reference: it was not run here")
        taken = {c["case"]: c["outputs"] for c in self.reference["cases"]}
        need(list(taken) == [c["name"] for c in source["cases"]], "the reference has other cases than source.json")
        need((source["reference"]["kind"] == "file") == (plan["reference"] is not None), "reference is not as planned")
        dtypes = {name: np.dtype(ref["dtype"]).kind for outputs in taken.values() for name, ref in outputs.items()}
        kinds = {name: "int" if kind in "biu" else "float" for name, kind in dtypes.items()}
        need(kinds == source["kinds"], "kinds of outputs are not those of the reference")
        for c in source["cases"]:
            need(c["generated"] == (plan["inputs"] is None), f"case {c['name']}: not from where the plan says")
            for t in source["inputs"]:
                shape, want = c["inputs"][t["name"]]["shape"], t["shape"] or c["inputs"][t["name"]]["shape"]
                good = len(shape) == len(want) and all(w in (None, n) for w, n in zip(want, shape, strict=True))
                good = good and c["inputs"][t["name"]]["dtype"] == t["dtype"]
                need(good, f"case {c['name']}: {t['name']} does not fit the model")
        if self.float:
            need(self.float["artifact_sha256"] == source["float_sha256"], "float-host is of another file")
            need([c["case"] for c in self.float["cases"]] == list(taken), "float-host has other cases than source.json")
        for uri in plan["devices"]:
            for variant in plan["variants"]:
                self.trial_consistent(uri, variant, spell(variant))

    def trial_consistent(self, uri, variant, name):
        plan, need, where = self.plan, self.need, f"{name} on {uri}"
        making, cap = self.records.get(f"artifacts/{safe(name)}.json"), self.capture(f"{safe(uri)}/{safe(name)}")
        made, host, options = making and making["artifact"], self.capture(f"host/{safe(name)}"), plan["options"]
        fits = making is None or (making["variant"] == variant and (made is None) == (making["failure"] is not None))
        need(fits, f"{where}: its artifact is of another variant, or is none")
        if not made or not cap or not cap["artifact_sha256"] or not cap["device"]:
            return
        free = made["label"] or variant["method"] in ("recipe", "auto")  # what the file is, is said in other words
        as_asked = made["asked"] == variant and (free or made["run_as"] == variant)
        static = [made["facts"].get(key) for key in ("half_tiles", "max_pools", "tails", "resizes")]
        need(as_asked and (made["facts"]["static_tensors"] or not any(static)), f"{where}: made as something else")
        need([cap["role"], cap["variant"]] == ["device", name], f"{where}: its capture is of something else")
        memory = options["memory"] or ("low" if made["run_as"]["method"] == "dynamic" else "normal")
        local, timed = cap["device"]["is_host"], plan["latency"] and cap["device"]["emulator"] is None
        probes = ["timing"] * timed + ["repeat", *["witness"] * ("witness" in cap), "memory", "engaged"]
        probes += ["rollout", "settings"] if self.source.get("rollout") else []
        content = {"source": made["source_sha256"], "artifact": made["sha256"], "variant": name, "options": options,
                   "device": cap["device"]["uri"], "probes": probes,
                   "cases": [[c["name"], {n: ref["sha256"] for n, ref in c["inputs"].items()}]
                             for c in self.source["cases"]]}
        trial = hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()
        need(cap["trial"] == trial and cap["memory_mode"] == memory, f"{where}: its capture is of another trial")
        for one in (cap, host) if host else (cap,):
            need(one["artifact_sha256"] == made["sha256"], f"{where}: a capture is of another file")
            for c in one["cases"] + one["repeated"] + one["normal"]:
                good = (c["outputs"] is None) == (c["refused"] is not None) >= (c["refused_code"] is not None)
                need(good and type(c["taps"]) is dict, f"{where}: case {c['case']} has outputs and a refusal, or none")
        names, modes = [c["name"] for c in self.source["cases"]], (memory, "normal")
        good = not host or all(m["case"] in names and m["by"] in ("noise", "step") and m["memory"] in modes
                               for m in host.get("moved", ()))
        need(good and not cap.get("moved"), f"{where}: cases were moved that there are not, or on the device")
        if local and host:
            need(host["trial"] in (trial, f"host/{safe(name)}"), f"{where}: this host's capture is of another trial")
        if local and host and host["trial"] == trial:
            need(host == cap | {"role": "variant-host", "timings": []}, f"{where}: it is this host and differs from it")
        need(host or cap["failure"] or not self.end["ended"], f"{where}: this host's capture is missing")
        done = [c["case"] for c in cap["cases"] if c["outputs"] is not None]
        if done and not cap["failure"]:
            usual = {c["name"] for c in self.source["cases"] if c.get("kind", "usual") == "usual"}
            middle = (usual := [name for name in done if name in usual] or done)[len(usual) // 2]
            again = [[c["case"] for c in cap[key]] for key in ("repeated", "normal", "timings")]
            older = self.older  # then one case was run again, and with memory normal; and on devices only
            want = [[middle] if older else done[::-1], ([middle] if older else done) if memory == "low" else [],
                    [middle] * timed]
            need(again == want, f"{where}: a probe is missing")
            here = {} if host is None or host["failure"] or older else host
            need(not here or [c["case"] for c in here["normal"]] == [c["case"] for c in here["cases"]
                 if memory == "low" and c["outputs"] is not None], f"{where}: memory normal is missing on this host")
            session, loop = cap["session"], made["facts"]["has_subgraphs"]
            good = (session["mb"] is None) == bool(session["why"]) and (memory == "low" or session["normal_mb"] is None)
            good = good and loop == str(session["why"]).startswith("the model has subgraphs")
            need(good, f"{where}: session memory is impossible")
            need(len(cap["cases"]) == len(self.source["cases"]), f"{where}: a case is missing")
        if local:
            here = [cap["device"]["arch"], cap["device"]["mnn"]]
            need(here in ([None, None], list(plan["host"].values())), f"{where}: this host is another than planned")


def main(path):
    try:
        check = Check(Path(path))
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        print(f"{path}: cannot be read: {type(error).__name__}: {error}")
        return 2

    def report():
        got = check.report
        want = check.whole()
        for each in (got, want, *got["runs"], *want["runs"]):
            each["findings"] = [finding for finding in each["findings"] if finding["code"] not in UNCOMPUTED]
        same(want, got, "report", check.said.append)

    for step in (check.files, check.consistent, report):
        try:
            step()
        except Exception as error:  # noqa: BLE001  (whatever it is, something in there is not what it was)
            check.said.append(f"{step.__name__}: cannot be computed anew: {type(error).__name__}: {error}")
    print(*check.said, sep="\n", end="\n" if check.said else "")
    return 1 if check.said else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
