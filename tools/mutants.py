"""A mutation run over ops/ and kernels/: `python tools/mutants.py FOLDER` changes 440 places, one at a time, and runs the tests.

The changes are cosmic-ray's: another operator, comparison or number, `not` added, a loop without a round, and so on; the kernels' tests run
them as plain Python, without a compiler. Places are drawn first, then one of the changes that there are at each, since a `+` has eleven and
a `not` one. Left out are annotations, which nobody computes, and `is` for `==`, which of small integers is the same.

FOLDER holds a copy of the repository for each of the processes side by side, what came out so far (`results.jsonl`: an interrupted run goes
on from there), the sample (`sample.json`), and the table and the survivors with their differences (`report.md`).
"""

import argparse
import ast
import collections
import difflib
import json
import os
import queue
import random
import shutil
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import cosmic_ray.plugins
from cosmic_ray.ast import ast_nodes, get_ast
from cosmic_ray.mutating import mutate_code

ROOT = Path(__file__).parents[1]
TIMEOUT = 240  # seconds for the tests of one mutant
NORMS = ["norms", "errors", "edges", "operations", "layouts", "pieces", "ways", "trust/fuzz_norms"]
TESTS = {  # of each module of ops, the quickest and most telling first; NORMS for the others
    "_arrays": ["layouts", "edges", "errors", "containers", "trust/wrong_arguments", "trust/fuzz_norms"],
    "_device": ["errors", "array_api"],
    "_epilogue": ["norms", "edges", "errors", "layouts", "trust/fuzz_norms", "fuse"],
    "_foreign": ["containers", "array_api", "xarray", "errors"],
    "_norm": ["norms", "masks", "halves", "errors", "edges", "layouts", "pieces", "operations", "trust/fuzz_norms"],
    "_pickles": ["moments", "masks", "randomness", "trust/damaged_pickles"],
    "_pieces": ["pieces", "halves", "norms", "layouts"],
    "_share": ["mpi"],
    "_statistics": ["moments", "masks", "norms", "trust/fuzz_statistics"],
    "_stats": ["norms", "moments", "pieces", "trust/damaged_pickles"],
    "activation": ["norms", "edges", "errors", "trust/fuzz_elements"],
    "alpha_dropout": ["alpha_dropout", "errors", "trust/fuzz_elements"],
    "bias_activation_dropout": ["operations", "errors", "layers", "pieces", "trust/fuzz_elements"],
    "covariance": ["covariance", "whitening", "errors", "trust/fuzz_statistics"],
    "dropout": ["dropout", "masks", "errors", "layouts", "randomness", "ways", "trust/fuzz_elements", "trust/damaged_pickles"],
    "fused": ["fused", "errors", "operations", "ways", "trust/fuzz_norms"],
    "group_norm": ["norms", "masks", "halves", "errors", "operations", "layouts", "pieces", "ways", "trust/fuzz_norms"],
    "lp_norm": ["norms", "errors", "edges", "operations", "layouts", "pieces", "trust/fuzz_elements"],
    "mean_variance_norm": ["errors", "onnx", "operations", "layouts", "trust/fuzz_norms"],
    "moments": ["moments", "errors", "containers", "ways", "trust/fuzz_statistics", "trust/damaged_pickles"],
    "scaling": ["scaling", "preprocessing", "trust/fuzz_statistics"],
    "sequences": ["masks", "layers", "errors"],
    "whitening": ["whitening", "preprocessing", "errors"],
}


def tests_of(module):
    """The arguments of pytest that judge a module, a list for each process; a later one runs where the mutant outlived those before."""
    if module.parent.name == "kernels":
        return [["tests/kernels"]]
    chosen = {"operations": "float32 and not numba"}  # whose exact results take long
    places = {name: Path("tests", name) for name in TESTS.get(module.stem, NORMS)}
    return [[str(place.with_name(f"test_{place.name}.py")), "-k", chosen.get(name, "not numba")] for name, place in places.items()]


def annotations(source):
    """The places, as pairs of positions, that annotations take."""
    found = []
    for node in ast.walk(ast.parse(source)):
        own = [getattr(node, "annotation", None), getattr(node, "returns", None)]
        found += [((a.lineno, a.col_offset), (a.end_lineno, a.end_col_offset)) for a in own if a is not None]
    return found


def mutants(path):
    """For each place of a file the changes there: pairs of an operator's name and its number among those of the file."""
    source = path.read_text()
    left_out = annotations(source)
    nodes = list(ast_nodes(get_ast(source)))
    places = collections.defaultdict(list)
    for name in sorted(cosmic_ray.plugins.operator_names()):
        kind = cosmic_ray.plugins.get_operator(name)
        if kind.arguments() or ("Comparison" in name and name.endswith(("_Is", "_IsNot"))):
            continue
        positions = (place for node in nodes for place in kind().mutation_positions(node))
        for number, (start, end) in enumerate(positions):
            if not any(a <= start and end <= b for a, b in left_out):
                places[start, end].append((name, number))
    return places


def sample(store, count, seed):
    """So many mutants, [file, operator, number], in an order in which every beginning is a sample too; 2000 are kept in a file."""
    if store.exists():
        return json.loads(store.read_text())[:count]
    files = sorted([*(ROOT / "normfast" / "kernels").glob("*.py"), *(ROOT / "normfast" / "ops").glob("*.py")])
    places = [(path.relative_to(ROOT).as_posix(), place, found) for path in files for place, found in sorted(mutants(path).items())]
    draw = random.Random(seed)
    draw.shuffle(places)
    chosen = [(path, *draw.choice(found)) for path, _, found in places[:2000]]
    store.write_text(json.dumps(chosen))
    return chosen[:count]


def copy_of(folder):
    """The repository as git has it, and what was compiled in it."""
    shutil.rmtree(folder, ignore_errors=True)
    listed = subprocess.run(["git", "ls-files", "-co", "--exclude-standard"], cwd=ROOT, capture_output=True, text=True, check=True)
    compiled = [str(path.relative_to(ROOT)) for path in (ROOT / "normfast").rglob("*.so")]
    for name in [*listed.stdout.splitlines(), *compiled]:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(ROOT / name, folder / name)
    return folder


def run_tests(folder, arguments, environment):
    """What becomes of a mutant: survived, killed or timeout."""
    command = [sys.executable, "-m", "pytest", "-x", "-q", "-p", "no:cacheprovider", "--tb=line", *arguments]
    process = subprocess.Popen(
        command, cwd=folder, env=environment, start_new_session=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    try:
        return "killed" if process.wait(TIMEOUT) not in (0, 5) else "survived"  # 5: no test was chosen
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        return "timeout"


def judge(folder, path, operator, number):
    """A mutant with its difference and outcome."""
    target, original = folder / path, (ROOT / path).read_text()
    changed = mutate_code(original, cosmic_ray.plugins.get_operator(operator)(), number)
    lines = difflib.unified_diff(original.splitlines(), changed.splitlines(), lineterm="", n=0)
    diff = [line for line in lines if line[:3] not in ("---", "+++")]
    result = {"file": path.as_posix(), "operator": operator, "number": number, "diff": diff}
    environment = os.environ | {"PYTHONPATH": str(folder), "PYTHONDONTWRITEBYTECODE": "1"}
    environment |= {"NORMFAST_TEST_KERNELS": "1", "NORMFAST_TEST_SEED": "1"}  # the same data each time: a failure is the mutant's
    start = time.perf_counter()
    target.write_text(changed)
    try:
        for arguments in tests_of(path):
            outcome = run_tests(folder, arguments, environment)
            if outcome != "survived":
                result["by"] = arguments[0]
                break
    finally:
        target.write_text(original)
    return result | {"outcome": outcome, "seconds": round(time.perf_counter() - start, 1)}


def report(results, count):
    """The table, a row for each folder and file, and the survivors."""
    rows = collections.defaultdict(collections.Counter)
    for result in results:
        folder = result["file"].split("/")[1]
        for row in (f"**{folder}/**", result["file"].removeprefix("normfast/"), "**all**"):
            rows[row][result["outcome"]] += 1
    lines = [f"{len(results)} mutants of {count}", ""]
    lines += ["| | mutants | killed | timeout | survived | killed, % |", "| --- | --: | --: | --: | --: | --: |"]
    for name, row in sorted(rows.items()):
        total = row.total()
        dead = row["killed"] + row["timeout"]
        lines.append(f"| {name} | {total} | {row['killed']} | {row['timeout']} | {row['survived']} | {100 * dead / total:.0f} |")
    lines += ["", "Survivors", ""]
    for result in sorted(results, key=lambda result: (result["file"], result["diff"])):
        if result["outcome"] == "survived":
            lines += [f"{result['file']} ({result['operator'].removeprefix('core/')})", "```diff", *result["diff"], "```", ""]
    return "\n".join(lines)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="where the copies and the results stand")
    parser.add_argument(
        "--count", type=int, default=440, help="how many mutants (440), at most 2000; a larger number goes on from a smaller one"
    )
    parser.add_argument("--seed", type=int, default=0, help="of the sample (0), which stays the same in a folder")
    parser.add_argument("--jobs", type=int, default=2, help="how many run side by side (2)")
    parser.add_argument("--again", action="store_true", help="run those once more that outlived the tests")
    options = parser.parse_args()
    folder = options.folder.resolve()
    folder.mkdir(parents=True, exist_ok=True)
    log = folder / "results.jsonl"
    results = [json.loads(line) for line in log.read_text().splitlines()] if log.exists() else []
    if options.again:
        results = [result for result in results if result["outcome"] != "survived"]
    known = {(result["file"], result["operator"], result["number"]): result for result in results}
    wanted = sample(folder / "sample.json", options.count, options.seed)
    waiting = queue.SimpleQueue()
    for path, operator, number in wanted:
        if (path, operator, number) not in known:
            waiting.put((Path(path), operator, number))
    lock = threading.Lock()
    log.write_text("".join(json.dumps(result) + "\n" for result in results))

    def work(own):
        while not waiting.empty():
            result = judge(own, *waiting.get_nowait())
            with lock, log.open("a") as stream:
                results.append(result)
                stream.write(json.dumps(result) + "\n")
                (folder / "report.md").write_text(report(results, options.count))
                print(f"{len(results)}/{options.count} {result['outcome']:8} {result['seconds']:6.1f} s  {result['file']}", flush=True)

    workers = [threading.Thread(target=work, args=(copy_of(folder / f"copy{i}"),)) for i in range(options.jobs)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    print((folder / "report.md").read_text().split("\nSurvivors")[0])


if __name__ == "__main__":
    main()
