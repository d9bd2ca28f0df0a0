"""Pairs of mathematical answers whose truth is known by how they are made.

Each kind of docs/answers.md has a function that draws a value, writes it in two
spellings, or draws another value for the second. It knows the truth by
arithmetic on its own numbers and asks nothing of what it tests.

  python tests/math_pairs.py COUNT

judges COUNT pairs of each kind and prints those that are wrong.
"""

import random
import sys
from fractions import Fraction

import math_pairs_formulas as formulas
import math_pairs_quantities as quantities


def dress(draw, text):
  """An answer, perhaps between dollars, in a box or before a full stop."""
  forms = (
    "{}",
    "${}$",
    "\\boxed{{{}}}",
    "\\boxed{{{}}}.",
    "$\\boxed{{{}}}$",
    "<think> so </think> \\boxed{{{}}}",
    "{}.",
    "\\({}\\)",
  )
  form = draw.choice(forms)
  if "$" in text.replace("\\$", "") or ("\\$" in text and "$" in form):
    form = "\\boxed{{{}}}"
  return form.format(text)


def other(draw, value, *choices):
  """A value near another one, but not the same."""
  while True:
    near = draw.choice(choices)(value)
    if near != value:
      return near


def grouped(n):
  return f"{n:,}"


def integers(draw, equal):
  n = draw.choice(
    (
      draw.randint(0, 20),
      draw.randint(1000, 10**6),
      draw.randint(10**11, 10**13),
    )
  )
  n *= draw.choice((1, 1, -1))
  written = draw.choice(
    (
      str(n),
      grouped(n),
      grouped(n).replace(",", "{,}"),
      f"{n}.0",
      f"\u2248{n}",
      f"x={n}",
      f"\\approx {n}",
      f"\\text{{{n}}}",
      str(n).replace("-", "\u2212"),
      f"{n}.",
      f"**{n}**",
    )
  )
  if not equal:
    m = other(
      draw,
      n,
      lambda n: n + 1,
      lambda n: -n,
      lambda n: n + 10,
      lambda n: int(str(abs(n))[::-1]),
    )
    written = draw.choice((str(m), f"{n}.5", f"{n}.0001", grouped(m)))
  return str(n), written


def fraction_text(draw, value):
  p, q = value.numerator, value.denominator
  k = draw.randint(2, 5)
  sign = "-" if p < 0 else ""
  a = abs(p)
  forms = [
    f"{p}/{q}",
    f"{sign}\\frac{{{a}}}{{{q}}}",
    f"\\dfrac{{{p}}}{{{q}}}",
    f"\\frac{{{p * k}}}{{{q * k}}}",
    f"{sign}\\tfrac{{{a}}}{{{q}}}",
  ]
  if a < 10 and q < 10:
    forms += [f"{sign}\\frac{a}{q}", f"{sign}\\frac{a}{{{q}}}"]
  if a > q > 1:
    whole, rest = divmod(a, q)
    forms += [
      f"{sign}{whole} {rest}/{q}",
      f"{sign}{whole}\\frac{{{rest}}}{{{q}}}",
      f"{sign}{whole}\\tfrac{{{rest}}}{{{q}}}",
    ]
  if 1000 % q == 0:
    forms.append(str(float(value)))
    forms.append(f"{float(value * 100):g}\\%")
  return draw.choice(forms)


VULGAR = {
  "\u00bd": (1, 2),
  "\u2153": (1, 3),
  "\u00be": (3, 4),
  "\u215b": (1, 8),
  "\u215e": (7, 8),
  "\u2156": (2, 5),
  "\u2159": (1, 6),
}


def fractions(draw, equal):
  if draw.random() < 0.2:
    sign, (p, q) = draw.choice(sorted(VULGAR.items()))
    whole = draw.choice((0, 0, draw.randint(1, 9)))
    value = Fraction(p, q) + whole
    shown = value if equal else value + Fraction(1, q)
    return fraction_text(draw, shown), f"{whole or ''}{sign}"
  value = Fraction(draw.randint(-60, 60) or 1, draw.randint(2, 20))
  if value.denominator == 1:
    value += Fraction(1, 7)
  second = value
  if not equal:
    second = other(
      draw,
      value,
      lambda v: 1 / v,
      lambda v: -v,
      lambda v: v + 1,
      lambda v: v + Fraction(1, v.denominator),
    )
  if not equal and draw.random() < 0.3 and 10**9 % value.denominator:
    return fraction_text(draw, value), f"{float(value):.4f}"
  return fraction_text(draw, value), fraction_text(draw, second)


def repeating(draw, equal):
  start = "".join(draw.choices("0123456789", k=draw.randint(0, 2)))
  period = draw.choice(("3", "6", "1", "7", "27", "36", "09", "142857", "45"))
  bottom = (10 ** len(period) - 1) * 10 ** len(start)
  value = Fraction(int("0" + start + period) - int("0" + start), bottom)
  times = 3 if len(period) < 3 else 2
  dots = draw.choice(("...", "\\ldots", "\\dots", "\u2026", "\\cdots"))
  written = draw.choice(
    (
      f"0.{start}\\overline{{{period}}}",
      f"0.{start}({period})",
      f"0.{start}{period * times}{dots}",
    )
  )
  if not equal:
    value += draw.choice((Fraction(1, 1000), Fraction(1, 7), 1))
  gold = f"\\frac{{{value.numerator}}}{{{value.denominator}}}"
  return draw.choice(((gold, written), (written, gold)))


def listed_letters(draw, chosen):
  some = list(chosen)
  words = " and ".join(some)
  if len(some) > 2:
    words = ", ".join(some[:-1]) + " and " + some[-1]
  return draw.choice(
    (
      "".join(some),
      ", ".join(some),
      words,
      ", ".join(f"({c})" for c in some),
      f"\\text{{{''.join(some)}}}",
      "\\text{" + ", ".join(some) + "}",
      ",".join(some),
    )
  )


def letters(draw, equal):
  chosen = sorted(draw.sample("ABCDEF", draw.randint(2, 4)))
  second = list(chosen)
  if not equal:
    if draw.random() < 0.5:
      second.remove(draw.choice(second))
    else:
      spare = [c for c in "ABCDEF" if c not in second]
      second = sorted([*second[1:], draw.choice(spare)])
  if len(second) == 1:
    return listed_letters(draw, chosen), second[0]
  return listed_letters(draw, chosen), listed_letters(draw, second)


def options(draw, equal):
  letter = draw.choice("ABCDE")
  value = draw.randint(2, 99)
  second = letter if equal else draw.choice([c for c in "ABCDE" if c != letter])
  text = draw.choice((f"{value}", f"{value} \\text{{ m}}", "none of these"))
  forms = (
    f"{second}.",
    f"({second})",
    f"\\text{{{second}}}",
    f"{second}. {text}",
    f"({second}) {text}",
    f"\\textbf{{({second})}}",
    f"{second}) {text}",
    f"\\textbf{{({second})}}\\ {text}",
    f"**{second}**",
  )
  return letter, draw.choice(forms)


WORDS = (
  "even",
  "odd",
  "yes",
  "no",
  "Monday",
  "Alice",
  "triangle",
  "increasing",
  "convergent",
  "parallelogram",
  "blue",
  "Tuesday",
  "isosceles",
)


def words(draw, equal):
  first = draw.choice(WORDS)
  second = first if equal else draw.choice([w for w in WORDS if w != first])
  forms = (
    second,
    second.upper(),
    second.capitalize(),
    f"\\text{{{second}}}",
    f"\\textbf{{{second}}}",
    f'"{second}"',
    f"\\text{{{second}.}}",
    f"\u201c{second}\u201d",
    f"\\mathrm{{{second}}}",
    f"{second}.",
    f"**{second}**",
    f"\\textit{{{second}}}",
    f"'{second}'",
  )
  return draw.choice((first, f"\\text{{{first}}}")), draw.choice(forms)


def points(draw, equal):
  a, b = draw.randint(-9, 9), draw.randint(-9, 9)
  c, d = (
    (a, b) if equal else draw.choice(((a + 1, b), (a, -b - 1), (b, a + 19)))
  )
  name = draw.choice("ABDPQMNT")
  forms = (
    f"{name}({c},{d})",
    f"({c},{d})",
    f"\\left({c},{d}\\right)",
    f"\\bigl({c},{d}\\bigr)",
    f"{name}=({c}, {d})",
    f"\\big({c},{d}\\big)",
    f"{name}\\left({c}, {d}\\right)",
    f"(x,y)=({c},{d})",
    f"\\Bigl({c},{d}\\Bigr)",
    f"\\langle {c},{d}\\rangle",
    f"({c}.0, {d})",
  )
  firsts = (f"({a},{b})", f"{name}({a},{b})", f"\\left({a},{b}\\right)")
  first = draw.choice(firsts)
  return first, draw.choice(forms)


def decimals(draw, equal):
  """Decimals with ten right digits of a number that has no exact decimal."""
  value = Fraction(draw.randint(1, 200), draw.choice((3, 7, 9, 11, 13)))
  if value.denominator == 1:
    value += Fraction(1, 3)
  places = draw.randint(10, 14) if equal else draw.randint(2, 6)
  scaled = value * 10**places
  digits = round(scaled)
  if not equal and draw.random() < 0.5:
    places = 12
    digits = round(value * 10**places) + 10 ** draw.randint(1, 9)
  text = str(digits).rjust(places + 1, "0")
  return (
    f"\\frac{{{value.numerator}}}{{{value.denominator}}}",
    f"{text[:-places]}.{text[-places:]}",
  )


KINDS = {
  function.__name__: function
  for function in (
    integers,
    fractions,
    repeating,
    decimals,
    letters,
    options,
    words,
    points,
    *formulas.KINDS,
    *quantities.KINDS,
  )
}


def pairs(kind, count, seed=0):
  """COUNT triples (gold, prediction, equal) of a kind; half are equal."""
  draw = random.Random(f"{kind} {seed}")
  for i in range(count):
    equal = i % 2 == 0
    gold, prediction = KINDS[kind](draw, equal)
    yield gold, dress(draw, prediction), equal


def main(count, seed):
  from r1jax.verifiers.math.answer import equivalent

  for kind in KINDS:
    wrong = []
    for gold, prediction, equal in pairs(kind, count, seed):
      try:
        verdict = equivalent(gold, prediction)
        said, reason = verdict.correct, verdict.reason
      except Exception as e:
        said, reason = None, repr(e)
      if said != equal:
        wrong.append((gold, prediction, equal, reason))
    paid = sum(not equal for *_, equal, _ in wrong)
    print(f"{kind}: {len(wrong)} of {count} wrong, {paid} paid")
    for case in wrong[:6]:
      print("   ", *case, sep="  |  ")


if __name__ == "__main__":
  main(int(sys.argv[1]), int(sys.argv[2]) if len(sys.argv) > 2 else 0)
