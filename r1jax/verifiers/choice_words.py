"""The words around a chosen letter, in the languages that models answer in.

Every pattern is tried at one place and repeats at most some twenty times, so
that no text takes long.
"""

import re

LETTERS = "ABCDEFGHIJ"


def _any(*texts):
  """A pattern of words that are separated by spaces in the arguments."""
  words = " ".join(texts).split()
  return "|".join(w.replace("_", r"\s{1,2}") for w in words)


# Words of which the letter is the answer: "answer", in several languages.
ANSWER = re.compile(
  r"\b(?:"
  + _any(
    "answers? antwort(?:en)? l\u00f6sung r\u00e9ponses? respuestas? respostas?",
    "risposta risposte antwoord odpowied\u017a odpov\u011b\u010f svar(?:et)?",
    "vastaus v\u00e1lasz r\u0103spuns(?:ul)? cevap cevab[\u0131i]",
    "yan\u0131t \u0111\u00e1p_\u00e1n jawaban(?:nya)? kunci_jawaban",
    "\u043e\u0442\u0432\u0435\u0442[\u0430-\u044f]{0,2}",
    "\u0432\u0456\u0434\u043f\u043e\u0432\u0456\u0434\u044c",
    "\u043e\u0442\u0433\u043e\u0432\u043e\u0440(?:\u044a\u0442)?",
    "\u03b1\u03c0\u03ac\u03bd\u03c4\u03b7\u03c3\u03b7",
    "\u05ea\u05e9\u05d5\u05d1\u05d4",
  )
  + ")|"
  + _any(
    "\u7b54\u6848 \u7b54\u3048 \u89e3\u7b54 \u56de\u7b54 \u6b63\u89e3",
    "\u7b54(?=:) \uc815\ub2f5 \ub2f5\uc548 \ub2f5\ubcc0 \ub2f5",
    "\u0627\u0644\u0625\u062c\u0627\u0628\u0629",
    "\u0627\u0644\u0627\u062c\u0627\u0628\u0629",
    "\u0627\u0644\u062c\u0648\u0627\u0628 \u067e\u0627\u0633\u062e",
    "\u0909\u0924\u094d\u0924\u0930 \u0989\u09a4\u09cd\u09a4\u09b0",
    "\u0e04\u0e33\u0e15\u0e2d\u0e1a",
  ),
  re.IGNORECASE,
)
# Words that also stand before options that are only discussed. They count only
# where no letter follows a word of the first kind.
OPTION = re.compile(
  r"\b(?:"
  + _any(
    "choices? options? choose chose select(?:ed)? pick(?:ed)? auswahl choix",
    "opci[o\u00f3]n op[c\u00e7][a\u00e3]o alternativa opzione optie opcja",
    "wybieram se\u00e7enek \u015f\u0131k l\u1ef1a_ch\u1ecdn",
    "ph\u01b0\u01a1ng_\u00e1n ch\u1ecdn pilihan",
    "\u0432\u0430\u0440\u0438\u0430\u043d\u0442",
    "\u0432\u044b\u0431\u0438\u0440\u0430\u044e",
    "\u0432\u0430\u0440\u0456\u0430\u043d\u0442",
  )
  + r")|(?<![\u4e0d\u975e\u6ca1\u6c92\u52ff\u672a])(?:"
  + _any(
    "\u6b63\u786e\u7684(?=[\u662f\u4e3a]) \u6b63\u78ba\u7684(?=[\u662f\u70ba])",
    "\u9009(?:\u62e9|\u9879)? \u9078(?:\u64c7|\u629e\u80a2|\u9805|\u3076)?",
    "\uc120\ud0dd\uc9c0? \uc120\uc9c0 \ubcf4\uae30",
    "\u0627\u0644\u062e\u064a\u0627\u0631 \u06af\u0632\u06cc\u0646\u0647",
    "\u0935\u093f\u0915\u0932\u094d\u092a",
    "\u0e15\u0e31\u0e27\u0e40\u0e25\u0e37\u0e2d\u0e01 \u0e15\u0e2d\u0e1a",
  )
  + ")",
  re.IGNORECASE,
)
STYLE = (
  r"\\(?:(?:text|math)?(?:text|bf|it|rm|sf|tt|up|normal)|boldsymbol|bm|emph"
  r"|operatorname|underline|mbox|boxed|fbox)(?![A-Za-z])"
)
# What has no meaning of its own: quotes, brackets, stars, commands of LaTeX.
DRESS = STYLE + r"|\\q?quad(?![A-Za-z])|\\[,;:!> ]|[][\s*_\"'`\u2019$(){}\\]"
# What stands between such a word and the letter.
BETWEEN = re.compile(
  rf"(?>{DRESS}|[:=>#~\u2013\u2014\u2192\u21d2-]|,\s(?=therefore|thus|then|of\s)"
  r"|(?:"
  + _any(
    "is are was be must should would will has_to the correct right best most",
    "likely final option choice letter answer only clearly therefore, thus,",
    "therefore thus then hence so indeed again still actually just of_course,?",
    "ist lautet die der das richtige korrekte buchstabe antwort also somit",
    "daher est la le donc lettre r\u00e9ponse bonne correcte bien es el letra",
    "opci\u00f3n correcta respuesta entonces \u00e9 a_letra a_op\u00e7\u00e3o",
    "a_alternativa op\u00e7\u00e3o alternativa correta portanto \u00e8",
    "lettera opzione corretta quindi dunque het optie juiste dus de",
    "prawid\u0142owa poprawna to jest opcja odpowied\u017a do\u011fru",
    "se\u00e7ene\u011fi \u015f\u0131kk\u0131 l\u00e0 \u0111\u00fang",
    "ph\u01b0\u01a1ng_\u00e1n c\u00e2u adalah yang benar \u00e4r",
    "\u044d\u0442\u043e \u0431\u0443\u0434\u0435\u0442 \u0446\u0435",
    "\u0432\u0430\u0440\u0438\u0430\u043d\u0442 \u0431\u0443\u043a\u0432\u0430",
    "\u043f\u043e\u0434_\u0431\u0443\u043a\u0432\u043e\u0439",
    "\u043f\u0440\u0430\u0432\u0438\u043b\u044c\u043d\u044b\u0439",
    "\u0432\u0435\u0440\u043d\u044b\u0439",
  )
  + r")(?!\w)|"
  + _any(
    "\u5e94\u8be5 \u61c9\u8a72 \u5e94\u5f53 \u6b63\u786e\u7684? \u6b63\u78ba",
    "\u9009\u9879 \u9078\u9805 \u9078\u629e\u80a2 \u6700\u7ec8 \u672c\u9898",
    "\u56e0\u6b64 \u6240\u4ee5 \u7efc\u4e0a \u6545 \u9009\u62e9 \u7b54\u6848",
    "\u662f \u4e3a \u70ba \u9009 \u9078 \u9879 \u9805 \u5e94 \u8be5 \u5c31",
    "\u5373 \u7684 \u306f \u304c \u756a\u53f7 \u8a18\u53f7 \ubc88 \uc740",
    "\ub294",
    "\uc774 \uac00 \uc120\ud0dd\uc9c0 \ubcf4\uae30 \u0647\u064a \u0647\u0648",
    "\u0627\u0644\u0635\u062d\u064a\u062d\u0629?",
    "\u0627\u0644\u062d\u0631\u0641 \u0627\u0644\u062e\u064a\u0627\u0631",
    "\u06af\u0632\u06cc\u0646\u0647 \u0939\u0948 \u0938\u0939\u0940",
    "\u0935\u093f\u0915\u0932\u094d\u092a \u0e04\u0e37\u0e2d",
    "\u0e02\u0e49\u0e2d",
    "\u0e17\u0e35\u0e48\u0e16\u0e39\u0e01\u0e15\u0e49\u0e2d\u0e07",
  )
  + "){0,24}+",
  re.IGNORECASE,
)
_WORD = "A-Za-z\u00c0-\u024f\u0370-\u052f"
_AND = "and|und|et|y|e|en|i|ve|v\u00e0|\u0438"
_OR = "or|oder|ou|o|of|lub|veya|ho\u1eb7c|\u0438\u043b\u0438"
_BECAUSE = (
  "as|because|since|is|for|but|due|ist|weil|da|denn|est|car|parce|puisque|es"
  "|porque|ya|pues|\u00e9|pois|\u00e8|perch\u00e9|poich\u00e9|omdat|want|jest"
)
# A letter that ends here: part of no word, name or formula.
ENDS = (
  rf"(?![{_WORD}0-9])(?!['\u2019](?![dt][i\u0131u\u00fcr])[{_WORD}])"
  r"(?![-_*][A-Za-z0-9{]|\(\d|#|\s?(?:[=+^>\u00d7\u00b7\u2229\u222a\u2208]"
  r"|<(?![|/]))|\s?\\(?:cdot|times|cap|cup|in|to|subset|le|ge|neq?)(?![a-z]))"
)
_UPPER = (
  rf"[A-J]{ENDS}(?!\s?\?)"
  # "A square has four sides" and "I think so" are sentences.
  rf"(?!(?<=[AI])[ \t]{{1,3}}(?!(?:{_BECAUSE})(?!\w)"
  rf"|(?:{_AND}|{_OR})\s{{1,3}}(?:{DRESS}){{0,4}}[A-J](?!\w))[{_WORD}])"
)
# A small letter is in brackets or ends its clause.
_LOWER = (
  r"(?<=[(\[{*$\"'`])[a-j](?=[)\]}*$\"'`])"
  r"|[a-j](?=[*_\"'`$)}\s]{0,4}(?:[.,;\n]|$|\b(?:or|and)\s))"
)
LETTER = re.compile(rf"{_UPPER}|{_LOWER}")
# Of several options: ABD.
RUN = re.compile(rf"[A-J]{{2,10}}{ENDS}")
_COMMA = r"[,;/&\u548c\u4e0e\u8207\u53ca\u6216\u3068\u3084\u4e14]|\uc640|\uacfc"
# What stands between two letters that are both chosen, or between alternatives.
LIST = re.compile(
  rf"(?>(?>{DRESS}){{0,10}}(?:{_COMMA}|(?i:{_AND}|{_OR}"
  rf")(?![{_WORD}]))){{1,3}}+(?>{DRESS}){{0,10}}+"
)
AND = re.compile(rf"(?<![{_WORD}])(?i:{_AND})(?![{_WORD}])")
OR = re.compile(rf"(?<![{_WORD}])(?i:{_OR})(?![{_WORD}])|\u6216|\u3084")
# The same within a list that is nothing else.
SEPARATOR = re.compile(
  rf"[\s,;/&\u548c\u4e0e\u8207\u53ca\u3068]+|(?<![{_WORD}])(?i:{_AND})"
  rf"(?![{_WORD}])|\uc640|\uacfc"
)
# "option B is wrong" chooses nothing.
DENIED = re.compile(
  r"[)\]}*\"'`$]{0,4}\s{0,2}(?:(?:is|was|are|were)\s(?:also\s|clearly\s)?"
  r"(?:not|wrong|incorrect|false|out)(?!\w)|(?:is|are|was)n['\u2019]t"
  r"|can(?:not|['\u2019]t)|ist\s(?:nicht|falsch)|n['\u2019]est\spas|no\ses"
  r"|n\u00e3o\s\u00e9|non\s\u00e8|\u043d\u0435\s|\u043d\u0435\u0432\u0435\u0440"
  r"|[\u9879\u9805]?\u662f?(?:\u4e0d\u6b63|\u4e0d\u5bf9|\u4e0d\u5c0d|\u9519|\u932f)"
  r"|[\u9879\u9805]?(?:\u3067\u306f\u306a|\u3058\u3083\u306a|\u306f\u8aa4"
  r"|\u306f\u9593\u9055)"
  r"|[\uac00\uc774\uc740\ub294]\s?(?:\uc544\ub2c8|\ud2c0))",
  re.IGNORECASE,
)
# "the answer is B, C is too small": C is in a clause of its own.
CLAUSE = re.compile(
  r"[)\]}*\"'`$]{0,4}(?:\s{1,2}(?:is|was|are|were|has|have|does|can|would|will"
  r"|fails?|ist|est|es)(?!\w)|[\u9879\u9805]?[\u662f\u4e3a\u70ba\u9519\u932f"
  r"\u4e0d\u5219\u5247\u4e5f\u56e0\u306f\u304c])"
)
# What comes before "the answer is A" where that is only thought of.
HEDGED = re.compile(
  r"(?:(?:n['\u2019]t|not|never)\s(?:think|believe|say|sure)|if|suppose|unless"
  r"|whether|assum(?:e|ing))\s(?:that\s)?(?:the\s|your\s)?(?:\w{1,12}\s)?\Z"
  r"|(?:\u5982\u679c|\u5047\u8bbe|\u5047\u5982|\u5047\u5b9a|\u82e5"
  r"|\u4e0d\u8ba4\u4e3a)\w{0,4}\Z",
  re.IGNORECASE,
)
# "B is correct", where nothing else is said.
REVERSED = re.compile(
  rf"(?<![{_WORD}0-9_\\-])([A-J])[)\]}}*\"'`.$]{{0,4}}\s{{0,3}}(?i:"
  r"(?:is|must\sbe|should\sbe)\s(?:clearly\s|therefore\s|thus\s)?(?:the\s)?"
  r"(?:only\s)?(?:correct|right|best|answer)(?!\w)"
  r"|[\u9879\u9805]?(?:\u662f|\u4e3a|\u70ba)?(?:\u6b63\u786e|\u6b63\u78ba)"
  r"|[\u9879\u9805]?(?:\u662f|\u4e3a|\u70ba)\u7b54\u6848"
  r"|\u304c(?:\u6b63\u3057|\u6b63\u89e3|\u7b54\u3048)|[\uac00\uc774]\s?\uc815\ub2f5"
  r"|ist\s(?:die\s)?(?:richtig|korrekt)|est\s(?:la\s)?(?:bonne|correcte)"
  r"|es\s(?:la\s)?(?:respuesta\s)?correcta|\u00e9\sa\s(?:resposta|correta)"
  r"|[\s\u2014-]{0,3}(?:\u043f\u0440\u0430\u0432\u0438\u043b\u044c\u043d"
  r"|\u0432\u0435\u0440\u043d))"
)
# The text of an option after "the answer is".
TEXT = re.compile(
  r"(?:answer\**(?:\sis:?|:)|\u7b54\u6848(?:\u662f|\u4e3a|:))\**\s{0,3}([^\n]*)",
  re.IGNORECASE,
)
