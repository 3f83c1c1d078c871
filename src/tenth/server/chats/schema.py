"""The tables of accounts and conversations, as one of the steps of tenth.server.state.

Ids are unguessable texts; ``n`` gives messages their order and the search index its numbers. What a chat holds goes
with it (ON DELETE CASCADE). JSON is kept as text that SQL never looks into.
"""

# What search finds: words of titles and messages, as words.py takes them from texts, with their owner. SQLite's index
# keeps no texts of its own (content=''), so taking something out needs the words that were put in. Beginnings of two
# and three letters have lists of their own: what is typed is looked for at each letter, and they begin many words.
FOUND = (
    """
    CREATE VIRTUAL TABLE found USING fts5(owner, words, content='', prefix='2 3',
        tokenize="unicode61 remove_diacritics 0 categories 'L* N* Co M*'");
    """,
    """
    CREATE TABLE found (n BIGINT PRIMARY KEY REFERENCES messages (n) ON DELETE CASCADE, words TSVECTOR NOT NULL);
    CREATE INDEX found_words ON found USING gin (words);
    """,
)

ACCOUNTS = """
    CREATE TABLE users (
        id TEXT PRIMARY KEY, name TEXT NOT NULL UNIQUE, role TEXT NOT NULL, password TEXT, requests_per_minute INTEGER,
        concurrent INTEGER, created_at REAL NOT NULL
    ) STRICT;
    ALTER TABLE keys ADD COLUMN user_id TEXT REFERENCES users (id) ON DELETE CASCADE;
    CREATE TABLE sessions (
        hash BLOB PRIMARY KEY, user_id TEXT REFERENCES users (id) ON DELETE CASCADE,
        key_id TEXT REFERENCES keys (id) ON DELETE CASCADE, created_at REAL NOT NULL, expires_at REAL NOT NULL
    ) STRICT;
    CREATE TABLE pairings (
        hash BLOB PRIMARY KEY, user_id TEXT REFERENCES users (id) ON DELETE CASCADE, expires_at REAL NOT NULL
    ) STRICT;
"""

CHATS = """
    CREATE TABLE folders (
        id TEXT PRIMARY KEY, owner TEXT NOT NULL, name TEXT NOT NULL, created_at REAL NOT NULL
    ) STRICT;
    CREATE INDEX folders_by_owner ON folders (owner);
    CREATE TABLE presets (
        id TEXT PRIMARY KEY, owner TEXT NOT NULL, name TEXT NOT NULL, model TEXT, settings TEXT NOT NULL,
        created_at REAL NOT NULL
    ) STRICT;
    CREATE INDEX presets_by_owner ON presets (owner);
    CREATE TABLE chats (
        id TEXT PRIMARY KEY, owner TEXT NOT NULL, title TEXT NOT NULL, title_words TEXT NOT NULL,
        folder_id TEXT REFERENCES folders (id) ON DELETE SET NULL, is_pinned INTEGER NOT NULL, created_at REAL NOT NULL,
        updated_at REAL NOT NULL, model TEXT, settings TEXT NOT NULL, current_id TEXT, rev INTEGER NOT NULL
    ) STRICT;
    CREATE INDEX chats_by_time ON chats (owner, updated_at DESC, id);
    CREATE INDEX chats_by_folder ON chats (folder_id);
    CREATE TABLE messages (
        n INTEGER PRIMARY KEY, id TEXT NOT NULL UNIQUE, chat_id TEXT NOT NULL REFERENCES chats (id) ON DELETE CASCADE,
        parent_id TEXT, role TEXT NOT NULL, content TEXT NOT NULL, thinking TEXT NOT NULL, thinking_s REAL,
        status TEXT NOT NULL, error TEXT, model TEXT, settings TEXT NOT NULL, facts TEXT NOT NULL,
        rating INTEGER NOT NULL, created_at REAL NOT NULL, finish_reason TEXT, client_id TEXT, server TEXT
    ) STRICT;
    CREATE INDEX messages_by_chat ON messages (chat_id, n);
    CREATE INDEX messages_at_work ON messages (status) WHERE status IN ('queued', 'prompt', 'running');
    CREATE UNIQUE INDEX messages_by_client ON messages (chat_id, client_id) WHERE client_id IS NOT NULL;
    CREATE TABLE attachments (
        id TEXT PRIMARY KEY, owner TEXT NOT NULL, name TEXT NOT NULL, kind TEXT NOT NULL, n_chars INTEGER NOT NULL,
        n_tokens INTEGER NOT NULL, is_counted INTEGER NOT NULL, is_cut INTEGER NOT NULL, created_at REAL NOT NULL,
        content TEXT NOT NULL
    ) STRICT;
    CREATE TABLE attached (
        message_id TEXT NOT NULL REFERENCES messages (id) ON DELETE CASCADE,
        attachment_id TEXT NOT NULL REFERENCES attachments (id) ON DELETE CASCADE, position INTEGER NOT NULL,
        PRIMARY KEY (message_id, position)
    ) STRICT;
    CREATE INDEX attached_by_attachment ON attached (attachment_id);
"""

# What was set, and the tokens of answers, for who looks inside one.
MORE = """
    CREATE TABLE preferences (
        owner TEXT NOT NULL, name TEXT NOT NULL, value TEXT NOT NULL, PRIMARY KEY (owner, name)
    ) STRICT;
    CREATE TABLE message_tokens (
        message_id TEXT PRIMARY KEY REFERENCES messages (id) ON DELETE CASCADE, owner TEXT NOT NULL,
        made_at REAL NOT NULL, data BLOB NOT NULL
    ) STRICT;
    CREATE INDEX message_tokens_by_time ON message_tokens (owner, made_at);
"""

# Links to sessions of keys.
PAIRED = "ALTER TABLE pairings ADD COLUMN key_id TEXT REFERENCES keys (id) ON DELETE CASCADE;"

# Which of two states of a message is the newer one.
REVS = "ALTER TABLE messages ADD COLUMN rev INTEGER NOT NULL DEFAULT 0;"

# How much somebody has is counted whenever something is added.
OWNERS = "CREATE INDEX responses_by_owner ON responses (owner); CREATE INDEX batches_by_owner ON batches (owner);"
