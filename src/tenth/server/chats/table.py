"""All routes of this package: one line each."""

from __future__ import annotations

from tenth.server.chats import account_routes, file_routes, routes, shelf_routes

ROUTERS = (routes.router, shelf_routes.router, account_routes.router, file_routes.router)
