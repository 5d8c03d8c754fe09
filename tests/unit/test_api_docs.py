"""docs/api.md against the code: every error code is in it, and none that is no more."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).parents[2]
CODE = re.compile(
    r'(?:bad|unavailable|too_many|single|choice|whole)\(\s*(?:given, "\w+", )?"([a-z_]+)"'
    r'|HTTPStatus\.\w+: \(\s*"([a-z_]+)"'
    r'|(?:Problem\([^)]*?|default = \()"([a-z]+_[a-z_]+|unauthorized)"',
    re.DOTALL,
)


def test_every_error_code_is_documented() -> None:
    page = (ROOT / "docs" / "api.md").read_text()
    section = page[page.index("## Errors") : page.index("## Tokens")]
    documented = set(re.findall(r"`([a-z]+_[a-z_]+|unauthorized)`", section))
    places = [ROOT / "aggregator", ROOT / "clickmill" / "contract"]
    sources = [path.read_text() for place in places for path in place.rglob("*.py")]
    found = {next(filter(None, m)) for text in sources for m in CODE.findall(text)}
    assert found - {"internal_error"} == documented
