-- Which IdentityProvider the people and groups under a name belong to: the uid of the object, or a word where there are
-- no uids; empty once it is gone. waiting: another one of that name, which was not accepted.
CREATE TABLE directory_owners (
    provider TEXT NOT NULL PRIMARY KEY,
    owner TEXT NOT NULL,
    waiting TEXT
) STRICT, WITHOUT ROWID;
