"""The processor's ways to multiply, by the operating system, and what follows from them. Without torch."""

import platform
import subprocess
from pathlib import Path
from typing import NamedTuple

CPUINFO = Path("/proc/cpuinfo")
SYSCTL = ("sysctl", "hw.optional", "machdep.cpu")
SECONDS = 5
X86, ARM = ("x86_64", "amd64", "i686"), ("aarch64", "arm64")
UNKNOWN = "unknown here: nothing that nayer writes by default depends on it"


class Ability(NamedTuple):
    """Something that a processor has or lacks."""

    name: str
    spellings: tuple[str, ...]
    """Words of the operating systems for it, in small letters; any of them will do."""
    present: str
    """The advantage of a processor with it."""
    absent: str
    """The behaviour of a processor without it."""


AVX2 = Ability(
    "AVX2",
    ("avx2", "avx2_0"),
    "integer networks run on vectors of 32 bytes",
    "integer networks run slowly, perhaps not faster than float ones",
)
VNNI = Ability(
    "VNNI",
    ("avx512_vnni", "avx_vnni", "avx512vnni", "avxvnni"),
    "products of 8 bits add up in 32 bits: files of --weight-range full are exact, too",
    "products of 8 bits add up in 16 bits: files of --weight-range full give wrong classes, all others are exact",
)
BF16 = Ability(
    "bfloat16",
    ("avx512_bf16", "avx512bf16"),
    "--amp auto computes in bfloat16",
    "--amp auto stays in float32",
)
DOT_PRODUCT = Ability(
    "dot product",
    ("asimddp", "feat_dotprod"),
    "SDOT and UDOT add in 32 bits: files of any --weight-range are exact, and fast",
    "integer networks run slowly, perhaps not faster than float ones",
)
ARM_BF16 = Ability(
    "bfloat16",
    ("bf16", "feat_bf16"),
    "--amp bf16 can be tried; --amp auto stays in float32",
    "--amp auto stays in float32",
)


def describe() -> dict[str, str]:
    """Return for each ability that matters whether this processor has it, and what follows."""
    return abilities(platform.machine(), words())


def abilities(machine: str, known: frozenset[str] | None) -> dict[str, str]:
    """Return the same for a kind of machine, such as x86_64, and the words that its system has for what it can do."""
    kinds = {**dict.fromkeys(X86, (AVX2, VNNI, BF16)), **dict.fromkeys(ARM, (DOT_PRODUCT, ARM_BF16))}
    if known is None or machine.lower() not in kinds:
        return {"abilities": UNKNOWN}
    return {one.name: _sentence(one, known) for one in kinds[machine.lower()]}


def name() -> str:
    """Return what the processor calls itself, or else its kind of machine."""
    try:
        match platform.system():
            case "Linux":
                found = name_in(CPUINFO.read_text(encoding="utf-8", errors="replace"))
            case "Darwin":
                line = ("sysctl", "-n", "machdep.cpu.brand_string")
                done = subprocess.run(line, capture_output=True, text=True, timeout=SECONDS, check=False)
                found = done.stdout.strip()
            case _:
                found = ""
    except (OSError, subprocess.SubprocessError):
        found = ""
    return found or platform.processor() or platform.machine()


def name_in(text: str) -> str:
    """Return the name of the first processor of a /proc/cpuinfo; empty if it has none."""
    pairs = ((key.strip(), value.strip()) for key, _, value in (line.partition(":") for line in text.splitlines()))
    return next((value for key, value in pairs if key == "model name"), "")


def words() -> frozenset[str] | None:
    """Return what Linux or macOS calls the abilities of this processor, in small letters; None if that is unknown."""
    try:
        match platform.system():
            case "Linux":
                return of_cpuinfo(CPUINFO.read_text(encoding="utf-8", errors="replace"))
            case "Darwin":
                done = subprocess.run(SYSCTL, capture_output=True, text=True, timeout=SECONDS, check=False)
                return of_sysctl(done.stdout)
    except (OSError, subprocess.SubprocessError):
        pass
    return None


def of_cpuinfo(text: str) -> frozenset[str] | None:
    """Return the words that all processors of a /proc/cpuinfo have in common, or None if it lists none."""
    lines = (line.partition(":") for line in text.splitlines())
    found = [
        frozenset(value.lower().split()) for key, _, value in lines if key.strip().lower() in ("flags", "features")
    ]
    return frozenset.intersection(*found) if found else None


def of_sysctl(text: str) -> frozenset[str] | None:
    """Return the words of macOS: the names with the value 1, and the lists of x86 processors."""
    found: set[str] = set()
    for line in text.splitlines():
        key, _, value = line.lower().partition(":")
        if value.strip() == "1":
            found.add(key.rpartition(".")[2])
        elif key.endswith("features"):
            found.update(value.split())
    return frozenset(found) or None


def _sentence(ability: Ability, known: frozenset[str]) -> str:
    has = not known.isdisjoint(ability.spellings)
    return f"yes: {ability.present}" if has else f"no: {ability.absent}"
