"""What every HTTP service of ours shares: keys and roles, problems, idempotency, limits.

A route names who may call it (`principal: Principal = require("service")`; the app does not start
without it), what it may answer (`responses=problems(409, 412)`), and raises `Problem` for errors.
A POST that creates has `dependencies=[IDEMPOTENT]` and ends `return await once(request, principal,
operation)`: `operation(session)` returns `answer(view, 201, revision=..., location=...)`, which is
kept in its own transaction.
PATCH and DELETE call `etags.require_match(request, row.revision)` in their operation; a GET of one
thing ends with `etags.conditional(request, answer(view, revision=...))`. A list has a parameter
`page: PageQuery`; in its query `page.fetch(session, select(Row), Row.created_at, Row.id)` gives
rows, next cursor and total, for `answer_page(request, views, next_cursor, total)`.
"""
