"""The section about the data: it has what the corpus has and nothing else, escaped, in the report and on its own."""

import json
import math
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from test_page import NASTY, Element, Page, fabricate, read

from sejax.build import Preview
from sejax.corpora.describe import describe_data
from sejax.corpora.schema import Corpus, Dropped, Loss, Utterance
from sejax.protocols.audit import audit
from sejax.protocols.registry import describe_protocol, make_folds
from sejax.report.page import write_data_page

CLASSES = ("angry", "sad")


def utterances(
    number: int = 12, *, speakers: Sequence[str] = ("s1", "s2", "s3"), classes: Sequence[str] = CLASSES, **facts: Any
) -> list[Utterance]:
    """Returns utterances of which each fact is a constant or a function of the number."""
    found = []
    for n in range(number):
        own = {name: fact(n) if callable(fact) else fact for name, fact in facts.items()}
        label = classes[n // len(speakers) % len(classes)] if classes else None
        known = {"speaker": speakers[n % len(speakers)], "label": label, "corpus": "table"}
        found.append(Utterance(**({"id": f"u{n:04d}", "path": f"/{n}.wav"} | known | own)))
    return found


def page_of(
    folder: Path,
    spoken: Sequence[Utterance],
    *,
    seconds: float | None = 2.0,
    classes: Sequence[str] = CLASSES,
    **facts: Any,
) -> tuple[Element, str]:
    """Returns the tree and the text of data.html."""
    facts = {"name": "table", "vad_scale": (1.0, 5.0)} | facts
    corpus = Corpus(**facts, classes=tuple(classes), utterances=tuple(spoken))
    folds = make_folds(spoken, "loso")
    protocol = describe_protocol(
        "loso", normalisation="train", select_on_test=False, shared_speakers=False, seeds=1, folds=folds, most=0
    )
    audited = audit(spoken, folds, classes, digests={}, dropped=corpus.dropped, notes={}, corpus_notes=corpus.notes)
    lasting = {} if seconds is None else {u.id: seconds + n / 10 for n, u in enumerate(spoken)}
    preview = Preview(
        corpus=corpus,
        labels="default",
        folds=folds,
        protocol=protocol,
        audit=audited,
        data=describe_data(corpus, lasting),
    )
    text = Path(write_data_page(str(folder), preview)).read_text(encoding="utf-8")
    return Page(text).root, text


def section(root: Element) -> Element:
    (found,) = (s for s in root.all("section") if s.attributes.get("id") == "data")
    return found


def rows_of(table: Element) -> list[list[str]]:
    """Returns the cells of a table's body."""
    return [[cell.text() for cell in (*row.all("th"), *row.all("td"))] for row in table.all("tbody")[0].all("tr")]


RATED: dict[str, Any] = {"vad": lambda n: (1.0 + n % 4, 2.0 + n % 3, math.nan)}
VOTED: dict[str, Any] = {"distribution": lambda n: {"angry": 0.5, "sad": 0.5} if n % 2 else {"angry": 1.0, "sad": 0.0}}


@pytest.mark.parametrize(
    ("facts", "figures", "tables", "words"),
    [
        ({}, ["Durations"], ["speaker"], []),
        ({"seconds": None}, [], ["speaker"], []),
        (RATED, ["Durations", "Valence and arousal"], ["speaker"], ["Ratings on a scale from 1 to 5", "valence"]),
        (VOTED, ["Durations", "Raters' disagreement"], ["speaker"], ["Raters' votes", "votes' entropy"]),
        ({"gender": lambda n: "FM"[n % 3 // 2]}, ["Durations"], ["gender", "speaker"], ["female", "male"]),
        ({"split": lambda n: "train" if n % 3 else "test1"}, ["Durations"], ["split", "speaker"], ["test1"]),
        ({"corpus": lambda n: "ab"[n % 3 // 2]}, ["Durations"], ["corpus", "speaker"], []),
        ({"text": "t"}, ["Durations"], ["speaker"], ["1 different text"]),
        ({"speaker_known": lambda n: n > 5}, ["Durations"], ["speaker"], ["unknown speaker"]),
        ({"hidden": lambda n: n == 0}, ["Durations"], ["speaker"], ["hidden labels"]),
        ({"session": lambda n: f"{n % 3}"}, ["Durations"], ["speaker"], ["sessions"]),
    ],
    ids=lambda value: "" if isinstance(value, list) else ",".join(value) or "plain",
)
def test_it_has_what_the_corpus_has_and_nothing_else(
    tmp_path: Path, facts: dict[str, Any], figures: list[str], tables: list[str], words: list[str]
) -> None:
    facts = dict(facts)
    seconds = facts.pop("seconds", 2.0)
    root, text = page_of(tmp_path, utterances(**facts), seconds=seconds)
    data = section(root)
    assert [figure.all("b")[0].text() for figure in data.all("figure")] == figures
    assert [table.all("th")[0].text() for table in data.all("table", "counts")] == tables
    said = data.text()
    optional = ("Ratings", "valence", "arousal", "dominance", "Raters' votes", "votes' entropy", "female", "test1")
    optional += ("different text", "unknown speaker", "hidden labels", "sessions", "dropped", "no class")
    for word in optional:
        assert (word in said) == (word in " ".join([*words, *figures])), word
    assert ("minutes" in said) == (seconds is not None)
    assert not re.search(r"\b(nan|None)\b", text)
    for element in data.all():
        if element.tag in ("section", "div", "table", "tbody", "ul", "li", "dl", "p", "details", "figure", "h3"):
            assert element.text().strip(), f"an empty {element.tag} {element.attributes}"


def test_its_numbers_are_those_of_the_corpus(tmp_path: Path) -> None:
    spoken = utterances(13, gender=lambda n: "F" if n % 3 else None, **RATED)
    root, _ = page_of(tmp_path, spoken)
    (classes,) = section(root).all("table", "classes")
    head = [cell.text() for cell in classes.all("thead")[0].all("th")]
    assert head == ["class", "utterances", "share", "speakers", "minutes", "median, s", "valence", "arousal"]
    angry = [u for u in spoken if u.label == "angry"]
    valence = [u.vad[0] for u in angry]
    mean = sum(valence) / len(valence)
    deviation = math.sqrt(sum((value - mean) ** 2 for value in valence) / (len(valence) - 1))
    row = rows_of(classes)[0]
    assert row[:4] == ["angry", "7", f"{100 * 7 / 13:.1f} %", "3"] and row[6] == f"{mean:.2f} ± {deviation:.2f}"
    by_gender, by_speaker = section(root).all("table", "counts")
    assert [[*cells[:2], *cells[3:]] for cells in rows_of(by_gender)] == [
        ["female", "2", "4", "4", "8"],
        ["not known", "1", "3", "2", "5"],
    ]
    assert [cells[0] for cells in rows_of(by_speaker)] == ["s1", "s2", "s3"]
    # The legend names every class whose mean is drawn.
    legend = section(root).all("figure")[-1].all("span", "legend")[0]
    assert [name.text() for name in legend.all("span")] == ["1 angry", "2 sad"]


def test_hostile_words_are_escaped(tmp_path: Path) -> None:
    spoken = utterances(
        speakers=NASTY,
        classes=NASTY,
        corpus=lambda n: NASTY[n % 4],
        text=lambda n: NASTY[n % 4],
        session=lambda n: NASTY[n % 4],
        vad=(2.0, 3.0, 4.0),
    )
    lost = (Dropped("<id>", "<path>", "the <reason>", Loss.ABSENT),)
    root, text = page_of(
        tmp_path,
        spoken,
        classes=NASTY,
        label_source="<b>raters</b>",
        notes=("a <note> & more",),
        dropped=lost,
        name="<c>",
    )
    page = root.text()
    for raw in (*NASTY, "<b>raters</b>", "a <note> & more", "the <reason>", "<c>, the data"):
        assert raw in page
    assert "<script>" not in text and "<b>raters" not in text and "<note>" not in text


def test_the_page_stands_alone_and_repeats_its_bytes(tmp_path: Path) -> None:
    spoken = utterances(**RATED, **VOTED)
    root, text = page_of(tmp_path, spoken)
    assert "http" not in text and not re.search(r"url\((?!#)|@import", text)
    assert not root.all("script") and not root.all("link") and not root.all("img")
    figures = root.all("svg")
    assert len(figures) == 3 and all(figure.attributes["aria-label"] for figure in figures)
    css = text[text.index("<style>") : text.index("</style>")]
    assert set(re.findall(r"var\((--\w+)\)", text)) - {"--share", "--a"} <= set(re.findall(r"(--[\w-]+):", css))
    assert page_of(tmp_path, spoken)[1] == text
    # What only decoding can tell is not claimed.
    assert "No audio of a test set occurs outside it" not in text
    assert "Whether audio occurs twice is not known before it is decoded" in text


def test_speakers_have_the_order_of_their_numbers_and_an_end(tmp_path: Path) -> None:
    names = [str(n) for n in range(1, 601)]
    root, _ = page_of(tmp_path, utterances(1200, speakers=names))
    (table,) = section(root).all("table", "counts")
    rows = rows_of(table)
    assert [row[0] for row in rows] == names[:500]
    (folded,) = section(root).all("details")
    assert "open" not in folded.attributes and "and 100 more in data.json" in folded.text()


def test_the_report_has_the_section_of_its_workdir(tmp_path: Path) -> None:
    folder = fabricate(tmp_path)
    without, _, _ = read(folder)
    assert not [s for s in without.all("section") if s.attributes.get("id") == "data"]
    corpus = Corpus("table", CLASSES, (1.0, 5.0), tuple(utterances(**RATED)))
    tree = describe_data(corpus, {})
    tree["by_class"][0]["utterances"] = 7777
    (folder / "data.json").write_text(json.dumps(tree), encoding="utf-8")
    root, text, _ = read(folder)
    assert rows_of(section(root).all("table", "classes")[0])[0][1] == "7,777"  # shown, not counted again
    places = [text.index(mark) for mark in ('class="results"', 'id="data"', 'class="setting"', 'id="audit"')]
    assert places == sorted(places)
