-- Which groups are members of groups is a fact that access depends on, so changes of it are events from here on. What
-- was stored before is announced at the end of the log: at earlier positions, nobody had access because of it.
INSERT INTO events (seq, provider, at, change)
    SELECT max((SELECT coalesce(max(seq), 0) FROM events), (SELECT coalesce(max(seq), 0) FROM spec_versions),
            (SELECT coalesce(max(seq), 0) FROM history),
            coalesce((SELECT CAST(value AS INTEGER) FROM meta WHERE key = 'history_since'), 0))
            + row_number() OVER (ORDER BY provider, parent),
        provider, unixepoch() * 1000000000,
        '{"kind":"nested","group":"' || parent || '","added":' || json_group_array(child) || '}'
    FROM (SELECT provider,
            lower(substr(hex(group_id), 1, 8) || '-' || substr(hex(group_id), 9, 4) || '-'
                || substr(hex(group_id), 13, 4) || '-' || substr(hex(group_id), 17, 4) || '-'
                || substr(hex(group_id), 21, 12)) AS parent,
            lower(substr(hex(member_id), 1, 8) || '-' || substr(hex(member_id), 9, 4) || '-'
                || substr(hex(member_id), 13, 4) || '-' || substr(hex(member_id), 17, 4) || '-'
                || substr(hex(member_id), 21, 12)) AS child
        FROM members WHERE kind = 'group')
    GROUP BY provider, parent;

-- Directories with groups in which members of nested groups had no access so far. They get none until the
-- IdentityProvider says so (nestedGroups: Resolve): an update alone gives nobody access.
CREATE TABLE directories_before_nesting (provider TEXT NOT NULL PRIMARY KEY) STRICT, WITHOUT ROWID;
INSERT INTO directories_before_nesting (provider) SELECT DISTINCT provider FROM groups;

-- The nested groups, as a JSON list, in which the subject of a claim was a direct member. NULL: none, or not known.
ALTER TABLE claims ADD COLUMN through TEXT;
