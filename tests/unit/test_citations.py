"""Every citation and every relative link of the repository leads somewhere."""

import re
from pathlib import Path

ROOT = Path(__file__).parents[2]
FOLDERS = "csg csg_cli csg_train csg_export csg_serve benchmarks docs examples model_repository tests .github"
SUFFIXES = {".md", ".py", ".yaml", ".yml", ".sh", ".toml"}
SECTIONS = re.compile(r"(\S*\bmethod\.md)\W*sections? (\d+(?:(?:,| and| to|-) ?\d+)*)")
PAGE = re.compile(r"(?<![\w/.-])(?:docs|tests|benchmarks|examples)/[\w./-]*\w\.(?:md|py|yaml)\b")
LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")
CODE = re.compile(r"^```.*?^```|^(?: {4}|\t).*?$|`[^`\n]*`", re.MULTILINE | re.DOTALL)


def text_files():
    paths = [*ROOT.glob("*.md"), *(p for folder in FOLDERS.split() for p in (ROOT / folder).rglob("*"))]
    generated = {ROOT / "docs/_build", ROOT / "docs/reference/generated"}
    return sorted(p for p in paths if p.suffix in SUFFIXES and p.is_file() and not generated & {*p.parents})


def anchors(page):
    """The anchors of a Markdown page's headings, as GitHub makes them."""
    text = re.sub(r"^```.*?^```", "", page.read_text(), flags=re.MULTILINE | re.DOTALL)
    titles = re.findall(r"^#+ (.+)$", text, re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


def test_method_sections_that_are_cited_exist():
    sections = set(re.findall(r"^## (\d+)\.", (ROOT / "docs/method.md").read_text(), re.MULTILINE))
    cited = 0
    for path in text_files():
        text = re.sub(r"\n[ #]*", " ", path.read_text())
        for page, numbers in SECTIONS.findall(text):
            assert page.lstrip("([`").endswith("docs/method.md") or path.parent == ROOT / "docs", f"{path}: {page}"
            assert set(re.findall(r"\d+", numbers)) <= sections, f"{path}: {page} section {numbers}"
            cited += 1
    assert cited > 40


def test_files_that_are_named_exist():
    named = {(path, name) for path in text_files() for name in PAGE.findall(path.read_text())}
    assert len(named) > 30
    missing = [f"{path.relative_to(ROOT)}: {name}" for path, name in sorted(named) if not (ROOT / name).is_file()]
    assert not missing, "\n".join(missing)


def broken(page, link):
    """What is wrong with a relative link, or None."""
    name, _, anchor = link.partition("#")
    target = page.parent / name if name else page
    if not target.exists():
        return f"{page}: {link} does not exist"
    return f"{page}: {link} is not a heading" if anchor and anchor not in anchors(target) else None


def test_relative_links_resolve():
    pages = [path for path in text_files() if path.suffix == ".md"]
    links = {(page, link) for page in pages for link in LINK.findall(CODE.sub("", page.read_text()))}
    links = {(page, link) for page, link in links if "://" not in link}
    assert len(links) > 20
    problems = [problem for page, link in sorted(links) if (problem := broken(page, link))]
    assert not problems, "\n".join(problems)
