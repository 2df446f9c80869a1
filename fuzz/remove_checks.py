# SPDX-License-Identifier: MIT
"""Takes every check out of the readers, one at a time, and sees whether a test notices.

    python fuzz/remove_checks.py [--work WORK] [READER ...]

READER is torch, npz, safetensors, clstm, onnx, c, or shared: what all readers in Python share.
Without one all are taken. A check is in Python a `raise`, the return of an error, or the call for
its own sake of a function that may raise; in C an error return, a fault that is noted, or the call
of a function that does either. First the kept corpus is read without it: its files must come to
something else than `corpus/READER.json` says. Where they do not, the tests of that reader are run.
What survives both is printed, and must be argued in ARGUED. A run goes on where the last one
stopped (WORK/checks.json); after a change of the tests give it another folder.
"""

from __future__ import annotations

import argparse
import ast
import contextlib
import functools
import hashlib
import importlib
import io
import json
import os
import re
import signal
import sys
import types
import warnings
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import NamedTuple, TypeGuard

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent
sys.path[:0] = [str(ROOT / p) for p in ("tests", "tests/unit", "tests/native")]

import build  # noqa: E402  # of tests/native

UNIT, CORE = ROOT / "tests/unit", ROOT / "tests/core"
TESTS = {
    "torch": [UNIT / f"test_torch_{w}.py" for w in ("archive", "reader", "hostile")],
    "npz": [UNIT / "test_npz_reader.py", UNIT / "test_source.py", UNIT / "test_torch_archive.py"],
    "safetensors": [UNIT / "test_safetensors_reader.py", UNIT / "test_source.py"],
    "clstm": [CORE / "test_files.py"],
    "shared": [UNIT / "test_source.py", UNIT / "test_torch_reader.py", CORE / "test_loading.py"],
    "onnx": [
        *sorted(CORE.glob("test_onnx_*.py")),
        *(ROOT / f"tests/parity/test_onnx_{w}.py" for w in ("accepted", "graphs")),
    ],
}
SHARED = ("source.py", "budget.py", "__init__.py")
C_FILES = ("file.c", "weights.c", "certificate.c", "model.c", "make_cells.c", "stream.c")
C_FILES += ("sequence.c",)

SECONDS = 60  # of a CPU; who takes longer has lost its way

# Survivors, by the text of the check, and why no test can or need notice.
ARGUED: dict[str, str] = {
    "if (b->n_batch > SIZE_MAX / steps) return CLSTM_NO_MEMORY;": "16 bytes a sequence are asked "
    "for behind it: that many are had only where memory is promised that is not there",
    "if (m->blas.sgemm && !waits && !t->full && !cell->norm && !clstm_blas_pack(&m->memory, "
    "&cell->gates, &cell->blas)) return CLSTM_NO_MEMORY;": "needs a BLAS, which the loop of "
    "failing mallocs has not; the cell would keep to the packed products",
    'raise ModelFormatError(f"{name}: names that are not UTF-8") from None': (
        "of protobuf without its C part, which is chosen when it is imported: "
        "test_onnx_hostile.py tries it in another process, which has the check"
    ),
}


class Check(NamedTuple):
    reader: str
    file: Path
    line: int
    text: str  # the statement, white space folded
    function: str  # of Python: the outermost one that it stands in; of C: ""
    source: str  # the whole file without it

    @property
    def key(self) -> str:
        digest = hashlib.sha256(self.source.encode()).hexdigest()[:12]
        return f"{self.reader} {self.file.name}:{self.line} {digest}"


# -- Python


def python_checks(reader: str, sources: tuple[str, ...]) -> Iterator[Check]:
    refusing = _refusing()
    for source in sources:
        file = ROOT / "clstm/formats" / source
        text = file.read_text()
        tree = ast.parse(text)
        for function, node in _functions(tree):
            for at in ast.walk(node):
                if _is_check(at, refusing):
                    yield without(reader, file, at, function)


def without(reader: str, file: Path, at: ast.stmt, function: str) -> Check:
    text = file.read_text()
    lines = text.splitlines()
    lines[at.lineno - 1] = lines[at.lineno - 1][: at.col_offset] + "pass"
    lines[at.lineno : at.end_lineno] = [""] * ((at.end_lineno or 0) - at.lineno)
    folded = " ".join((ast.get_source_segment(text, at) or "").split())
    return Check(reader, file, at.lineno, folded, function, "\n".join(lines))


def _is_check(at: ast.AST, refusing: set[str]) -> TypeGuard[ast.stmt]:
    match at:
        case ast.Raise():
            return True
        case ast.Return(value=ast.Call(func=made)):
            return _called(made) in {"fault", "unsupported", "Unreadable"}
        case ast.Expr(value=ast.Call(func=made)):
            return _called(made) in refusing
    return False


def _called(function: ast.expr) -> str:
    return getattr(function, "attr", getattr(function, "id", ""))


@functools.cache
def _refusing() -> set[str]:
    """Names of the functions of the readers that may raise, themselves or by a call; but for those
    of Python's own methods."""
    bodies: dict[str, set[str]] = {}
    for file in (ROOT / "clstm/formats").rglob("*.py"):
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.FunctionDef):
                body = bodies.setdefault(node.name, set())
                for at in ast.walk(node):
                    if isinstance(at, ast.Raise):
                        body.add("raise")
                    elif isinstance(at, ast.Call):
                        body.add(_called(at.func))
    refusing = {"raise"}
    while more := {name for name, body in bodies.items() if body & refusing} - refusing:
        refusing |= more
    return refusing - {*dir(list), *dir(dict), *dir(set)}


def _functions(tree: ast.Module) -> Iterator[tuple[str, ast.AST]]:
    """The functions of a module and the methods of its classes; nested ones go with them."""
    for node in tree.body:
        if isinstance(node, ast.FunctionDef):
            yield node.name, node
        for inner in node.body if isinstance(node, ast.ClassDef) else []:
            if isinstance(inner, ast.FunctionDef):
                yield f"{node.name}.{inner.name}", inner


def _put_in_place(check: Check) -> None:
    """The function gets the code without its check; whoever holds it runs that."""
    name = ".".join(check.file.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")
    owner: object = importlib.import_module(name)  # of ONNX some are imported at first use
    code = compile(check.source, str(check.file), "exec", dont_inherit=True)
    for part in check.function.split("."):
        code = next(
            c for c in code.co_consts if isinstance(c, types.CodeType) and c.co_name == part
        )
        owner = owner.__dict__[part]  # not getattr: a property is wanted as it stands
    for function in (owner, getattr(owner, "fget", None), getattr(owner, "__func__", None)):
        if isinstance(function, types.FunctionType):
            function.__code__ = code


def _in_a_child(work: Callable[[], bool], seconds: int) -> bool:
    """Whether `work`, in a process of its own, noticed something, fell over or took too long."""
    child = os.fork()
    if child == 0:
        signal.alarm(seconds)
        status = 1
        with contextlib.suppress(BaseException), open(os.devnull, "w") as nowhere:
            os.dup2(nowhere.fileno(), 1)
            os.dup2(nowhere.fileno(), 2)
            status = 1 if work() else 0
        os._exit(status)
    return os.waitpid(child, 0)[1] != 0


def _corpus_notices(check: Check) -> bool:
    from fuzz_readers import CORPUS, READERS, outcomes

    _put_in_place(check)
    known = json.loads((CORPUS / f"{check.reader}.json").read_text())
    words = set(re.findall(r"[a-z]{4,}", check.text))  # first the files that are told its sentence

    def rank(name: str) -> int:
        return -len(words.intersection(re.findall(r"[a-z]{4,}", " ".join(known[name]))))

    return any(
        outcomes(READERS[check.reader], (CORPUS / check.reader / name).read_bytes()) != known[name]
        for name in sorted(known, key=rank)
    )


def _tests_notice(check: Check) -> bool:
    import pytest

    _put_in_place(check)
    words = ["-x", "-q", "-p", "no:cacheprovider", "-p", "no:xdist", "--rootdir", str(ROOT)]
    with contextlib.redirect_stdout(io.StringIO()):
        return pytest.main([*words, *map(str, TESTS[check.reader])]) != 0


# -- C

_WORDS = r"(?:[^;\"]|\"(?:\\.|[^\"\\])*\")*;"  # to the end of the statement
_FAILS = re.compile(
    rf"return (?:[^;\"]*\? CLSTM_OK : )?clstm_fail\({_WORDS}|return CLSTM_(?!OK)\w+;"
    rf"|\bbad\(&?c, {_WORDS}|(?:c->)?\bstatus =\s+clstm_fail\({_WORDS}"
    r"|return (?:c\.)?status;|if \(status == CLSTM_OK\) status = [^;]*;"
    r"|(?<!return )(?<!= )\b(?:take(?:_\w+)?|needs_width|check_\w+)\(&?c\b[^;]*;"
)


def c_checks() -> Iterator[Check]:
    for name in C_FILES:
        file = ROOT / "csrc/src" / name
        text = file.read_text()
        for match in _FAILS.finditer(text):
            line = text.count("\n", 0, match.start()) + 1
            last = text.startswith("\n}", match.end())  # a function must end with a value
            instead = "return CLSTM_OK;" if last and match[0].startswith("return") else "{}"
            source = text[: match.start()] + instead + text[match.end() :]
            begin = max(text.rfind(end, 0, match.start()) for end in ";{}") + 1
            statement = re.sub(r"/\*.*?\*/", "", text[begin : match.end()], flags=re.DOTALL)
            statement = " ".join(statement.split())  # with its condition
            yield Check("c", file, line, statement, "", source)


class Way(NamedTuple):
    """A program of the native tests, that fails or prints something else if it notices."""

    programs: tuple[str, ...]
    flags: tuple[str, ...]
    arguments: tuple[object, ...]


class CBench:
    """Builds the replay of the corpus and the native checks with one file changed."""

    def __init__(self, folder: Path, builder: build.Builder) -> None:
        import hostile_images
        import models
        from test_hostile import FAILING_MALLOC, READER, larger, small

        self.folder, self.builder = folder, builder
        self.env = {"CLSTM_KERNEL": "scalar", "ASAN_OPTIONS": "allocator_may_return_null=1"}
        corpus = sorted((HERE / "corpus/clstm").iterdir())
        images = list(small())
        folder.mkdir(parents=True, exist_ok=True)
        damage = models.write_pack(folder / "damage", images)
        refused = models.write_pack(folder / "refused", hostile_images.refused())
        few = models.write_pack(folder / "few", images[:4])
        (folder / "one").write_bytes(images[0])
        (folder / "larger").write_bytes(larger())
        replay = (str(HERE / "fuzz_clstm.c"), "hostile.c")
        define = ("-DREPLAY", f"-I{build.TESTS_C}")
        self.ways = [  # the quick ones first
            Way(replay, ("-O0", *define), (*corpus,)),
            Way(("check_refused.c", "check.c"), ("-O0",), (refused,)),
            Way(("check_memory.c", "check.c"), FAILING_MALLOC, (damage, folder / "one")),
            Way(("check_changes.c", "hostile.c", "check.c"), ("-O0",), (folder / "larger", 100)),
            Way(replay, (*READER, *define), (*corpus,)),
            Way(("check_file.c", "hostile.c", "check.c"), ("-O0",), (few, 300)),
        ]
        self.sound: dict[Way, str] = {}  # what each says of the sources as they are

    def notices(self, check: Check) -> str:
        """The program that does, or ""."""
        for way in self.ways:
            if way not in self.sound:
                self.sound[way] = self._says(way, whole(check))
                assert self.sound[way], f"{way.programs[0]} fails with every check in place"
            if self._says(way, check) != self.sound[way]:
                return Path(way.programs[0]).stem
        return ""

    def _says(self, way: Way, check: Check) -> str:
        """What the program says with this file in place of the tree's; "" if it fails. Only the
        sentences of the corpus are compared: those are kept in corpus/c.json."""
        copy, program = self.folder / check.file.name, self.folder / "program"
        copy.write_text(check.source)
        objects = [o.result() for o in self.builder.start(way.programs, "cc", way.flags)]
        rest = [o for o in objects if o.name != f"src-{check.file.stem}.o"]
        include = [f"-I{ROOT}/csrc/include", f"-I{ROOT}/csrc/src"]
        words = ["cc", *way.flags, "-w", *include, copy, *rest, *build.LIBRARIES, "-o", program]
        build.succeed(words)
        limited = ["sh", "-c", f'ulimit -t {SECONDS}; exec "$0" "$@"', program, *way.arguments]
        if (done := build.run(limited, timeout=None, env=self.env)).returncode:
            return ""
        return done.stdout if "-DREPLAY" in way.flags else "passed"


# -- all


def whole(check: Check) -> Check:
    """The same with every check in place."""
    return check._replace(source=check.file.read_text())


def outcome(check: Check, bench: CBench | None) -> str:
    """What notices that it is gone, or ""."""
    if check.reader == "c":
        assert bench is not None
        return bench.notices(check)
    if check.reader != "shared" and _in_a_child(lambda: _corpus_notices(check), 60):
        return "corpus"
    return "tests" if _in_a_child(lambda: _tests_notice(check), 600) else ""


def report(checks: list[Check], known: dict[str, str]) -> int:
    """The survivors and why, and the sum; how many are not argued."""
    left = [c for c in checks if not known[c.key]]
    for check in left:
        why = ARGUED.get(check.text, "NOT ARGUED")
        print(f"{check.file.name}:{check.line}: {check.text[:90]}: {why}")
    argued = sum(c.text in ARGUED for c in left)
    print(
        f"checks removed: {len(checks)}, noticed: {len(checks) - len(left)}, "
        f"survive with a reason: {argued}, survive: {len(left) - argued}"
    )
    return len(left) - argued


def checks_of(names: Iterable[str]) -> list[Check]:
    from fuzz_readers import READERS

    checks: dict[tuple[Path, int, str], Check] = {}  # a file of two readers counts once
    for name in names:
        if name == "c":
            mine = c_checks()
        else:
            mine = python_checks(name, SHARED if name == "shared" else READERS[name].sources)
        for check in mine:
            checks.setdefault((check.file, check.line, check.text), check)
    return list(checks.values())


def main() -> int:
    warnings.simplefilter("ignore")
    from fuzz_readers import READERS

    every = [*READERS, "shared", "c"]
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("readers", nargs="*", choices=every)
    parser.add_argument("--work", type=Path, default=HERE / "runs")
    args = parser.parse_args()
    names = args.readers or every
    file = args.work / "checks.json"
    args.work.mkdir(exist_ok=True)
    known: dict[str, str] = json.loads(file.read_text()) if file.exists() else {}
    checks = checks_of(names)
    if "torch" in names:
        import torch  # noqa: F401  # once, before the children
    if "onnx" in names:
        import onnx.reference  # noqa: F401
    for check in {c.reader: c for c in checks if c.reader in READERS}.values():
        if _in_a_child(lambda check=check: _corpus_notices(whole(check)), 120):
            sys.exit(f"{check.reader}: the corpus differs with every check in place; see replay")
    with TemporaryDirectory() as objects:
        builder = build.Builder(objects)
        bench = CBench(args.work / "checks", builder) if "c" in names else None
        for i, check in enumerate(checks):
            if check.key not in known:
                known[check.key] = outcome(check, bench)
                file.write_text(json.dumps(known, indent=0))
            found = known[check.key] or "SURVIVES"
            print(f"{i + 1}/{len(checks)} {check.key}: {found}", flush=True)
        builder.close()
    return 1 if report(checks, known) else 0


if __name__ == "__main__":
    sys.exit(main())
