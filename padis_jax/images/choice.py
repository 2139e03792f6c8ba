"""Which slices of a volume: a number, 60:70, 3,5,9 or all.

    41          one image, counted from 0
    60:70       60 to 69, as Python's slices: a:b leaves b out, a:b:c takes every c-th, an end that is not named is that
                of the volume, and a negative one counts from the last
    3,5,9       these; ranges too: 3,60:70
    all         every one

What lies beyond the volume is refused, where Python would cut it off. A volume keeps the order of its source, whatever
order it is named in.
"""

from __future__ import annotations

from padis_jax.errors import UserError, quoted

Choice = int | str  # a number is one image, a text is a volume
_FORMS = "use a number, a range 60:70, a list 3,5,9 or all"


def check_choice(flag: str, choice: Choice) -> None:
    """Raises UserError for a choice that none of the forms reads, whatever the volume is."""
    if isinstance(choice, str):
        for part in _parts(flag, choice):
            _numbers(flag, choice, part)


def chosen(flag: str, choice: Choice, count: int, what: str = "images") -> tuple[int, ...]:
    """The numbers that a choice names, ascending.

    Args:
      flag: how the choice is made, for messages.
      choice: of the user.
      count: how many there are.
      what: they are.

    Raises:
      UserError: for numbers that are not there, and a range that holds none.
    """
    if not isinstance(choice, str):
        choice = str(choice)
    found: set[int] = set()
    for part in _parts(flag, choice):
        numbers = _numbers(flag, choice, part)
        if len(numbers) == 1:
            first = numbers[0] or 0
            _within(flag, choice, part, first, count - 1, count, what)
            found.add(first)
            continue
        for end in numbers[:2]:
            if end is not None:
                _within(flag, choice, part, end + count if end < 0 else end, count, count, what)
        taken = range(count)[slice(*numbers)]
        if not taken:
            raise UserError(
                f"{flag} {quoted(choice)}: {part} holds none of the {count} {what}; the second number is left out"
            )
        found.update(taken)
    return tuple(sorted(found))


def one_number(flag: str, choice: Choice) -> int:
    """A choice that must be one; UserError for a volume."""
    if isinstance(choice, str):
        raise UserError(f"{flag} {quoted(choice)}: one number is needed here, not a volume")
    return choice


def described(numbers: tuple[int, ...]) -> str:
    """The numbers as a choice names them: 0:17,24:38."""
    parts, start = [], 0
    for at in range(1, len(numbers) + 1):
        if at == len(numbers) or numbers[at] != numbers[at - 1] + 1:
            first, last = numbers[start], numbers[at - 1]
            parts.append(str(first) if first == last else f"{first}:{last + 1}")
            start = at
    return ",".join(parts)


def _parts(flag: str, choice: str) -> list[str]:
    text = "".join(choice.split())
    if text == "all":
        return [":"]
    if not text:
        raise UserError(f"{flag} is empty: {_FORMS}")
    return text.split(",")


def _numbers(flag: str, choice: str, part: str) -> tuple[int | None, ...]:
    """The numbers of one part: one, or the two or three of a range."""
    words = part.split(":")
    try:
        numbers = tuple(int(word) if word or len(words) == 1 else None for word in words)
    except ValueError:
        raise UserError(f"{flag} {quoted(choice)}: {quoted(part)} is no number and no range; {_FORMS}") from None
    if len(numbers) > 3:
        raise UserError(f"{flag} {quoted(choice)}: {quoted(part)} has more than two colons; a range is start:stop:step")
    if len(numbers) == 3 and numbers[2] == 0:
        raise UserError(f"{flag} {quoted(choice)}: {quoted(part)} has the step 0; use 1 or more")
    if len(numbers) == 1 and (numbers[0] or 0) < 0:
        raise UserError(
            f"{flag} {quoted(choice)}: {quoted(part)}: single numbers are counted from 0; a range {part}: begins there "
            "from the end"
        )
    return numbers


def _within(flag: str, choice: str, part: str, at: int, last: int, count: int, what: str) -> None:
    if not 0 <= at <= last:
        raise UserError(
            f"{flag} {quoted(choice)}: {quoted(part)} reaches beyond the {count} {what}, counted from 0 to {count - 1}"
        )
