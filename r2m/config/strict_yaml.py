"""YAML as settings need it: plain values, each key once, no dates, no times, never more than is worth reading."""

import re
from typing import Any

import yaml

from r2m.errors import one_line

MOST_CHARACTERS = 2**18  # characters
MOST_VALUES = 20_000  # an alias counted as all that it stands for
DEEPEST = 30
VALUE_KINDS = ("null", "bool", "int", "float", "str", "seq", "map")  # of values; merge keys are resolved before


def parse(text: str) -> Any:
    """The value. Raises ValueError, one line, for what is not YAML, or more than that."""
    if len(text) > MOST_CHARACTERS:
        raise ValueError(f"{len(text):,} characters; at most {MOST_CHARACTERS:,} are allowed")
    try:
        return yaml.load(text, _Loader)
    except Exception as error:  # beside its own, PyYAML raises half a dozen kinds: IndexError for `!!int ''`
        raise ValueError(one_line(str(error)) or type(error).__name__) from None


class _Loader(yaml.SafeLoader):
    """Nine lines of aliases can stand for a billion values, which nothing minds before they are shown or compared."""

    def __init__(self, stream: str) -> None:
        super().__init__(stream)
        self._whole: dict[int, tuple[int, int]] = {}  # collections, by their node: values inside, levels
        self._level = 0

    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node | None:
        alias = self.check_event(yaml.AliasEvent)
        self._level += 1
        if self._level > DEEPEST:  # before it is read: that takes a stack
            raise yaml.YAMLError(f"nested more than {DEEPEST} deep")
        node = super().compose_node(parent, index)
        self._level -= 1
        if isinstance(node, yaml.CollectionNode):
            if alias and id(node) not in self._whole:
                raise yaml.YAMLError("an alias stands inside of what it stands for")
            size, levels = self._whole.setdefault(id(node), self._measured(node))
            if size > MOST_VALUES or self._level + levels > DEEPEST:
                raise yaml.YAMLError(
                    f"more than {MOST_VALUES:,} values or {DEEPEST} levels, aliases counted as what they stand for"
                )
        return node

    def _measured(self, node: yaml.CollectionNode) -> tuple[int, int]:
        parts = node.value
        if isinstance(node, yaml.MappingNode):
            keys = [key for key, _ in node.value if isinstance(key, yaml.ScalarNode)]
            seen: set[str] = set()
            for key in keys:
                if key.value in seen:  # YAML itself would keep the last
                    raise yaml.YAMLError(f"{key.value}: given twice, line {key.start_mark.line + 1}")
                seen.add(key.value)
            parts = [part for pair in node.value for part in pair]
        inside = [self._whole.get(id(part), (1, 0)) for part in parts]
        return 1 + sum(size for size, _ in inside), 1 + max((levels for _, levels in inside), default=0)


_TAG = "tag:yaml.org,2002:"
_NUMBERS = (f"{_TAG}int", f"{_TAG}float")
_NO_NUMBER = r"(?!.*:|[-+]?0[\d_])"  # to YAML 1.1, 1:30 is ninety and 010 is eight
_Loader.yaml_implicit_resolvers = {
    first: [
        (tag, re.compile(_NO_NUMBER + pattern.pattern, re.X) if tag in _NUMBERS else pattern)
        for tag, pattern in resolvers
        if tag != f"{_TAG}timestamp"
    ]
    for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
_Loader.yaml_constructors = {
    tag: make
    for tag, make in yaml.SafeLoader.yaml_constructors.items()
    if tag is None or tag in [_TAG + kind for kind in VALUE_KINDS]
}
