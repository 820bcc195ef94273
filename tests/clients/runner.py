"""Runs every `test_*` function of a module and says how many passed."""

import sys
import traceback


def run(names):
    tests = [(name, test) for name, test in names.items() if name.startswith("test_") and callable(test)]
    failed = 0
    for name, test in tests:
        try:
            test()
        except Exception:
            failed += 1
            print(f"FAILED {name}")
            traceback.print_exc(file=sys.stdout)
    print(f"{len(tests) - failed} passed, {failed} failed")
    sys.exit(1 if failed else 0)
