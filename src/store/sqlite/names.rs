//! The names of all people in the database.

use rusqlite::Connection;

use super::Emit;
use super::query::Query as _;
use crate::model::{EmailFact, UserId};
use crate::store::StoreError;

/// Names of people, each with its id where that is known; names of granted members come first.
pub(crate) fn all(db: &Connection, emit: Emit<'_, (Option<UserId>, String)>) -> Result<(), StoreError> {
    let granted = "SELECT g.member, c.subject_id FROM grants g LEFT JOIN claims c ON c.document = g.document \
        AND c.role = g.role AND c.condition_hash = g.condition_hash AND c.member_key = g.member_key \
        AND c.subject_kind = 'user'";
    db.each("grants", granted, [], |mut columns| {
        let member = columns.text()?;
        emit((columns.id_or_none()?.map(UserId), member))
    })?;
    db.each("users", "SELECT id, user_name, external_id, emails FROM users", [], |mut columns| {
        let id = Some(UserId(columns.id()?));
        emit((id, columns.text()?))?;
        if let Some(external_id) = columns.text_or_none()? {
            emit((id, external_id))?;
        }
        let emails: Vec<EmailFact> = columns.json()?;
        emails.into_iter().try_for_each(|email| emit((id, email.value)))
    })?;
    db.each(
        "drift",
        "SELECT DISTINCT member_key FROM drift WHERE instr(member_key, 'user:') > 0",
        [],
        |mut columns| emit((None, columns.text()?)),
    )?;
    db.each("people", "SELECT name FROM people WHERE name IS NOT NULL", [], |mut columns| emit((None, columns.text()?)))
}
