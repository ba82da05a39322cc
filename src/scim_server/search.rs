//! Lists and searches (RFC 7644 §3.4.2, §3.4.3).

use super::answer::Answer;
use super::call::{Call, Object};
use super::render::{Document, MAX_PAGE, Part, Render};
use super::request::Query;
use super::store_error;
use crate::scim::{Findings, ResourceType, ScimError, parse};
use crate::store::ListQuery;

/// Largest number of resources in one answer; also the default of `count`.
pub(super) const MAX_RESULTS: u32 = 1000;

/// Answers with the resources of one type that a query selects.
pub(super) async fn one_type(call: &Call, of: ResourceType, query: &Query) -> Result<Answer, ScimError> {
    let (total, part) = planned(call, of, query).await?;
    page(call, total, start_index(query), vec![part]).await
}

/// Answers with users, then groups. A filter on an attribute that one of the types lacks matches none of that type.
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

/// `totalResults` and the rows of the requested page.
async fn planned(call: &Call, of: ResourceType, query: &Query) -> Result<(u64, Part), ScimError> {
    let wanted = list_query(of, query, &mut call.findings())?;
    let plan = call.store().plan_list(of, call.provider(), &wanted).await.map_err(|error| store_error(&error))?;
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

/// The query as the store takes it.
fn list_query(of: ResourceType, query: &Query, findings: &mut Findings) -> Result<ListQuery, ScimError> {
    let filter = match query.filter.as_deref().map(str::trim) {
        None | Some("") => None,
        Some(text) => Some(parse::filter(text, findings)?.resolved(of)?),
    };
    let start_index = start_index(query);
    let count = query
        .count
        .map_or(u64::from(MAX_RESULTS), |count| u64::try_from(count).unwrap_or(0).min(u64::from(MAX_RESULTS)));
    Ok(ListQuery { filter, start_index, count })
}

/// `startIndex` as it counts, and as it is echoed: from 1.
fn start_index(query: &Query) -> u64 {
    query.start_index.and_then(|start| u64::try_from(start).ok()).unwrap_or(1).max(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paging_is_clamped_according_to_the_rfc() {
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
