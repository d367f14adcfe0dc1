"""The page's scripts keep the house rules that a machine can judge; no browser needed."""

import re
from html.parser import HTMLParser
from pathlib import Path

import pytest

import services.labels
from services.labels.routes.page import CONTENT_SECURITY_POLICY, PAGE_FILES

pytestmark = pytest.mark.unit

FOLDER = Path(services.labels.__file__).parent / "page"
SCRIPTS = sorted(FOLDER.glob("*.js"))
PAGES = sorted(FOLDER.glob("*.html"))
MARKUP_FROM_TEXT = (
    r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|createContextualFragment|DOMParser"
    r"|\beval\(|new Function|setTimeout\(\s*[\"'`]|srcdoc|\.on\w+\s*=\s*[\"'`]"
)


class References(HTMLParser):
    """Ids, and everything that a page loads or runs."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.ids: list[str] = []
        self.loaded: list[str] = []
        self.inline: list[str] = []
        self._tag = ""
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        found = dict(attrs)
        self._tag = tag
        self.ids += [found["id"]] if "id" in found else []
        self.loaded += [value for name, value in attrs if name in ("src", "href") and value]
        self.inline += [name for name in found if name.startswith("on") or name == "style"]

    def handle_data(self, data):
        if self._tag in ("script", "style") and data.strip():
            self.inline.append(data)


def exports(path: Path) -> set[str]:
    pattern = r"^export (?:async )?(?:function|class|const) (\w+)"
    return set(re.findall(pattern, path.read_text(), re.M))


@pytest.mark.parametrize("path", SCRIPTS, ids=lambda path: path.name)
def test_a_script_opens_with_its_purpose_and_never_makes_markup_of_text(path):
    text = path.read_text()
    assert text.startswith("// ")
    assert text.isascii()
    assert [line for line in text.splitlines() if len(line) > 100] == []
    assert re.findall(MARKUP_FROM_TEXT, text) == []
    assert re.findall(r"https?://(?!www\.w3\.org/2000/svg)", text) == []
    assert not re.search(r"TODO|console\.|\bvar\b|[^=!]==[^=]", text)


@pytest.mark.parametrize("path", SCRIPTS, ids=lambda path: path.name)
def test_what_a_script_imports_is_exported_and_used(path):
    text = path.read_text()
    imports = re.findall(r"import \{([^}]*)\} from \"\./([\w.]+)\";", text)
    assert len(imports) == text.count("import {")
    for names, source in imports:
        for name in filter(None, map(str.strip, names.split(","))):
            assert name in exports(FOLDER / source), f"{source} exports no {name}"
            assert len(re.findall(rf"\b{name}\b", text)) > 1, f"{name} is not used"


def test_every_script_is_reached_and_every_export_has_a_use():
    texts = {path.name: path.read_text() for path in [*SCRIPTS, *PAGES]}
    everything = "\n".join(texts.values())
    for path in SCRIPTS:
        assert re.search(rf"[\"/]{path.name}\"", everything), f"nothing loads {path.name}"
        for name in exports(path):
            assert len(re.findall(rf"\b{name}\b", everything)) > 1, f"nobody needs {name}"


@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.name)
def test_a_page_loads_its_own_files_and_runs_nothing_inline(path):
    page = References(path.read_text())
    assert page.inline == []
    assert len(page.ids) == len(set(page.ids))
    for address in page.loaded:
        assert address.removeprefix("/label/static/") in PAGE_FILES, address


def test_every_element_that_the_label_page_asks_for_is_there():
    ids = set(References((FOLDER / "index.html").read_text()).ids)
    scripts = [path for path in SCRIPTS if path.name != "login.js"]
    asked = {id for path in scripts for id in re.findall(r'byId\("([\w-]+)"\)', path.read_text())}
    assert asked <= ids


def test_every_colour_of_one_theme_has_its_counterpart():
    style = (FOLDER / "page.css").read_text()
    light, dark = re.findall(r":root \{(.*?)\}", style, re.S)[:2]
    names = [set(re.findall(r"(--[\w-]+):", theme)) for theme in (light, dark)]
    assert names[0] - names[1] == {"--radius"}
    assert set(re.findall(r"var\((--[\w-]+)", style)) <= names[0] | {
        "--columns",
        "--size",
        "--at",
        "--row",
    }


def test_the_policy_lets_nothing_in_from_elsewhere():
    assert "unsafe" not in CONTENT_SECURITY_POLICY
    assert "http" not in CONTENT_SECURITY_POLICY
    assert "default-src 'none'" in CONTENT_SECURITY_POLICY
