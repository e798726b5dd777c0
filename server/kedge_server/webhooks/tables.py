"""Tables of webhooks and of what is sent to them."""

from __future__ import annotations

from sqlmodel import Field, SQLModel


class WebhookRow(SQLModel, table=True):
    """Where events are sent; ``secret`` signs them and is shown once."""

    __tablename__ = "webhook"

    id: str = Field(primary_key=True)
    url: str
    kinds: str
    secret: str
    created: float
    enabled: bool = True
    failures: int = 0
    reason: str = ""


class DeliveryRow(SQLModel, table=True):
    """An event on its way to a webhook, or arrived, or given up: outbox and log in one."""

    __tablename__ = "webhook_delivery"

    id: str = Field(primary_key=True)
    webhook: str = Field(foreign_key="webhook.id", index=True)
    event: int
    kind: str
    body: str
    created: float
    state: str = Field(default="pending", index=True)
    due: float = Field(index=True)
    attempts: int = 0
    status: int | None = None
    reason: str = ""
    finished: float | None = None
