import subprocess
import sys

import pytest

from nayer_cli.machine import processor

EPYC = "processor\t: 0\nflags\t\t: fpu sse2 avx avx2 fma\n\nprocessor\t: 1\nflags\t\t: fpu sse2 avx avx2 fma\n"
XEON = "flags : fpu avx2 avx512f avx512_vnni avx512_bf16 amx_int8"
ALDER_LAKE = "flags : fpu avx2 avx_vnni\nflags : fpu avx2 avx_vnni"
GRAVITON = "processor\t: 0\nFeatures\t: fp asimd asimddp bf16 i8mm\n"
PI = "Features\t: fp asimd evtstrm crc32 cpuid\n"
APPLE = "hw.optional.arm.FEAT_DotProd: 1\nhw.optional.arm.FEAT_BF16: 0\nhw.optional.neon: 1\n"
INTEL_MAC = "hw.optional.avx2_0: 1\nmachdep.cpu.leaf7_features: RDWRFSGS AVX2 AVX512VNNI\nmachdep.cpu.core_count: 4\n"
LINUX, MAC = processor.of_cpuinfo, processor.of_sysctl


@pytest.mark.parametrize(
    ("machine", "read", "text", "answers"),
    [
        ("x86_64", LINUX, EPYC, {"AVX2": "yes", "VNNI": "no", "bfloat16": "no"}),
        ("AMD64", LINUX, XEON, {"AVX2": "yes", "VNNI": "yes", "bfloat16": "yes"}),
        ("x86_64", LINUX, ALDER_LAKE, {"AVX2": "yes", "VNNI": "yes", "bfloat16": "no"}),
        ("aarch64", LINUX, GRAVITON, {"dot product": "yes", "bfloat16": "yes"}),
        ("aarch64", LINUX, PI, {"dot product": "no", "bfloat16": "no"}),
        ("arm64", MAC, APPLE, {"dot product": "yes", "bfloat16": "no"}),
        ("x86_64", MAC, INTEL_MAC, {"AVX2": "yes", "VNNI": "yes", "bfloat16": "no"}),
        ("riscv64", LINUX, "isa : rv64\nfeatures : v", {"abilities": "unknown here"}),
        ("x86_64", LINUX, "nothing\n", {"abilities": "unknown here"}),
        ("arm64", MAC, "", {"abilities": "unknown here"}),
    ],
)
def test_what_a_processor_can_do(machine, read, text, answers):
    found = processor.abilities(machine, read(text))
    assert {name: sentence.partition(":")[0] for name, sentence in found.items()} == answers


def test_a_processor_has_a_name():
    assert processor.name_in("processor : 0\nmodel name\t: Some CPU @ 2:1\nmodel name : Another") == "Some CPU @ 2:1"
    assert processor.name_in("Features : fp") == ""
    assert processor.name()


def test_what_only_some_cores_can_do_does_not_count():
    assert processor.of_cpuinfo("Features : fp asimd asimddp\nFeatures : fp asimd") == {"fp", "asimd"}


def test_what_follows_from_a_lack_of_vnni_is_said():
    assert "full give wrong classes" in processor.abilities("x86_64", processor.of_cpuinfo(EPYC))["VNNI"]


@pytest.mark.parametrize("system", ["Linux", "Darwin", "Windows"])
def test_a_system_that_does_not_answer_leaves_it_unknown(monkeypatch, tmp_path, system):
    monkeypatch.setattr(processor.platform, "system", lambda: system)
    monkeypatch.setattr(processor, "CPUINFO", tmp_path / "none")
    monkeypatch.setattr(processor, "SYSCTL", (str(tmp_path / "none"),))
    assert processor.words() is None


def test_macos_is_asked(monkeypatch):
    monkeypatch.setattr(processor.platform, "system", lambda: "Darwin")
    monkeypatch.setattr(processor, "SYSCTL", (sys.executable, "-c", f"print({APPLE!r})"))
    assert processor.words() == {"feat_dotprod", "neon"}


def test_torch_is_not_needed():
    code = "import sys, nayer_cli.machine.processor as p; p.describe(); sys.exit('torch' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)
