"""Conversations that are kept, and the page that shows them. docs/chats.md has the routes.

    schema.py      the tables
    store.py       chats and messages: every look-up takes the owner
    rows.py        single ones of them: statements, rows as JSON objects
    tree.py        who follows whom in a chat
    deleting.py    deleting them in slices, and the traces that leaves
    prompts.py     a branch of a chat -> what a model is asked
    answering.py   answers: made whatever becomes of the connections, saved as they come
    events.py      what happens, told to every page of an owner
    shelves.py     folders and presets
    page.py        the built page's files
    routes.py      /api/chats and /api/events

The rest of the server knows of this package what ``ChatServer`` in parts.py has.
"""

# How the paths of this package begin: failures there are told in this server's own way, not as Ollama's API does.
PATHS = tuple(f"/api/{name}" for name in (
    "attachments", "chats", "events", "export", "folders", "import", "library", "machine", "pairing", "presets",
    "price", "search", "session", "stats", "users"))
