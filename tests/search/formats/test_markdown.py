"""Markdown."""

from __future__ import annotations

from twofold.search.formats import markdown

PAGE = """---
title: "The title"
lang: en
tags: [a, b]
---
# The title
intro

## First ##
```python
# no heading
```
### Deep
text
## Second
~~~
## no
```
~~~
"""


def test_headings_open_sections_below_the_title() -> None:
    page = markdown.read(PAGE.encode(), "a")
    assert page.title == "The title" and page.facts == {"lang": "en"}
    assert [(heading.path, page.place(heading.at)) for heading in page.headings] == [
        ("", ":6"),
        ("First", ":9"),
        ("First: Deep", ":13"),
        ("Second", ":15"),
    ]


def test_the_first_heading_is_the_title_where_nothing_else_says_so() -> None:
    page = markdown.read(b"intro\n\n# Title\n\n# Another\n", "a")
    assert page.title == "Title" and [heading.path for heading in page.headings] == ["", "Another"]
    assert markdown.read(b"no heading at all", "a").title == ""
    assert markdown.read(b"---\nnot front matter", "a").text.startswith("---")
