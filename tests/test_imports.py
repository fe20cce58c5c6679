"""The house: imports point down, and `import tubelet` and `tubelet --help` stay light."""

import ast
import re
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

SOURCE = Path(__file__).parents[1] / "src" / "tubelet"
FLOORS = """
spec types rng names
disk
nn masks video
models data
targets
methods
recipe doctor
weights recipes
train
sets
plan eval pictures
runs inference
cli
__main__
"""
LAYERS = {room: floor for floor, rooms in enumerate(FLOORS.split("\n")) for room in rooms.split()}


def room_of(path: Path) -> str:
    return path.relative_to(SOURCE).parts[0].removesuffix(".py")


def imported_rooms(path: Path) -> list[tuple[int, str]]:
    found = []
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.level == 0 and (node.module or "").startswith("tubelet"):
            parts = (node.module or "").split(".")
            rooms = [parts[1]] if len(parts) > 1 else [alias.name for alias in node.names]
            found += [(node.lineno, room) for room in rooms]
        if isinstance(node, ast.Import):
            found += [(node.lineno, alias.name.split(".")[1]) for alias in node.names if "tubelet." in alias.name]
        assert not (isinstance(node, ast.ImportFrom) and node.level), f"{path}: relative import"
    return found


MODULES = sorted(path for path in SOURCE.rglob("*.py") if path != SOURCE / "__init__.py")


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(SOURCE)))
def test_imports_point_down(path: Path) -> None:
    room = room_of(path)
    for line, other in imported_rooms(path):
        if other == "__version__":
            continue
        assert other in LAYERS, f"{path.name}:{line} imports {other}, which has no layer"
        assert LAYERS[other] <= LAYERS[room], f"{path.name}:{line}: {room} imports {other} from above"


def test_no_room_has_more_than_twenty_files() -> None:
    rooms = {path.parent for path in SOURCE.rglob("*.py")}
    full = [room for room in rooms if len(list(room.glob("*.py"))) > 20]
    assert not full, f"more than 20 files: {full}"


def test_an_upward_import_is_found(tmp_path: Path) -> None:
    wrong = tmp_path / "wrong.py"
    wrong.write_text("from tubelet.cli import main\nimport tubelet.train.loop\n")
    assert imported_rooms(wrong) == [(1, "cli"), (2, "train")]


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(SOURCE)))
def test_budgets(path: Path) -> None:
    text = path.read_text()
    assert text.count("\n") <= 400, f"{path} has more than 400 lines"
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.FunctionDef):
            assert (node.end_lineno or 0) - node.lineno + 1 <= 50, f"{path}:{node.lineno} {node.name} is over 50 lines"
        if isinstance(node, ast.ExceptHandler):
            assert node.type is not None, f"{path}:{node.lineno} bare except"


def modules_after(statement: str) -> set[str]:
    code = f"import sys\n{statement}\nprint('\\n'.join(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return set(done.stdout.split("\n"))


def test_import_tubelet_does_not_import_torch() -> None:
    assert "torch" not in modules_after("import tubelet")


def test_help_does_not_import_torch() -> None:
    statement = """from tubelet.cli import main
try:
    main(['--help'])
except SystemExit as stop:
    assert not stop.code"""
    loaded = modules_after(statement)
    assert not loaded & {"torch", "numpy", "av", "pydantic", "matplotlib"}


BENCHMARKS = SOURCE.parents[1] / "benchmarks"


def names_of_imports(path: Path) -> set[str]:
    """First words of what a file imports, wherever in it."""
    nodes = list(ast.walk(ast.parse(path.read_text())))
    plain = {alias.name.split(".")[0] for node in nodes if isinstance(node, ast.Import) for alias in node.names}
    return plain | {(node.module or "").split(".")[0] for node in nodes if isinstance(node, ast.ImportFrom)}


def test_benchmarks_have_no_import_circle() -> None:
    needs = {path.stem: names_of_imports(path) for path in BENCHMARKS.glob("*.py")}
    left = {name: needed & needs.keys() for name, needed in needs.items()}
    while free := {name for name, needed in left.items() if not needed & left.keys()}:
        left = {name: needed for name, needed in left.items() if name not in free}
    assert not left, f"they import each other: {sorted(left)}"


def classes_of(path: Path) -> list[str]:
    return [node.name for node in ast.parse(path.read_text()).body if isinstance(node, ast.ClassDef)]


def test_no_class_name_is_defined_twice() -> None:
    names = Counter(name for path in MODULES for name in classes_of(path))
    twice = {name for name, count in names.items() if count > 1}
    assert not twice, f"defined more than once: {sorted(twice)}"


OF_THE_DISK = re.compile(r"\b(fsync|fcntl|flock|lockf|msvcrt|filelock)\b|\bos\.(replace|rename)\(|\.rename\(")
RENAMES = re.compile(r"\b(temporary|unfinished|path|file|folder)\.replace\(")


def test_only_the_room_of_the_disk_syncs_locks_and_renames() -> None:
    found = [
        f"{path.relative_to(SOURCE)}:{number}: {line.strip()}"
        for path in MODULES
        if room_of(path) != "disk"
        for number, line in enumerate(path.read_text().splitlines(), start=1)
        if OF_THE_DISK.search(line) or RENAMES.search(line)
    ]
    assert not found, "\n".join(found)
