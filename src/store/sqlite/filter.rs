//! Compiles filters (RFC 7644 §3.4.2.2) to conditions over indexed columns.

use rusqlite::types::Value;

use super::list::{self, Builder};
use crate::model::ProviderName;
use crate::scim::schema::ENTERPRISE_URN;
use crate::scim::{AttributePath, CompareOp, Filter, FilterValue, Home, ResourceType, Test, issued_id, time};
use crate::store::encoding::{fold, fold_name, nanos};

/// A condition on rows that indexes answer, which follows from a filter.
#[derive(Debug)]
pub(super) struct Condition {
    pub(super) sql: Builder,
    /// The filter follows from it too, so that nothing has to be read.
    pub(super) exact: bool,
}

/// The condition of a [resolved](Filter::resolved) filter; none when no index helps.
pub(super) fn condition(of: ResourceType, p: &ProviderName, filter: &Filter) -> Option<Condition> {
    let exact = |sql: Builder| Some(Condition { sql, exact: true });
    match filter {
        Filter::And(terms) => {
            let known: Vec<Condition> = terms.iter().filter_map(|term| condition(of, p, term)).collect();
            let exact = known.len() == terms.len() && known.iter().all(|term| term.exact);
            let mut sql = Builder::default();
            for (index, term) in known.iter().enumerate() {
                sql.push(if index > 0 { " AND " } else { "" }).append(&term.sql);
            }
            if known.is_empty() { None } else { Some(Condition { sql, exact }) }
        }
        Filter::Or(terms) => {
            let known = terms.iter().map(|term| condition(of, p, term)).collect::<Option<Vec<Condition>>>()?;
            let mut sql = Builder::default();
            sql.push("position IN (");
            for (index, term) in known.iter().enumerate() {
                sql.push(if index > 0 { " UNION " } else { "" });
                sql.append(&list::select(of, "position", p, Some(term)));
            }
            sql.push(")");
            if known.is_empty() { None } else { Some(Condition { sql, exact: known.iter().all(|term| term.exact) }) }
        }
        Filter::Attribute(path, test) => match changed_at(p, path, test) {
            Some(sql) => exact(sql),
            None => equal_to(test).and_then(|value| attribute(of, p, path, value)).and_then(exact),
        },
        Filter::Element { path, filter: inner, then } if path.schema.is_none() => {
            let (kind, value) = element(inner, then.as_ref());
            let whole = is_whole(inner, then.as_ref(), kind, value);
            let sql = match (of.home(), path.name.as_str(), kind, value) {
                (Home::Users, "emails", kind, Some(value)) => email(p, kind, value),
                (Home::Groups, "members", _, Some(value)) => member(p, value),
                _ => return None,
            };
            Some(Condition { sql, exact: whole && kind != Some("") && (of.home() == Home::Users || kind.is_none()) })
        }
        Filter::Not(_) | Filter::Element { .. } => None,
    }
}

/// The operand of `eq` with a string.
fn equal_to(test: &Test) -> Option<&str> {
    match test {
        Test::Compare(CompareOp::Equal, FilterValue::String(value)) => Some(value),
        _ => None,
    }
}

/// The condition of `meta.lastModified`, compared with a time.
fn changed_at(p: &ProviderName, path: &AttributePath, test: &Test) -> Option<Builder> {
    let Test::Compare(op, FilterValue::String(since)) = test else { return None };
    if path.schema.is_some() || path.name != "meta" || path.sub.as_deref() != Some("lastModified") {
        return None;
    }
    let sign = match op {
        CompareOp::Equal => " = ",
        CompareOp::Greater => " > ",
        CompareOp::GreaterOrEqual => " >= ",
        CompareOp::Less => " < ",
        CompareOp::LessOrEqual => " <= ",
        CompareOp::NotEqual | CompareOp::Contains | CompareOp::StartsWith | CompareOp::EndsWith => return None,
    };
    let mut sql = Builder::default();
    sql.push("provider = ").bind(p.as_str().to_owned());
    sql.push(" AND updated_at").push(sign).bind(nanos(time(since)?));
    Some(sql)
}

/// The condition of an attribute that equals a text. None: no index answers it.
fn attribute(of: ResourceType, p: &ProviderName, path: &AttributePath, value: &str) -> Option<Builder> {
    use Home::{Groups, Users};
    match (of.home(), path.schema.as_deref(), path.name.as_str(), path.sub.as_deref()) {
        (_, None, "id", None) => Some(match issued_id(value) {
            Some(id) => equal(p, "id", id.as_bytes().to_vec()),
            None => nothing(),
        }),
        (_, None, "externalId", None) => Some(equal(p, "external_id", value.to_owned())),
        (Users, None, "userName", None) => Some(equal(p, "user_name_fold", fold_name(value))),
        (Groups, None, "displayName", None) => Some(equal(p, "display_name_fold", fold_name(value))),
        (Users, None, "emails", Some("value")) => Some(email(p, None, value)),
        (Users, Some(ENTERPRISE_URN), "employeeNumber", None) => Some(equal(p, "employee_number_fold", fold(value))),
        (Users, None, "groups", Some("value")) => Some(in_group(p, value)),
        (Groups, None, "members", Some("value")) => Some(member(p, value)),
        _ => None,
    }
}

/// The terms of an element's filter that all have to be true.
fn conjuncts(filter: &Filter) -> &[Filter] {
    match filter {
        Filter::And(terms) => terms,
        one => std::slice::from_ref(one),
    }
}

/// The `type` and `value` that a filter requires of one element: `[type eq "work"].value eq "a"`, `[type eq "work" and value eq "a"]`.
fn element<'f>(filter: &'f Filter, then: Option<&'f (String, Test)>) -> (Option<&'f str>, Option<&'f str>) {
    let inside = conjuncts(filter).iter().filter_map(|term| match term {
        Filter::Attribute(path, test) => Some((path.name.as_str(), equal_to(test)?)),
        _ => None,
    });
    let outside = then.into_iter().filter_map(|(name, test)| Some((name.as_str(), equal_to(test)?)));
    let (mut kind, mut value) = (None, None);
    for (name, text) in inside.chain(outside) {
        match name {
            "type" => kind = kind.or(Some(text)),
            "value" => value = value.or(Some(text)),
            _ => {}
        }
    }
    (kind, value)
}

/// True when an element's filter requires nothing but this `type` and `value`.
fn is_whole(filter: &Filter, then: Option<&(String, Test)>, kind: Option<&str>, value: Option<&str>) -> bool {
    let required = |name: &str, test: &Test| match (name, equal_to(test)) {
        ("type", wanted @ Some(_)) => wanted == kind,
        ("value", wanted @ Some(_)) => wanted == value,
        _ => false,
    };
    conjuncts(filter).iter().all(|term| match term {
        Filter::Attribute(path, test) => required(&path.name, test),
        _ => false,
    }) && then.is_none_or(|(name, test)| required(name, test))
}

fn email(p: &ProviderName, kind: Option<&str>, value: &str) -> Builder {
    let mut sql = Builder::default();
    sql.push("position IN (SELECT user FROM user_emails WHERE provider = ").bind(p.as_str().to_owned());
    sql.push(" AND value_fold = ").bind(fold(value));
    // Without a type and with an empty one is stored alike.
    if let Some(kind) = kind.filter(|kind| !kind.is_empty()) {
        sql.push(" AND kind_fold = ").bind(fold(kind));
    }
    sql.push(")");
    sql
}

fn member(p: &ProviderName, id: &str) -> Builder {
    let Some(id) = issued_id(id) else { return nothing() };
    let mut sql = Builder::default();
    sql.push(
        "position IN (SELECT g.position FROM members m INDEXED BY members_by_member \
         CROSS JOIN groups g ON g.provider = m.provider AND g.id = m.group_id \
         WHERE m.kind <> 'pending' AND m.provider = ",
    )
    .bind(p.as_str().to_owned());
    sql.push(" AND m.member_id = ").bind(id.as_bytes().to_vec()).push(")");
    sql
}

/// The users in a group, also through other groups.
fn in_group(p: &ProviderName, id: &str) -> Builder {
    let Some(id) = issued_id(id) else { return nothing() };
    let mut sql = Builder::default();
    sql.push("position IN (WITH RECURSIVE inside (id) AS (SELECT ").bind(id.as_bytes().to_vec());
    sql.push(" UNION SELECT m.member_id FROM inside CROSS JOIN members m ON m.provider = ").bind(p.as_str().to_owned());
    sql.push(
        " AND m.group_id = inside.id AND m.kind = 'group') \
         SELECT u.position FROM inside CROSS JOIN members m ON m.provider = ",
    )
    .bind(p.as_str().to_owned());
    sql.push(
        " AND m.group_id = inside.id AND m.kind = 'user' \
         CROSS JOIN users u ON u.provider = m.provider AND u.id = m.member_id)",
    );
    sql
}

fn equal(p: &ProviderName, column: &str, value: impl Into<Value>) -> Builder {
    let mut sql = Builder::default();
    sql.push("provider = ").bind(p.as_str().to_owned());
    sql.push(" AND ").push(column).push(" = ").bind(value);
    sql
}

/// A condition that never holds, for example for an id that is not a UUID.
fn nothing() -> Builder {
    let mut sql = Builder::default();
    sql.push("false");
    sql
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scim::{Findings, parse};

    /// The SQL with its parameters, and whether it is exact.
    fn compiled(of: ResourceType, text: &str) -> Option<(String, bool)> {
        let filter = parse::filter(text, &mut Findings::new()).unwrap().resolved(of).unwrap();
        let condition = condition(of, &ProviderName::new("okta").unwrap(), &filter)?;
        Some((format!("{} {:?}", condition.sql.sql, condition.sql.values), condition.exact))
    }

    #[test]
    fn lookups_of_identity_providers_are_compiled_alike_however_they_are_written() {
        let id = uuid::Uuid::new_v4();
        let (both, one) = (format!("id eq \"{id}\" and members eq \"{id}\""), format!("members eq \"{id}\""));
        let alike = [
            (
                ResourceType::User,
                &[
                    "userName eq \"a\"",
                    "username Eq \"A\"",
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
            (
                ResourceType::User,
                &[
                    "urn:ietf:params:scim:schemas:extension:enterprise:2.0:User:employeeNumber eq \"E7\"",
                    "employeeNumber eq \"e7\"",
                ],
            ),
            (ResourceType::Group, &["displayName eq \"g\"", "displayname eq g"]),
            (ResourceType::Group, &[one.as_str()]),
            (ResourceType::Group, &[both.as_str()]),
            (ResourceType::User, &["userName eq \"a\" or emails eq \"b\""]),
            (
                ResourceType::User,
                &[
                    "meta.lastModified gt \"2026-01-01T00:00:00Z\"",
                    "meta.lastModified gt \"2026-01-01T01:00:00+01:00\"",
                ],
            ),
        ];
        for (of, texts) in alike {
            let first = compiled(of, texts[0]).unwrap();
            assert!(first.1, "{}", texts[0]);
            for text in texts {
                assert_eq!(compiled(of, text).as_ref(), Some(&first), "{text}");
            }
        }
    }

    #[test]
    fn what_an_index_answers_in_part_is_narrowed_and_the_rest_is_read() {
        for text in [
            "manager eq \"m\" and userName eq \"u\"",
            "emails[value eq \"a\" and primary eq true]",
            "emails[value eq \"a\"].value eq \"b\"",
            "emails[value eq \"a\"].display pr",
            "userName eq \"a\" or emails eq \"b\" and title pr",
        ] {
            assert!(compiled(ResourceType::User, text).is_some_and(|(_, exact)| !exact), "{text}");
        }
        for text in [
            "userName co \"a\"",
            "not (userName eq \"a\")",
            "title eq \"a\"",
            "userName eq \"a\" or title pr",
            "emails[type eq \"work\"]",
        ] {
            assert_eq!(compiled(ResourceType::User, text), None, "{text}");
        }
    }
}
