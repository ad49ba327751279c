"""The code fences of the documents that the public API honours, read where they lie; nothing of them is copied here."""

from dataclasses import dataclass
from pathlib import Path

from markdown_it import MarkdownIt

FOLDER = Path(__file__).resolve().parents[3] / "shared" / "documents"
ABSENT = f"the documents are not beside this checkout ({FOLDER.parent.name}/{FOLDER.name}): their snippets were not run"


@dataclass(frozen=True)
class Fence:
    """One fence: its document's number, its place among the python fences (from 1), the line it begins at, its text."""

    document: str
    number: int
    line: int
    source: str

    def run(self, namespace: dict[str, object]) -> None:
        """Execute the text, unchanged, with tracebacks that point into the document."""
        path = str(document_path(self.document))
        exec(compile("\n" * self.line + self.source, path, "exec"), namespace)


def document_path(document: str) -> Path:
    """The file of document "000" or "001"."""
    return next(FOLDER.glob(f"{document}_*"))


def present() -> bool:
    """Whether the documents lie beside this checkout."""
    return FOLDER.is_dir()


def fences(document: str) -> list[Fence]:
    """Every python fence of a document, in order."""
    tokens = MarkdownIt().parse(document_path(document).read_text())
    found = [token for token in tokens if token.type == "fence" and token.info.strip() == "python"]
    return [
        Fence(document, i + 1, token.map[0] + 1 if token.map else 0, token.content) for i, token in enumerate(found)
    ]
