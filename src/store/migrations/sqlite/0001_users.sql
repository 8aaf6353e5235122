-- AUTOINCREMENT: an id is never reused, not even the highest one after its user was deleted.
CREATE TABLE users (
    id    INTEGER PRIMARY KEY AUTOINCREMENT,
    name  TEXT NOT NULL,
    email TEXT NOT NULL
) STRICT;

-- How many users there are, kept by triggers: counting a million rows would take long at each start and scrape,
-- and a count kept in memory would miss what other programs write.
CREATE TABLE user_count (
    single INTEGER PRIMARY KEY CHECK (single = 1),
    users  INTEGER NOT NULL
) STRICT;

INSERT INTO user_count (single, users) VALUES (1, 0);

CREATE TRIGGER users_count_insert AFTER INSERT ON users BEGIN
    UPDATE user_count SET users = users + 1;
END;

CREATE TRIGGER users_count_delete AFTER DELETE ON users BEGIN
    UPDATE user_count SET users = users - 1;
END;
