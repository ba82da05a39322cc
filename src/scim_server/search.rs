//! Lists and searches (RFC 7644 §3.4.2, §3.4.3).

use super::answer::Answer;
use super::call::{Call, Object};
use super::render::{Document, MAX_PAGE, Part, Render};
use super::request::Query;
use super::store_error;
use crate::scim::schema::ENTERPRISE_URN;
use crate::scim::{CompareOp, Filter, FilterValue, Findings, ResourceType, ScimError, Test, parse};
use crate::store::{Condition, ListQuery};

/// The most resources of one answer, and what is answered when no `count` is asked for.
pub(super) const MAX_RESULTS: u32 = 1000;

/// The resources of one type that a query asks for.
pub(super) async fn one_type(call: &Call, of: ResourceType, query: &Query) -> Result<Answer, ScimError> {
    let (total, part) = planned(call, of, query).await?;
    page(call, total, start_index(query), vec![part]).await
}

/// Users, then groups. A filter on what one of the types does not have matches none of it.
pub(super) async fn all(call: Call, body: Object) -> Result<Answer, ScimError> {
    let query = Query::from_search(body.members)?;
    let mut unknown = None;
    let (mut total, users) = match planned(&call, ResourceType::User, &query).await {
        Ok(planned) => planned,
        Err(error @ ScimError::InvalidFilter(_)) => {
            unknown = Some(error);
            let of = ResourceType::User;
            (0, Part { of, rows: Vec::new(), projection: query.projection(of) })
        }
        Err(error) => return Err(error),
    };
    let start = query.start_index.unwrap_or(1).max(1);
    let before = i64::try_from(total).unwrap_or(i64::MAX);
    let wanted = query.count.unwrap_or(i64::from(MAX_RESULTS)).clamp(0, i64::from(MAX_RESULTS));
    let given = i64::try_from(users.rows.len()).unwrap_or(i64::MAX);
    let rest = Query {
        start_index: Some(start.saturating_sub(before).max(1)),
        count: Some(wanted.saturating_sub(given)),
        ..query
    };
    let mut parts = vec![users];
    match (planned(&call, ResourceType::Group, &rest).await, unknown) {
        (Ok((more, groups)), _) => {
            total = total.saturating_add(more);
            parts.push(groups);
        }
        (Err(ScimError::InvalidFilter(_)), None) => {}
        (Err(_), Some(error)) | (Err(error), None) => return Err(error),
    }
    page(&call, total, u64::try_from(start).unwrap_or(1), parts).await
}

/// `totalResults` and the rows of the page that was asked for.
async fn planned(call: &Call, of: ResourceType, query: &Query) -> Result<(u64, Part), ScimError> {
    let wanted = list_query(of, query, &mut call.findings())?;
    let plan = match of {
        ResourceType::User => call.store().plan_users(call.provider(), &wanted).await,
        ResourceType::Group => call.store().plan_groups(call.provider(), &wanted).await,
    };
    let plan = plan.map_err(|error| store_error(&error))?;
    Ok((plan.total, Part { of, rows: plan.rows, projection: query.projection(of) }))
}

/// A list answer: `totalResults` and the resources, as many as one page may have.
async fn page(call: &Call, total: u64, start: u64, mut parts: Vec<Part>) -> Result<Answer, ScimError> {
    let mut left = MAX_PAGE;
    let mut first = true;
    for part in &mut parts {
        part.cut(&mut left, first);
        first &= part.rows.is_empty();
    }
    Ok(Answer::with(Render::new(call).content(Document::List { total, start, parts }).await?))
}

/// What to ask the store for.
fn list_query(of: ResourceType, query: &Query, findings: &mut Findings) -> Result<ListQuery, ScimError> {
    let condition = match query.filter.as_deref().map(str::trim) {
        None | Some("") => None,
        Some(text) => Some(condition(&parse::filter(text, findings)?.resolved(of)?, of)?),
    };
    let start_index = start_index(query);
    let count = query
        .count
        .map_or(u64::from(MAX_RESULTS), |count| u64::try_from(count).unwrap_or(0).min(u64::from(MAX_RESULTS)));
    Ok(ListQuery { condition, start_index, count })
}

/// `startIndex` as it counts, and as it is echoed: from 1.
fn start_index(query: &Query) -> u64 {
    query.start_index.and_then(|start| u64::try_from(start).ok()).unwrap_or(1).max(1)
}

fn unsupported(filter: &Filter) -> ScimError {
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
    ScimError::InvalidFilter(format!(
        "{what} is not supported here; use `eq`, joined by `and`, on id, externalId, userName, emails, displayName of groups, members or manager"
    ))
}

fn condition(filter: &Filter, of: ResourceType) -> Result<Condition, ScimError> {
    match filter {
        Filter::And(terms) => {
            Ok(Condition::And(terms.iter().map(|term| condition(term, of)).collect::<Result<_, _>>()?))
        }
        Filter::Attribute(path, Test::Compare(CompareOp::Equal, FilterValue::String(value))) => {
            let value = value.clone();
            let condition = match (of, path.schema.as_deref(), path.name.as_str(), path.sub.as_deref()) {
                (_, None, "id", None) => Condition::IdEq(value),
                (_, None, "externalId", None) => Condition::ExternalIdEq(value),
                (ResourceType::User, None, "userName", None) => Condition::UserNameEq(value),
                (ResourceType::User, None, "emails", Some("value")) => Condition::EmailEq { kind: None, value },
                (ResourceType::User, Some(ENTERPRISE_URN), "manager", Some("value")) => Condition::ManagerEq(value),
                (ResourceType::Group, None, "displayName", None) => Condition::DisplayNameEq(value),
                (ResourceType::Group, None, "members", Some("value")) => Condition::MemberEq(value),
                _ => return Err(unsupported(filter)),
            };
            Ok(condition)
        }
        Filter::Element { path, filter: inner, then } if path.schema.is_none() => {
            let mut kind = None;
            let mut value = None;
            let terms = match inner.as_ref() {
                Filter::And(terms) => terms.as_slice(),
                one => std::slice::from_ref(one),
            };
            let inside = terms.iter().map(|term| match term {
                Filter::Attribute(path, Test::Compare(CompareOp::Equal, FilterValue::String(text))) => {
                    Some((path.name.as_str(), text))
                }
                _ => None,
            });
            let outside = then.iter().map(|(name, test)| match test {
                Test::Compare(CompareOp::Equal, FilterValue::String(text)) => Some((name.as_str(), text)),
                _ => None,
            });
            for term in inside.chain(outside) {
                let slot = match term {
                    Some(("type", _)) => &mut kind,
                    Some(("value", _)) => &mut value,
                    _ => return Err(unsupported(filter)),
                };
                let text = term.map(|(_, text)| text.clone());
                if slot.is_some() && *slot != text {
                    return Err(unsupported(filter));
                }
                *slot = text;
            }
            match (of, path.name.as_str(), kind, value) {
                (ResourceType::User, "emails", kind, Some(value)) => Ok(Condition::EmailEq { kind, value }),
                (ResourceType::Group, "members", None, Some(value)) => Ok(Condition::MemberEq(value)),
                _ => Err(unsupported(filter)),
            }
        }
        other => Err(unsupported(other)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn looked_up(of: ResourceType, filter: &str) -> Result<Option<Condition>, ScimError> {
        let query = Query { filter: Some(filter.into()), ..Query::default() };
        list_query(of, &query, &mut Findings::new()).map(|query| query.condition)
    }

    #[test]
    fn lookups_of_identity_providers_become_conditions() {
        let users = [
            ("userName eq \"a\"", Condition::UserNameEq("a".into())),
            ("username Eq \"a\"", Condition::UserNameEq("a".into())),
            ("urn:ietf:params:scim:schemas:core:2.0:User:userName eq \"a\"", Condition::UserNameEq("a".into())),
            ("externalId eq jyoung", Condition::ExternalIdEq("jyoung".into())),
            ("emails eq \"a\"", Condition::EmailEq { kind: None, value: "a".into() }),
            ("emails.value eq \"a\"", Condition::EmailEq { kind: None, value: "a".into() }),
            (
                "emails[type eq \"work\"].value eq \"a\"",
                Condition::EmailEq { kind: Some("work".into()), value: "a".into() },
            ),
            (
                "emails[type eq \"work\" and value eq \"a\"]",
                Condition::EmailEq { kind: Some("work".into()), value: "a".into() },
            ),
            (
                "manager eq \"m\" and id eq \"u\"",
                Condition::And(vec![Condition::ManagerEq("m".into()), Condition::IdEq("u".into())]),
            ),
        ];
        for (filter, wanted) in users {
            assert_eq!(looked_up(ResourceType::User, filter).unwrap(), Some(wanted), "{filter}");
        }
        let groups = [
            ("displayName eq \"g\"", Condition::DisplayNameEq("g".into())),
            ("members[value eq \"u\"]", Condition::MemberEq("u".into())),
            (
                "id eq \"g\" and members eq \"u\"",
                Condition::And(vec![Condition::IdEq("g".into()), Condition::MemberEq("u".into())]),
            ),
        ];
        for (filter, wanted) in groups {
            assert_eq!(looked_up(ResourceType::Group, filter).unwrap(), Some(wanted), "{filter}");
        }
    }

    #[test]
    fn what_cannot_be_looked_up_is_refused_and_never_answered_with_nothing() {
        for filter in [
            "userName co \"a\"",
            "userName eq \"a\" or userName eq \"b\"",
            "not (userName eq \"a\")",
            "userName pr",
            "title eq \"a\"",
            "email co \"a\"",
            "emails[type eq \"work\"]",
            "emails[primary eq true].value eq \"a\"",
            "userName eq true",
        ] {
            assert_eq!(
                looked_up(ResourceType::User, filter).unwrap_err().scim_type(),
                Some("invalidFilter"),
                "{filter}"
            );
        }
    }

    #[test]
    fn paging_is_clamped_as_the_rfc_says() {
        let page = |start_index, count| {
            let query = Query { start_index, count, ..Query::default() };
            let query = list_query(ResourceType::User, &query, &mut Findings::new()).unwrap();
            (query.start_index, query.count)
        };
        assert_eq!(page(None, None), (1, 1000));
        assert_eq!(page(Some(0), Some(-1)), (1, 0));
        assert_eq!(page(Some(-5), Some(0)), (1, 0));
        assert_eq!(page(Some(101), Some(100)), (101, 100));
        assert_eq!(page(Some(1), Some(1_000_000)), (1, 1000));
    }
}
