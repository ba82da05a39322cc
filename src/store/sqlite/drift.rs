//! Differences between policies and what is wanted.

use std::collections::BTreeMap;

use rusqlite::{Connection, params};
use uuid::Uuid;

use super::Transaction;
use super::query::Query as _;
use crate::model::{
    Concerns, ConditionHash, Difference, DocumentKey, DriftChanges, DriftKey, DriftKind, MappingKey, MemberKey,
    Subject, UserId,
};
use crate::store::StoreError;
use crate::store::encoding::{self, nanos};

fn damaged(problem: &str) -> StoreError {
    StoreError::Damaged { what: "drift", problem: problem.to_owned() }
}

/// All differences.
pub(crate) fn all(db: &Connection) -> Result<BTreeMap<DocumentKey, BTreeMap<DriftKey, Difference>>, StoreError> {
    let mut all: BTreeMap<DocumentKey, BTreeMap<DriftKey, Difference>> = BTreeMap::new();
    let sql = "SELECT document, kind, role, condition_hash, member_key, first_seen, mappings, subject FROM drift";
    db.each("drift", sql, [], |mut columns| {
        let document = columns.parse()?;
        let kind = DriftKind::from_word(&columns.text()?).ok_or_else(|| damaged("unknown kind"))?;
        let role = columns.text()?;
        let condition = ConditionHash::from_text(&columns.text()?);
        let member = Some(columns.text()?).filter(|member| !member.is_empty()).map(|member| MemberKey::of(&member));
        let first_seen = columns.time()?;
        let mappings: Vec<(String, String)> = columns.json()?;
        let mappings = mappings.iter().map(|(namespace, name)| MappingKey::new(namespace, name));
        let mappings = mappings.collect::<Result<_, _>>().map_err(|error| damaged(&error.to_string()))?;
        let subject =
            columns.text_or_none()?.and_then(|id| Uuid::try_parse(&id).ok()).map(|id| Subject::User(UserId(id)));
        let difference = Difference { first_seen, concerns: Concerns { mappings, subject } };
        all.entry(document).or_default().insert(DriftKey { kind, role, condition, member }, difference);
        Ok(())
    })?;
    Ok(all)
}

/// Stores changes.
pub(crate) fn change(
    tx: &mut Transaction<'_>,
    changes: &BTreeMap<DocumentKey, DriftChanges>,
) -> Result<(), StoreError> {
    for (document, changes) in changes {
        let document = document.to_string();
        for key in &changes.remove {
            let member = key.member.as_ref().map_or("", MemberKey::as_str);
            tx.db.run(
                "DELETE FROM drift WHERE document = ? AND kind = ? AND role = ? AND condition_hash = ? AND member_key = ?",
                params![document, key.kind.word(), key.role, key.condition.as_str(), member],
            )?;
        }
        for (key, difference) in &changes.put {
            let member = key.member.as_ref().map_or("", MemberKey::as_str);
            let mappings: Vec<(&str, &str)> =
                difference.concerns.mappings.iter().map(|mapping| (mapping.namespace(), mapping.name())).collect();
            let subject = match difference.concerns.subject {
                Some(Subject::User(id)) => Some(id.to_string()),
                Some(Subject::Group(_)) | None => None,
            };
            tx.db.run(
                "INSERT INTO drift (document, kind, role, condition_hash, member_key, first_seen, mappings, subject) \
                 VALUES (?, ?, ?, ?, ?, ?, ?, ?) \
                 ON CONFLICT DO UPDATE SET mappings = excluded.mappings, subject = excluded.subject, \
                 first_seen = excluded.first_seen",
                params![
                    document,
                    key.kind.word(),
                    key.role,
                    key.condition.as_str(),
                    member,
                    nanos(difference.first_seen),
                    encoding::json(&mappings)?,
                    subject
                ],
            )?;
        }
    }
    Ok(())
}
