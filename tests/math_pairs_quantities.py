"""Pairs of sets, quantities and ratios with known truth; see `math_pairs`."""

from fractions import Fraction
from math import gcd


def interval_forms(a, b, left, right):
  """Spellings of the numbers between two, or beyond one (None)."""
  low, high = ("-\\infty" if a is None else a), ("\\infty" if b is None else b)
  opened = "[" if left else "("
  closed = "]" if right else ")"
  interval = f"{opened}{low},{high}{closed}"
  less = ["<", "\\le "]
  if a is None:
    relation, turned = (
      f"x{less[right]}{b}",
      f"{b}{[chr(62), chr(92) + 'ge '][right]}x",
    )
  elif b is None:
    relation = f"x{['>', chr(92) + 'ge '][left]}{a}"
    turned = f"{a}{less[left]}x"
  else:
    relation = f"{a}{less[left]}x{less[right]}{b}"
    turned = relation
  return (
    interval,
    f"x\\in{interval}",
    relation,
    turned,
    f"\\{{x \\mid {relation}\\}}",
    f"\\{{x : {relation}\\}}",
    f"\\left{interval[:-1]}\\right{interval[-1]}",
    f"x \\in {interval}",
    f"\\{{x\\in\\mathbb{{R}} \\mid {relation}\\}}",
    f"\\{{x | {relation}\\}}",
  )


def intervals(draw, equal):
  a = draw.randint(-9, 5)
  b = a + draw.randint(1, 9)
  side = draw.choice(("both", "left", "right"))
  left, right = draw.random() < 0.5, draw.random() < 0.5
  low, high = (None if side == "left" else a), (None if side == "right" else b)
  first = (low, high, left and low is not None, right and high is not None)
  second = first
  if not equal:
    second = draw.choice(
      (
        (low, None if high is None else high + 1, *first[2:]),
        (None if low is None else low - 1, high, *first[2:]),
        (low, high, not first[2] and low is not None, first[3]),
        (low, high, first[2], not first[3] and high is not None),
      )
    )
    if second == first:
      second = (
        (None, a, False, False) if low is not None else (b, None, False, False)
      )
  return (
    draw.choice(interval_forms(*first)),
    draw.choice(interval_forms(*second)),
  )


def left_out_forms(points):
  listed = ", ".join(map(str, points))
  ends = ["-\\infty", *map(str, points), "\\infty"]
  intervals = "\\cup".join(f"({a},{b})" for a, b in zip(ends, ends[1:]))
  unequal = [f"x\\neq {p}" for p in points]
  each, comma = " \\text{ and } ".join(unequal), ", ".join(unequal)
  words = " and ".join(map(str, points))
  return (
    intervals,
    f"x\\neq {listed}",
    each,
    f"x \u2260 {listed}",
    f"\\mathbb{{R}}\\setminus\\{{{listed}\\}}",
    f"\\text{{all real numbers except }} {words}",
    f"all real numbers except {words}",
    f"\\{{x \\mid {comma}\\}}",
    f"x\\in\\mathbb{{R}}, {comma}",
    f"x\\in\\mathbb{{R}}\\setminus\\{{{listed}\\}}",
  )


def left_out(draw, equal):
  points = sorted(draw.sample(range(-9, 10), draw.randint(1, 3)))
  second = points
  if not equal:
    second = sorted({points[0] + 11, *points[1:]})
    if len(points) > 1 and draw.random() < 0.4:
      second = points[1:]
  first = draw.choice(left_out_forms(points))
  return first, draw.choice(left_out_forms(second))


def money(draw, equal):
  dollars = Fraction(draw.randint(100, 200_000), draw.choice((1, 100)))
  shown = (
    f"{float(dollars):,.2f}" if dollars.denominator > 1 else f"{int(dollars):,}"
  )
  first = draw.choice(
    (f"\\${shown}", f"{shown} dollars", f"\\text{{\\${shown}}}")
  )
  if draw.random() < 0.2:
    first = shown
  forms = [
    f"\\${shown}",
    f"{shown} dollars",
    f"{shown}\\text{{ dollars}}",
    f"{shown} USD",
    f"\\${shown.replace(',', '')}",
  ]
  if first != shown:
    forms.append(f"{int(dollars * 100)} cents")
  if equal:
    return first, draw.choice(forms)
  near = dollars + draw.choice((1, 10, Fraction(1, 100)))
  wrong = [f"\\${float(near):,.2f}", f"{float(near):.2f} dollars"]
  if first != shown:
    wrong += [
      f"\u20ac{shown}",
      f"\u00a3{shown}",
      f"{shown} cents",
      f"{shown} euros",
    ]
  return first, draw.choice(wrong)


LENGTHS = {"mm": 1, "cm": 10, "m": 1000, "km": 10**6}


TIMES = {"seconds": 1, "minutes": 60, "hours": 3600}


MASSES = {"mg": 1, "g": 1000, "kg": 10**6}


LONG = {
  "mm": "millimeters",
  "cm": "centimeters",
  "m": "meters",
  "km": "kilometers",
  "g": "grams",
  "kg": "kilograms",
  "mg": "milligrams",
}


def shown_number(value):
  if value.denominator == 1:
    return str(value.numerator)
  if 10**9 % value.denominator == 0:
    return f"{float(value):.9f}".rstrip("0")
  return f"\\frac{{{value.numerator}}}{{{value.denominator}}}"


def with_unit(draw, number, unit):
  return draw.choice(
    (
      f"{number} {unit}",
      f"{number}\\text{{ {unit}}}",
      f"{number}\\,\\text{{{unit}}}",
      f"{number} {LONG.get(unit, unit)}",
      f"{number}\\mathrm{{~{unit}}}",
    )
  )


def conversions(draw, equal):
  table = draw.choice((LENGTHS, TIMES, MASSES))
  a, b = draw.choice(sorted(table)), draw.choice(sorted(table))
  number = Fraction(draw.randint(1, 50))
  converted = number * table[a] / table[b]
  first = with_unit(draw, shown_number(number), a)
  if equal:
    if draw.random() < 0.2:
      return first, shown_number(number)
    return first, with_unit(draw, shown_number(converted), b)
  if a != b and draw.random() < 0.5:
    return first, with_unit(draw, shown_number(number), b)
  return first, with_unit(draw, shown_number(converted + converted / 10), b)


def areas(draw, equal):
  n = draw.randint(2, 200)
  power = draw.choice((2, 3))
  unit = draw.choice(("cm", "m", "ft", "in", "unit"))
  adjective = {2: "square", 3: "cubic"}[power]
  name = {
    "cm": "centimeters",
    "m": "meters",
    "ft": "feet",
    "in": "inches",
    "unit": "units",
  }[unit]
  forms = [f"{n} {adjective} {name}", f"{n}\\text{{ {adjective} {name}}}"]
  if unit != "unit":
    raised = {2: "\u00b2", 3: "\u00b3"}[power]
    forms += [
      f"{n}\\text{{ {unit}}}^{power}",
      f"{n} {unit}^{power}",
      f"{n} {unit}{raised}",
      f"{n}\\text{{ {unit}}}^{{{power}}}",
      f"{n}\\ \\mathrm{{{unit}}}^{power}",
    ]
  first = draw.choice(forms)
  if equal:
    return first, draw.choice((*forms, str(n)))
  other_power = 5 - power
  wrong = [
    f"{n} {name}",
    f"{n + 1} {adjective} {name}",
    f"{n} {({2: 'square', 3: 'cubic'})[other_power]} {name}",
  ]
  if unit != "unit":
    wrong += [f"{n}\\text{{ {unit}}}", f"{n} {unit}^{other_power}"]
  return first, draw.choice(wrong)


def rates(draw, equal):
  n = draw.randint(2, 900)
  kinds = (
    ("miles per hour", ("mph", "miles/hour", "mi/h", "miles per hour")),
    ("m/s", ("m/s", "meters per second", "m/sec", "metres/second")),
    ("km/h", ("km/h", "kilometers per hour", "km/hr", "kph")),
    ("words per minute", ("words per minute", "words/minute", "per minute")),
    ("per hour", ("per hour", "/hour", "/hr", "per hour")),
    ("people per square mile", ("people per square mile", "people/mi^2")),
    (
      "dollars per hour",
      ("dollars per hour", "dollars/hour", "dollars an hour"),
    ),
  )
  name, forms = draw.choice(kinds)
  first = draw.choice((f"{n} {name}", f"{n}\\text{{ {name}}}"))
  m = n if equal else draw.choice((n + 1, n * 10))
  if draw.random() < 0.25:
    return draw.choice(((first, str(m)), (str(m), first)))
  form = draw.choice(forms)
  gap = "" if form[0] == "/" else " "
  second = draw.choice((f"{m}{gap}{form}", f"{m}\\text{{{gap}{form}}}"))
  if not equal and "hour" in name and draw.random() < 0.3:
    second = f"{n} {name.replace('hour', 'minute')}"
  return first, second


def angles(draw, equal):
  n = draw.randint(1, 359)
  m = n if equal else n + draw.choice((1, 10, -1))
  forms = (
    f"{m}^\\circ",
    f"{m}\u00b0",
    f"{m} degrees",
    f"{m}\\text{{ degrees}}",
    f"{m}^{{\\circ}}",
    str(m),
    f"{m}\\degree",
  )
  return f"{n}^\\circ", draw.choice(forms)


def ratios(draw, equal):
  a, b = draw.randint(1, 12), draw.randint(1, 12)
  a, b = a // gcd(a, b), b // gcd(a, b)
  k = draw.randint(1, 6)
  parts = [a, b] if draw.random() < 0.7 else [a, b, draw.randint(1, 9)]
  second = [k * x for x in parts]
  if not equal:
    change = draw.random()
    if change < 0.4:
      second = [*second, k]
    elif change < 0.7:
      second = [second[0] + 1, *second[1:]]
    elif a != b:
      second = second[::-1] if parts[0] != parts[-1] else [*second, 1]
    else:
      second = [second[0] + 1, *second[1:]]
  join = draw.choice((":", " : ", " to ", "\\text{ to }", "\\colon "))
  return ":".join(map(str, parts)), join.join(map(str, second))


def times(draw, equal):
  hour, minute = draw.randint(1, 12), draw.randint(0, 59)
  half = draw.choice(("a", "p"))
  second = (hour, minute, half)
  if not equal:
    second = draw.choice(
      (
        (hour, (minute + 7) % 60, half),
        (hour % 12 + 1, minute, half),
        (hour, minute, "a" if half == "p" else "p"),
      )
    )
  forms = lambda h, m, d: (  # noqa: E731
    f"{h}:{m:02} {d}.m.",
    f"{h}:{m:02}\\text{{ {d}.m.}}",
    f"{h}:{m:02} {d}m",
    f"{h}:{m:02} {d.upper()}M",
  )
  return draw.choice(forms(hour, minute, half)), draw.choice(forms(*second))


KINDS = (
  intervals,
  left_out,
  money,
  conversions,
  areas,
  rates,
  angles,
  ratios,
  times,
)
