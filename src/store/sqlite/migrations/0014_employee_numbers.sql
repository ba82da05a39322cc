-- Employee numbers, folded, so that an index answers a look-up. Those of the users that are there are added in this step.
ALTER TABLE users ADD COLUMN employee_number_fold TEXT;
CREATE INDEX users_by_employee_number ON users (provider, employee_number_fold) WHERE employee_number_fold IS NOT NULL;
-- An externalId in the form of a UUID in mixed case is found by the id that it stands for.
CREATE INDEX users_by_mixed_external_id ON users (provider, lower(external_id))
    WHERE length(external_id) = 36 AND external_id <> lower(external_id) AND external_id <> upper(external_id);
CREATE INDEX groups_by_mixed_external_id ON groups (provider, lower(external_id))
    WHERE length(external_id) = 36 AND external_id <> lower(external_id) AND external_id <> upper(external_id);
