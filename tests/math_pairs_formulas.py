"""Pairs of formulas, lists and matrices with known truth; see `math_pairs`."""

RAISED = str.maketrans(
  "0123456789-",
  "\u2070\u00b9\u00b2\u00b3\u2074\u2075\u2076\u2077\u2078\u2079\u207b",
)


def powers(draw, equal):
  base, n = draw.choice((2, 3, 7, 10, 10)), draw.randint(2, 40)
  n *= draw.choice((1, 1, -1))
  m = n if equal else n + draw.choice((-1, 1))
  first = f"{base}^{{{n}}}"
  written = draw.choice(
    (
      f"{base}{str(m).translate(RAISED)}",
      f"{base}**{m}" if m > 0 else f"{base}**({m})",
      f"{base}^{{{m}}}",
      f"{base}^({m})",
    )
  )
  if base == 10:
    k = draw.randint(1, 9)
    first, written = f"{k}\\times {first}", f"{k}\u00d7{written}"
    if not equal and draw.random() < 0.2 and 0 < n < 10:
      return first, str(k * 10 * n)
  return first, written


def roots(draw, equal):
  n = draw.choice((2, 3, 5, 6, 7, 10, 11, 13, 14, 15))
  k, degree = draw.randint(1, 9), draw.choice((2, 2, 3))
  m = n if equal else n + 1
  front = str(k) if k > 1 else ""
  first = f"{front}\\sqrt{'[3]' if degree == 3 else ''}{{{n}}}"
  if degree == 3:
    forms = [
      f"{front}\u221b{m}",
      f"{front}\\sqrt[3]{{{m}}}",
      f"{front}cbrt({m})",
    ]
    if m < 10:
      forms.append(f"{front}\\sqrt[3]{m}")
  else:
    forms = [
      f"{front}\u221a{m}",
      f"{front}sqrt({m})",
      f"\\sqrt{{{m * k * k}}}",
      f"{front}\u221a({m})",
    ]
    if m < 10:
      forms.append(f"{front}\\sqrt{m}")
  return first, draw.choice(forms)


def functions(draw, equal):
  name = draw.choice(("ln", "sin", "cos", "tan", "arctan", "log", "exp"))
  p, q = draw.randint(2, 9), draw.choice((1, 1, 3, 7))
  argument = str(p) if q == 1 else f"{p}/{q}"
  latex = str(p) if q == 1 else f"\\frac{{{p}}}{{{q}}}"
  if not equal:
    change = draw.random()
    if change < 0.3 and name in ("sin", "cos"):
      name, shown = ("cos" if name == "sin" else "sin"), name
    else:
      shown = name
      argument = str(p + 1) if q == 1 else f"{p + 1}/{q}"
  else:
    shown = name
  forms = [
    f"{name}({argument})",
    f"\\{name}({argument})",
    f"\\mathrm{{{name}}}({argument})",
  ]
  if q == 1 and name != "exp":
    forms += [f"{name} {argument}", f"\\{name}{argument}"]
  space = "\\left(" + latex + "\\right)"
  return f"\\{shown}{space}", draw.choice(forms)


def commands(draw, equal):
  a, b = draw.randint(3, 9), draw.randint(1, 2)
  kind = draw.choice(("binom", "lg", "frac", "sets", "angle", "boxed"))
  add = 0 if equal else 1
  if kind == "binom":
    value = a * (a - 1) // 2
    return f"\\binom{a}2", str(value + add)
  if kind == "lg":
    return f"\\lg {a}", f"\\lg{a if equal else a % 9 + 2}"
  if kind == "frac":
    return f"\\frac{b}{{{a}}}", f"\\frac{b}{a if equal else a % 9 + 2}"
  if kind == "sets":
    return f"\\{{{a},{a + 3}\\}}", f"\\lbrace{a},{a + 3 + add}\\rbrace"
  if kind == "angle":
    return f"\\langle{a},{b}\\rangle", f"({a},{b + add})"
  return str(a), f"thus \\boxed {a + add}"


def polynomials(draw, equal):
  a, b = draw.randint(-9, 9) or 1, draw.randint(-9, 9) or 2
  term = lambda c: f"+{c}" if c >= 0 else str(c)  # noqa: E731
  factored = f"(x{term(a)})(x{term(b)})"
  s, p = a + b, a * b
  if not equal:
    p += draw.choice((1, -1))
  square = draw.choice(("x^2", "x\u00b2", "x**2", "x^{2}"))
  middle = (
    ""
    if s == 0
    else f"{term(s)}{draw.choice(('', '*')) if abs(s) > 1 else '*'}x"
  )
  return factored, f"{square}{middle}{term(p)}"


def circles(draw, equal):
  a, b, r = draw.randint(-9, 9), draw.randint(-9, 9), draw.randint(1, 9)
  term = lambda c: f"+{c}" if c >= 0 else str(c)  # noqa: E731
  first = f"(x{term(a)})^2+(y{term(b)})^2={r * r}"
  s = r * r if equal else draw.choice((r * r + 1, r if r > 1 else 2))
  k = draw.randint(1, 3)
  constant = a * a + b * b - s
  forms = (
    f"(x{term(a)})^2+(y{term(b)})^2={s}",
    f"{s}=(x{term(a)})^2+(y{term(b)})^2",
    f"{k}x^2+{k}y^2{term(2 * a * k)}x{term(2 * b * k)}y{term(constant * k)}=0",
  )
  return first, draw.choice(forms)


def lines(draw, equal):
  m, c = draw.randint(-9, 9) or 1, draw.randint(-9, 9)
  term = lambda c: f"+{c}" if c >= 0 else str(c)  # noqa: E731
  d = c if equal else c + 1
  k = draw.choice((-3, -1, 2, 5))
  forms = (
    f"y={m}x{term(d)}",
    f"{m}x-y{term(d)}=0",
    f"y-({d})={m}x",
    f"{m * k}x{term(-k)}y{term(d * k)}=0",
  )
  return f"y={m}x{term(c)}", draw.choice(forms)


def lists(draw, equal):
  values = draw.sample(range(-20, 60), draw.randint(2, 4))
  second = list(values)
  draw.shuffle(second)
  if not equal:
    if draw.random() < 0.5 and len(second) > 2:
      second.pop()
    else:
      second[0] = 99
  listed = ", ".join(map(str, second))
  forms = (
    listed,
    f"\\{{{listed}\\}}",
    f"x={listed}",
    " \\text{ and } ".join(map(str, second)) if len(second) == 2 else listed,
    f"\\left\\{{{listed}\\right\\}}",
    f"\\lbrace {listed} \\rbrace",
  )
  return ", ".join(map(str, values)), draw.choice(forms)


def matrices(draw, equal):
  rows = [[draw.randint(-9, 9) for _ in range(2)] for _ in range(2)]
  second = [list(r) for r in rows]
  if not equal:
    if rows[0][1] != rows[1][0] and draw.random() < 0.4:
      second = [list(r) for r in zip(*rows)]
    else:
      second[1][1] += 1
  text = lambda m, kind: (  # noqa: E731
    f"\\begin{{{kind}}}"
    + "\\\\".join("&".join(map(str, r)) for r in m)
    + f"\\end{{{kind}}}"
  )
  kinds = ("pmatrix", "bmatrix")
  return text(rows, draw.choice(kinds)), text(second, draw.choice(kinds))


KINDS = (
  powers,
  roots,
  functions,
  commands,
  polynomials,
  circles,
  lines,
  lists,
  matrices,
)
