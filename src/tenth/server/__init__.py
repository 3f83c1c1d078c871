"""``tenth serve``: models behind the APIs that clients already speak, for several people at once, safely.

    app.py         puts everything together; running.py listens and shuts down
    guard.py       who may come in: Host, Origin, content type, size, key
    dialects/      one file per API: its fields, its answers, its errors; each turns a body into an Ask
    asking.py      the Ask, the one request that all dialects mean; answers.py what comes back of it
    service.py     an Ask becomes an Answer: finds the model, checks, queues, starts
    admission.py   who is next; shelf.py which models are open; state.py what survives a restart

HTTP runs on one asyncio thread. Each model's engine has a thread of its own, which wakes the first one when there are
new pieces; templates and tokenizers run on a few more, so that a long prompt stops nobody's stream.
"""
