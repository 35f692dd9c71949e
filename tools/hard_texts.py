"""Texts that tokenizers get wrong: scripts, spaces, digits, code, emoji, controls, and noise."""

import random

_LISTED = [
    "",
    " ",
    "  ",
    "   ",
    "\t",
    "\n",
    "\n\n",
    "\n\n\n",
    "\r\n\r\n",
    "\t\n",
    " \n ",
    "\n =",
    "a",
    " a",
    "a ",
    "  a  b   c    d     e",
    "Hello world",
    " Hello world!",
    "Hello, y'all! How are you 😁 ?我想在apple工作1314151天～",
    "I'm you're we've HE'LL SHE'D it's 'Tis IT'S I'M YOU'RE 'ſ ’s don’t",
    "1 12 123 1234 12345 123456 1234567 3.14159 1,000,000 0x1F 1e-9 ½ ² Ⅳ ١٢٣ 一二三 ༣",
    "def f(x):\n\tif x > 0:\n\t\treturn x**2  # note\n\n\n    else:\r\n        pass\n",
    '#include <stdio.h>\nint main() { printf("%d\\n", 42); return 0; }//end/\n/// doc\n',
    "https://example.org/a/b?c=d&e=f#g me@example.com C:\\path\\file.txt ../..",
    "Zażółć gęślą jaźń. Größe. Ærøskøbing. İstanbul ıI. Ünïcödé ﬁ ﬂ ŉ ǅ ǆ",
    "Быстрая коричневая лиса. Ўзбек. Ђорђе. ѢѦѪ",
    "Ελληνικά Ἀχιλλεύς ὕβρις ΣΊΣΥΦΟΣ σίσυφος",
    "日本語のテキスト。漢字かなカナ、半角ｶﾅ。「括弧」",
    "中文测试：今天天气不错！繁體字。𠀀𠮷𪚥",
    "한국어 텍스트 가나다라 ᄒ힣 각",
    "العربية النص ١٢٣ مُشَكَّل لَا إِلَٰهَ",
    "עברית עִם נִקּוּד \u200f\u200eשלום",
    "हिन्दी देवनागरी क्षत्रिय विश्वविद्यालय ಠ_ಠ தமிழ் ไทยภาษา ລາວ မြန်မာ ខ្មែរ ქართული አማርኛ",
    "e\u0301 é a\u0308\u0323 Å Å \u1112\u1161\u11ab 한 ﬃ \u0344 q\u0307\u0323 \u0958",
    "👩‍👩‍👧‍👦 🏳️‍🌈 👍🏽 🇩🇪🇫🇷 ❤️ ☕ 1️⃣ 🫠 🤦🏼‍♂️",
    "\u00a0nbsp\u2003em\u3000ideographic\u200bzero\u2028line\u2029para\ufeffbom\u00adshy\u180e",
    "\x00\x01\x02\x1f\x7f\x80\x85\x9f control",
    "▁under ▁▁ _ __ ▁",
    "<0x0A> <0xFF> <0x41>",
    "\U0010ffff\U000e0001\ue000\uf8ff\ufffd\uffff\ufdd0",
    "¡¿«»„“”‘’—–…·•°±×÷€£¥₿§¶†‡™©®",
    "∀x∈ℝ: ∑_{i=0}^{n} αᵢ·βⁱ ≤ √2 ⇒ ∂f/∂x",
    "!!!???...,,,;;;:::---___***###@@@$$$%%%^^^&&&(((([[[[{{{{<<<<>>>>",
    "a" * 300,
    "ab" * 100,
    "=" * 200,
    " " * 131,
    "\n" * 70,
    "\t" * 40,
    "\U0001f680" * 20,
    "supercalifragilisticexpialidocious antidisestablishmentarianism " * 3,
    "CamelCaseIdentifierXMLHttpRequest snake_case_identifier SCREAMING_CASE kebab-case iPhone",
    "The quick brown fox\njumps over\n\n  the lazy dog.\n\n\n   ",
    "w048 7tijk dsdfhu  cached\u3000 3 33 333 3333 33333 333333 3333333 33333333",
    "\u1e9b\u0323 \u212b \u2126 ﷺ ㎏ ①",
]

_RANGES = [
    (0x20, 0x7E, 30),
    (0xA0, 0x24F, 8),
    (0x300, 0x36F, 3),
    (0x370, 0x52F, 6),
    (0x590, 0x6FF, 6),
    (0x900, 0xDFF, 6),
    (0xE00, 0x11FF, 5),
    (0x1E00, 0x1FFF, 3),
    (0x2000, 0x2BFF, 6),
    (0x3000, 0x30FF, 5),
    (0x4E00, 0x9FFF, 8),
    (0xAC00, 0xD7A3, 5),
    (0xE000, 0xFFFF, 2),
    (0x10000, 0x10FFFF, 2),
    (0x1F300, 0x1FAFF, 5),
    (0x0, 0x1F, 2),
]
_SPACES = [" ", " ", " ", "  ", "\n", "\t", "\r\n", "\u00a0", "\u3000", "\u2003"]


def hard_texts(specials: list[str], count: int = 4000, seed: int = 1) -> list[str]:
    """Returns the listed texts, texts with `specials` in them, and `count` random ones."""
    rng = random.Random(seed)
    texts = list(_LISTED)
    for special in specials:
        texts += [special, f" {special} ", f"a{special}b", f"{special}{special}\n", special[:-1]]
    texts += [_random(rng, specials) for _ in range(count)]
    return texts


def _random(rng: random.Random, specials: list[str]) -> str:
    parts = []
    for _ in range(rng.randint(1, 12)):
        kind = rng.random()
        if kind < 0.2:
            parts.append(rng.choice(_SPACES) * rng.choice([1, 1, 1, 2, 3, 7]))
        elif kind < 0.3:
            parts.append(str(rng.randrange(10 ** rng.randint(1, 9))))
        elif kind < 0.4:
            parts.append(rng.choice(_LISTED)[: rng.randint(1, 30)])
        elif kind < 0.43 and specials:
            parts.append(rng.choice(specials))
        else:
            low, high, _ = rng.choices(_RANGES, [r[2] for r in _RANGES])[0]
            mixed = rng.random() < 0.3
            for _ in range(rng.randint(1, 10)):
                if mixed:
                    low, high, _ = rng.choices(_RANGES, [r[2] for r in _RANGES])[0]
                parts.append(_character(rng, low, high))
    return "".join(parts)


def _character(rng: random.Random, low: int, high: int) -> str:
    code = rng.randint(low, high)
    return chr(code) if not 0xD800 <= code <= 0xDFFF else "\ufffd"
