"""What people state in YAML files: plans, policies and rules, each a pydantic model."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, TypeVar

import yaml
from pydantic import BaseModel, ValidationError

from pneumoserve.errors import PneumoserveError

_Model = TypeVar("_Model", bound=BaseModel)


@dataclass(frozen=True)
class YamlFile(Generic[_Model]):
    """A kind of file. `name` begins its sentences; `page` is the document that shows one."""

    model: type[_Model]
    name: str
    page: str
    error: type[PneumoserveError]

    def load(self, path: Path) -> _Model:
        """The model that a file states.

        Raises:
            PneumoserveError: of the kind's own class, there is no such file, or it states no such model.
        """
        return self.fill(self.read(path))

    def read(self, path: Path) -> dict[str, Any]:
        """The names and values of a file.

        Raises:
            PneumoserveError: of the kind's own class, there is no such file, or it holds none.
        """
        try:
            return self.parse(path.read_text(encoding="utf-8"))
        except OSError as error:
            raise self.error(f"{self.name} {path.name} cannot be read ({error.strerror}); correct its path.") from None
        except UnicodeDecodeError:
            raise self.error(f"{self.name} is no UTF-8 text; save it as such.") from None

    def parse(self, text: str) -> dict[str, Any]:
        """The names and values of a YAML text.

        Raises:
            PneumoserveError: of the kind's own class, it holds none.
        """
        try:
            document = yaml.safe_load(text)
        except yaml.YAMLError as error:
            mark = getattr(error, "problem_mark", None)
            line = "" if mark is None else f" in line {mark.line + 1}"
            problem = getattr(error, "problem", None) or "it cannot be parsed"
            raise self.error(f"{self.name} is no YAML{line}: {problem}; correct it.") from None
        if not isinstance(document, dict):
            raise self.error(f"{self.name} has no names with values; see the example in {self.page}.")
        return document

    def fill(self, document: dict[str, Any]) -> _Model:
        """The model of names and values.

        Raises:
            PneumoserveError: of the kind's own class; the text says what is wrong at which place.
        """
        try:
            return self.model.model_validate(document)
        except ValidationError as error:
            # Values stay untold: a file may name people.
            found = error.errors(include_url=False, include_input=False)
            faults = "; ".join(_sentence(each["loc"], each["msg"]) for each in found)
            raise self.error(f"{self.name} cannot be followed: {faults}.") from None


def _sentence(where: tuple[int | str, ...], message: str) -> str:
    place = ".".join(map(str, where))
    text = message.removeprefix("Value error, ")
    return f"{place}: {text}" if place else text
