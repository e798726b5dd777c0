"""Code for the processor in a plan: always found, and not seen where there is none."""

from __future__ import annotations

import struct
import sys
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from kedge_shared.errors import InputError
from kedge_shared.planfile import check_bytes

MAGIC = b"\x7fELF"
#: A classic plan's first bytes; nothing more of it is read.
PLAN = b"ftrt" + bytes(60)
CUDA = 190

weights = st.binary(max_size=200)
#: x86, x86-64, ARM, ARM64, RISC-V, and whatever else is not a GPU.
processors = st.one_of(
    st.sampled_from([3, 62, 40, 183, 243]), st.integers(0, 2**16 - 1).filter(lambda m: m != CUDA)
)


def elf(machine: int, bits: int, order: int, rest: bytes = bytes(9)) -> bytes:
    """A header as ELF says: identification, then type, machine and version."""
    return (MAGIC + bytes((bits, order, 1)) + rest[:9].ljust(9, b"\0")
            + struct.pack("<HHI" if order == 1 else ">HHI", 3, machine, 1))  # fmt: skip


def condemned(plan: bytes) -> bool:
    try:
        check_bytes(plan)
    except InputError as error:
        assert "code for the processor" in error.what
        return True
    return False


@given(weights, weights, processors, st.sampled_from([1, 2]), st.sampled_from([1, 2]),
       st.binary(max_size=9))  # fmt: skip
def test_a_real_header_is_found_wherever_it_lies(
    before: bytes, after: bytes, machine: int, bits: int, order: int, rest: bytes
) -> None:
    assert condemned(PLAN + before + elf(machine, bits, order, rest) + after)


@given(weights, weights, st.sampled_from([1, 2]))
def test_one_behind_a_false_one_too(before: bytes, between: bytes, bits: int) -> None:
    assert condemned(PLAN + before + MAGIC + between + elf(62, bits, 1))


@given(weights, st.binary(min_size=3, max_size=3), st.binary(max_size=40))
@example(b"", b"\0\0\0", bytes(40))
@example(b"", b"\x02\x01\x00", bytes(40))
@example(b"", b"\x02\x03\x01", bytes(40))
@example(b"", b"\x03\x01\x01", bytes(40))
def test_weights_that_spell_its_name_are_weights(before: bytes, behind: bytes, rest: bytes) -> None:
    """Of the values that may follow, a loader takes four in sixteen million."""
    if behind[0] in (1, 2) and behind[1] in (1, 2) and behind[2] == 1:
        return
    plan = PLAN + before.replace(MAGIC, b"") + MAGIC + behind + rest.replace(MAGIC, b"")
    assert not condemned(plan)


@given(weights, st.sampled_from([1, 2]))
def test_code_for_the_gpu_is_what_plans_are_made_of(before: bytes, order: int) -> None:
    assert not condemned(PLAN + before.replace(MAGIC, b"") + elf(CUDA, 2, order) + bytes(40))


def test_a_real_program(tmp_path: Path) -> None:
    program = Path(sys.executable).read_bytes()
    if not program.startswith(MAGIC):
        pytest.skip("Python is no ELF image here")
    assert condemned(PLAN + program)
