"""When something was made, as its record states it."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Annotated

from pydantic import AfterValidator

LEEWAY = timedelta(days=1)
"""By which an honest clock may be ahead of the one here."""


def aware(moment: datetime) -> datetime:
    """The moment itself; one without a time zone is of UTC."""
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)


Moment = Annotated[datetime, AfterValidator(aware)]


def ahead(moment: datetime) -> bool:
    """Whether nothing can have been made then yet, by the clock here."""
    return aware(moment) - datetime.now(UTC) > LEEWAY
