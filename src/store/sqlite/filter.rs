//! Compiles filters (RFC 7644 §3.4.2.2) to SQL over indexed columns. A filter that no index answers is refused.

use rusqlite::types::Value;
use uuid::Uuid;

use super::list::Builder;
use crate::model::ProviderName;
use crate::scim::schema::ENTERPRISE_URN;
use crate::scim::{AttributePath, CompareOp, Filter, FilterValue, ResourceType, Test};
use crate::store::StoreError;
use crate::store::encoding::fold;

/// The supported filters, for the text of a refusal.
const INSTEAD: &str =
    "; use `eq`, joined by `and`, on id, externalId, userName, emails, displayName of groups, members or manager";

/// Appends ` AND …` for a [resolved](Filter::resolved) filter.
pub(super) fn push(sql: &mut Builder, of: ResourceType, p: &ProviderName, filter: &Filter) -> Result<(), StoreError> {
    if term(sql, of, p, filter)? {
        return Ok(());
    }
    // `manager` alone has no index: a filter on it needs another term that has one.
    Err(StoreError::UnsupportedFilter { what: "a filter on `manager`".to_owned(), instead: "" })
}

fn unsupported(filter: &Filter) -> StoreError {
    let what = match filter {
        Filter::Or(_) => "`or`".to_owned(),
        Filter::Not(_) => "`not`".to_owned(),
        Filter::Attribute(path, Test::Compare(CompareOp::Equal, _)) | Filter::Element { path, .. } => {
            format!("a filter on `{path}`")
        }
        Filter::Attribute(_, Test::Compare(op, _)) => format!("`{}`", op.as_str()),
        Filter::Attribute(_, Test::Present) => "`pr`".to_owned(),
        Filter::And(_) => "this filter".to_owned(),
    };
    StoreError::UnsupportedFilter { what, instead: INSTEAD }
}

/// The operand of `eq` with a string.
fn equal_to(test: &Test) -> Option<&str> {
    match test {
        Test::Compare(CompareOp::Equal, FilterValue::String(value)) => Some(value),
        _ => None,
    }
}

/// Appends ` AND …`. Returns whether an index answers it.
fn term(sql: &mut Builder, of: ResourceType, p: &ProviderName, filter: &Filter) -> Result<bool, StoreError> {
    match filter {
        Filter::And(terms) => {
            let mut indexed = false;
            for inner in terms {
                indexed |= term(sql, of, p, inner)?;
            }
            Ok(indexed)
        }
        Filter::Attribute(path, test) => {
            let found = equal_to(test).and_then(|value| attribute(sql, of, p, path, value));
            found.ok_or_else(|| unsupported(filter))
        }
        Filter::Element { path, filter: inner, then } if path.schema.is_none() => {
            match (of, path.name.as_str(), element(inner, then.as_ref())) {
                (ResourceType::User, "emails", Some((kind, value))) => email(sql, p, kind, value),
                (ResourceType::Group, "members", Some((None, value))) => member(sql, p, value),
                _ => return Err(unsupported(filter)),
            }
            Ok(true)
        }
        Filter::Or(_) | Filter::Not(_) | Filter::Element { .. } => Err(unsupported(filter)),
    }
}

/// Like [`term`], for one attribute. None: no column answers it.
fn attribute(sql: &mut Builder, of: ResourceType, p: &ProviderName, path: &AttributePath, value: &str) -> Option<bool> {
    use ResourceType::{Group, User};
    match (of, path.schema.as_deref(), path.name.as_str(), path.sub.as_deref()) {
        (_, None, "id", None) => match Uuid::try_parse(value) {
            Ok(id) => equal(sql, p, "id", id.as_bytes().to_vec()),
            Err(_) => nothing(sql),
        },
        (_, None, "externalId", None) => equal(sql, p, "external_id", value.to_owned()),
        (User, None, "userName", None) => equal(sql, p, "user_name_fold", fold(value)),
        (Group, None, "displayName", None) => equal(sql, p, "display_name_fold", fold(value)),
        (User, None, "emails", Some("value")) => email(sql, p, None, value),
        (Group, None, "members", Some("value")) => member(sql, p, value),
        (User, Some(ENTERPRISE_URN), "manager", Some("value")) => {
            sql.push(
                " AND resource ->> '$.\"urn:ietf:params:scim:schemas:extension:enterprise:2.0:User\".manager.value' = ",
            )
            .bind(value.to_owned());
            return Some(false);
        }
        _ => return None,
    }
    Some(true)
}

/// The `type` and `value` that a filter requires of one element: `[type eq "work"].value eq "a"`, `[type eq "work" and value eq "a"]`.
/// None for anything else.
fn element<'f>(filter: &'f Filter, then: Option<&'f (String, Test)>) -> Option<(Option<&'f str>, &'f str)> {
    let terms = match filter {
        Filter::And(terms) => terms.as_slice(),
        one => std::slice::from_ref(one),
    };
    let inside = terms.iter().map(|term| match term {
        Filter::Attribute(path, test) => Some((path.name.as_str(), equal_to(test)?)),
        _ => None,
    });
    let outside = then.into_iter().map(|(name, test)| Some((name.as_str(), equal_to(test)?)));
    let (mut kind, mut value) = (None, None);
    for wanted in inside.chain(outside) {
        let slot = match wanted?.0 {
            "type" => &mut kind,
            "value" => &mut value,
            _ => return None,
        };
        let text = wanted.map(|(_, text)| text);
        if slot.is_some() && *slot != text {
            return None;
        }
        *slot = text;
    }
    Some((kind, value?))
}

fn email(sql: &mut Builder, p: &ProviderName, kind: Option<&str>, value: &str) {
    sql.push(" AND position IN (SELECT user FROM user_emails WHERE provider = ").bind(p.as_str().to_owned());
    sql.push(" AND value_fold = ").bind(fold(value));
    if let Some(kind) = kind {
        sql.push(" AND kind_fold = ").bind(fold(kind));
    }
    sql.push(")");
}

fn member(sql: &mut Builder, p: &ProviderName, id: &str) {
    let Ok(id) = Uuid::try_parse(id) else { return nothing(sql) };
    sql.push(
        " AND position IN (SELECT g.position FROM members m INDEXED BY members_by_member \
         CROSS JOIN groups g ON g.provider = m.provider AND g.id = m.group_id \
         WHERE m.kind <> 'pending' AND m.provider = ",
    )
    .bind(p.as_str().to_owned());
    sql.push(" AND m.member_id = ").bind(id.as_bytes().to_vec()).push(")");
}

fn equal(sql: &mut Builder, p: &ProviderName, column: &str, value: impl Into<Value>) {
    sql.push(" AND provider = ").bind(p.as_str().to_owned());
    sql.push(" AND ").push(column).push(" = ").bind(value);
}

/// A term that never matches, for example for an id that is not a UUID.
fn nothing(sql: &mut Builder) {
    sql.push(" AND false");
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scim::{Findings, ScimError, parse};

    /// The SQL, or the refusal of the parser, the schema or the store.
    fn compiled(of: ResourceType, text: &str) -> Result<String, String> {
        let problem = |error: ScimError| error.to_string();
        let filter = parse::filter(text, &mut Findings::new()).map_err(problem)?.resolved(of).map_err(problem)?;
        let mut sql = Builder::default();
        let provider = ProviderName::new("okta").unwrap();
        push(&mut sql, of, &provider, &filter).map_err(|error| error.to_string())?;
        Ok(sql.sql)
    }

    #[test]
    fn lookups_of_identity_providers_are_compiled_alike_however_they_are_written() {
        let alike = [
            (
                ResourceType::User,
                &[
                    "userName eq \"a\"",
                    "username Eq \"a\"",
                    "urn:ietf:params:scim:schemas:core:2.0:User:userName eq \"a\"",
                ][..],
            ),
            (ResourceType::User, &["externalId eq \"jyoung\"", "externalId eq jyoung"]),
            (ResourceType::User, &["emails eq \"a\"", "emails.value eq \"a\"", "emails[value eq \"a\"]"]),
            (
                ResourceType::User,
                &[
                    "emails[type eq \"work\"].value eq \"a\"",
                    "emails[type eq \"work\" and value eq \"a\"]",
                    "emails[value eq \"a\" and type eq \"work\"].value eq \"a\"",
                ],
            ),
            (ResourceType::User, &["manager eq \"m\" and id eq \"u\"", "manager.value eq \"m\" and id eq \"u\""]),
            (ResourceType::Group, &["members eq \"u\"", "members.value eq \"u\"", "members[value eq \"u\"]"]),
            (ResourceType::Group, &["displayName eq \"g\"", "displayname eq g"]),
            (ResourceType::Group, &["id eq \"g\" and members eq \"u\""]),
        ];
        for (of, texts) in alike {
            let first = compiled(of, texts[0]).unwrap();
            for text in texts {
                assert_eq!(compiled(of, text).as_ref(), Ok(&first), "{text}");
            }
        }
    }

    #[test]
    fn what_cannot_be_looked_up_is_refused_by_name() {
        for (text, what) in [
            ("userName co \"a\"", "`co`"),
            ("userName eq \"a\" or userName eq \"b\"", "`or`"),
            ("not (userName eq \"a\")", "`not`"),
            ("userName pr", "`pr`"),
            ("title eq \"a\"", "a filter on `title`"),
            ("displayName eq \"a\"", "a filter on `displayName`"),
            ("emails[type eq \"work\"]", "a filter on `emails`"),
            ("emails[primary eq true].value eq \"a\"", "a filter on `emails`"),
            ("emails[value eq \"a\"].value eq \"b\"", "a filter on `emails`"),
            ("userName eq \"a\" and title pr", "`pr`"),
        ] {
            let wanted = format!("{what} is not supported here{INSTEAD}");
            assert_eq!(compiled(ResourceType::User, text), Err(wanted), "{text}");
        }
        let alone = Err("a filter on `manager` is not supported here".to_owned());
        assert_eq!(compiled(ResourceType::User, "manager eq \"m\""), alone);
        assert_eq!(compiled(ResourceType::User, "manager eq \"m\" and manager eq \"n\""), alone);
        for text in ["email co \"a\"", "userName eq true", "members eq \"u\""] {
            assert!(compiled(ResourceType::User, text).is_err(), "{text}");
        }
    }
}
