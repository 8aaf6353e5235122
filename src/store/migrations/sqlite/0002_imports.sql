-- How far each import is, written in the transaction of the rows themselves: so a run that was cut off at any point is
-- taken up where it ended, without a row lost or doubled.
CREATE TABLE imports (
    key TEXT PRIMARY KEY NOT NULL,
    rows INTEGER NOT NULL CHECK (rows >= 0)
) STRICT, WITHOUT ROWID;
