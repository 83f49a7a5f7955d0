"""Write the sets of packages that are tested: python -m tests.update_constraints.

constraints-lowest.txt is what pyproject.toml asks for, each at its floor. constraints.txt is what is installed here and
now with what each package needs: run it in a new environment of the oldest Python that is tested, so that the set
suits all. `--check` writes nothing and fails where a package is installed that constraints.txt does not have, or in
another version.
"""

import re
import sys
import tomllib
from importlib.metadata import distribution
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parent.parent
TESTED, LOWEST = ROOT / "constraints.txt", ROOT / "constraints-lowest.txt"
OLDEST = "3.11"
HEADS = {
    TESTED: f"""# The packages that all tests are run with, on Linux. Written in a new environment by
#   python{OLDEST} -m venv NEW && NEW/bin/pip install -e '.[dev,mutants]' && NEW/bin/python -m tests.update_constraints
""",
    LOWEST: """# The floors of pyproject.toml, the lowest packages that are tested. Written by
#   python -m tests.update_constraints
""",
}


def asked() -> list[Requirement]:
    """Return what pyproject.toml asks for, for use and for development."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    lines = [*project["dependencies"], *(line for extra in project["optional-dependencies"].values() for line in extra)]
    return [Requirement(line) for line in lines]


def floor(requirement: Requirement) -> str:
    """Return the lowest version that a requirement allows."""
    (lowest,) = [one.version for one in requirement.specifier if one.operator == ">="]
    return lowest


def lowest() -> str:
    """Return constraints that hold each package that is asked for at its floor."""
    lines = {
        f"{canonicalize_name(one.name)}=={floor(one)}" + (f"; {one.marker}" if one.marker else "") for one in asked()
    }
    return HEADS[LOWEST] + "".join(f"{line}\n" for line in sorted(lines))


def installed() -> dict[str, str]:
    """Return name -> version of each package here that is asked for, and that those need in turn."""
    found: dict[str, str] = {}
    waiting = asked()
    while waiting:
        one = waiting.pop()
        if canonicalize_name(one.name) in found or (one.marker and not one.marker.evaluate({"extra": ""})):
            continue
        package = distribution(one.name)
        found[canonicalize_name(one.name)] = package.version
        waiting += [Requirement(line) for line in package.requires or []]
    return found


def tested() -> str:
    """Return constraints that hold each package at the version that is installed."""
    return HEADS[TESTED] + "".join(f"{name}=={version}\n" for name, version in sorted(installed().items()))


def pins(text: str) -> dict[str, str]:
    """Return name -> version of constraints."""
    return dict(re.findall(r"^([\w.-]+)==([^\s;]+)", text, re.MULTILINE))


def main() -> None:
    """Check, or write both."""
    if "--check" in sys.argv[1:]:
        known = pins(TESTED.read_text(encoding="utf-8"))
        other = [f"{name}=={version}" for name, version in installed().items() if known.get(name) != version]
        sys.exit(f"not in {TESTED.name}: {' '.join(sorted(other))}" if other else 0)
    LOWEST.write_text(lowest(), encoding="utf-8")
    TESTED.write_text(tested(), encoding="utf-8")


if __name__ == "__main__":
    main()
