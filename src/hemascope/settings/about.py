"""Who made a model's data and under which terms it may be used, as a table of settings."""

from pydantic import Field

from hemascope.settings.base import Settings

NOT_STATED = "not stated"


class DataSource(Settings):
    """Images that a model was trained on.

    Attributes:
        title: What they are called, and who published them.
        license: As the publisher states it.
        url: Where they are.
        num_images: How many of them are in train; 0 where that is not said.
        groups: How patients or slides were kept apart.
    """

    title: str
    license: str = NOT_STATED
    url: str = ""
    num_images: int = 0
    groups: str = ""


class About(Settings):
    """What an exported model says of its origin.

    Attributes:
        license: Of the weights.
        sources: Of its data.
        sections: More for its card, by heading, in Markdown.
    """

    license: str = NOT_STATED
    sources: tuple[DataSource, ...] = ()
    sections: dict[str, str] = Field(default_factory=dict)

    @property
    def source_licenses(self) -> str:
        """The sources and their licenses, in a line."""
        return "; ".join(f"{source.title} ({source.license})" for source in self.sources)
