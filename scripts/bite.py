#!/usr/bin/env python3
"""Shows that the simulation finds faults: `python3 scripts/bite.py [SEEDS [WORDS]]`. WORDS selects mutations by their names.

Breaks one rule at a time, as the patches in tests/simulation/mutations say, in a copy of the tree; builds it, runs seeds until
one fails, and prints after how many that was. A patch is a few words, an empty line, and a diff whose lines are found by their
text, wherever they stand by now. The copy and its build stay in the folder `bite` of the target directory, or in
BITE_TARGET_DIR, so that each build after the first compiles only what a patch changes. Standard library only.
"""

import filecmp
import os
import re
import shutil
import subprocess
import sys

from terminal import target_dir

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
MUTATIONS = os.path.join(ROOT, "tests", "simulation", "mutations")
TEST = "simulation::at_rest_every_seed_agrees_with_the_model"


def hunks(patch):
    """The (path, text before, text after) of each hunk."""
    path, before, after = None, None, None
    for line in patch.splitlines(keepends=True):
        if line.startswith("--- "):
            continue
        if line.startswith(("+++ ", "@@")) and before:
            yield path, "".join(before), "".join(after)
        if line.startswith("+++ "):
            path, before, after = line[len("+++ b/"):].strip(), [], []
        elif line.startswith("@@"):
            before, after = [], []
        elif path is not None:
            if line[0] in " -":
                before.append(line[1:])
            if line[0] in " +":
                after.append(line[1:])
    if before:
        yield path, "".join(before), "".join(after)


def apply(patch, tree):
    for path, before, after in hunks(patch):
        with open(os.path.join(tree, path), encoding="utf-8") as file:
            text = file.read()
        if text.count(before) != 1:
            raise ValueError(f"{path} does not hold the lines of the patch once, but {text.count(before)} times")
        with open(os.path.join(tree, path), "w", encoding="utf-8") as file:
            file.write(text.replace(before, after))


def found_after(tree, seeds, env):
    """The number of seeds until one failed, and what was wrong; none when none did."""
    test = ["cargo", "test", "--quiet", "--locked", "--lib", "--", "--exact", TEST, "--nocapture"]
    run = subprocess.run(test, cwd=tree, env={**env, "SEEDS": str(seeds)}, capture_output=True, text=True, errors="replace")
    failed = re.search(r"^seed (\d+) failed:\n\s+(.*)$", run.stdout + run.stderr, re.MULTILINE)
    if failed:
        return int(failed[1]) + 1, failed[2]
    if run.returncode != 0:
        raise ValueError("it does not build, or ended without a word:\n" + (run.stdout + run.stderr)[-3000:])
    return None


def copy_tree(tree):
    """Makes the copy equal to the tree. Files with the same content keep their times, so that they are not built again."""
    files = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    names = {name for name in files.split("\0") if name and os.path.isfile(os.path.join(ROOT, name))}
    for folder, _, found in os.walk(tree):
        for name in found:
            path = os.path.join(folder, name)
            if os.path.relpath(path, tree) not in names:
                os.remove(path)
    for name in names:
        source, copy = os.path.join(ROOT, name), os.path.join(tree, name)
        if not os.path.isfile(copy) or not filecmp.cmp(source, copy, shallow=False):
            os.makedirs(os.path.dirname(copy), exist_ok=True)
            shutil.copyfile(source, copy)
            shutil.copymode(source, copy)


def main():
    seeds = int(sys.argv[1]) if len(sys.argv) > 1 else 2000
    only = sys.argv[2] if len(sys.argv) > 2 else ""
    target = os.environ.get("BITE_TARGET_DIR") or os.path.join(target_dir(ROOT), "bite")
    env = {**os.environ, "CARGO_TARGET_DIR": target, "CARGO_INCREMENTAL": "1", "RUST_BACKTRACE": "0"}
    tree = os.path.join(target, "tree")
    missed = 0
    for name in sorted(os.listdir(MUTATIONS)):
        if only not in name:
            continue
        # Also undoes the mutation before.
        copy_tree(tree)
        with open(os.path.join(MUTATIONS, name), encoding="utf-8") as file:
            apply(file.read(), tree)
        found = found_after(tree, seeds, env)
        missed += found is None
        print(f"{name}: " + (f"found after {found[0]} seeds: {found[1]}" if found else f"NOT FOUND in {seeds} seeds"), flush=True)
    copy_tree(tree)
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
