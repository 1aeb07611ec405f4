"""Copies are noticed however they were disguised; independent answers are not accused."""

import inspect

from autograder import answers, similarity

RELEASED = """
def step(state):
    word = int.from_bytes(state["memory"][state["pc"] : state["pc"] + 4], "little")
    raise NotImplementedError
"""
ORIGINAL = RELEASED.replace(
    "    raise NotImplementedError",
    """
    opcode, rd, rs1 = word & 0x7f, word >> 7 & 31, word >> 15 & 31
    if opcode == 0x13:
        value = state["registers"][rs1] + signed(word >> 20, 12)
        state["registers"][rd] = value & 0xffffffff
        state["registers"][0] = 0
        state["pc"] += 4
    elif opcode == 0x6f:
        target = state["pc"] + jump_offset(word)
        state["registers"][rd] = state["pc"] + 4
        state["pc"] = target & 0xffffffff
    for number in range(32):
        assert 0 <= state["registers"][number] < 2**32, number
    return {"pc": state["pc"], "registers": list(state["registers"])}
""",
)
DISGUISED = "# all my own work\n" + ORIGINAL.replace("state", "machine").replace("value", "summe").replace("32", "0x20")


def test_renaming_and_comments_do_not_hide_a_copy():
    """Names, numbers, spacing, comments and docstrings carry no weight."""
    [pair] = similarity.compare({"ada": ORIGINAL, "bob": DISGUISED, "cyd": "x = 1\n"}, RELEASED)
    assert pair.students == ("ada", "bob")
    assert pair.likeness > 0.95


def test_what_everyone_was_given_is_no_evidence():
    """The released code alone makes no pair."""
    assert similarity.compare({"ada": RELEASED, "bob": RELEASED}, RELEASED) == []


def test_what_half_of_the_class_wrote_is_no_evidence():
    """An idiom that most wrote is not listed for every two of them."""
    assert similarity.compare(dict.fromkeys("abcdef", ORIGINAL)) == []


def test_different_right_answers_of_the_course_are_not_accused():
    """The course's own alternative answers to one exercise were written apart, and count as such."""
    mine = [a for a in answers.load() if a.lesson == "isa" and a.exercise == "decode_fixed" and a.misconception is None]
    code = {answer.name: inspect.getsource(answer.function) for answer in mine}
    assert len(code) >= 2
    assert similarity.compare(code, at_least=0.8) == []


def test_code_that_is_not_python_is_compared_as_far_as_it_goes():
    """Half a program gives the fingerprints of that half."""
    assert similarity.fingerprints(ORIGINAL + "\n    (((\n")
    assert similarity.fingerprints("") == set()


def test_students_who_share_with_each_other_form_one_group():
    """Pairs with a student in common are told as one group."""
    pairs = [
        similarity.Pair(("a", "b"), 0.9, 9),
        similarity.Pair(("c", "d"), 1.0, 9),
        similarity.Pair(("b", "e"), 0.6, 9),
    ]
    assert similarity.groups(pairs) == [(("c", "d"), 1.0), (("a", "b", "e"), 0.9)]
