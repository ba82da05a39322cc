//! Lists and searches (RFC 7644 §3.4.2, §3.4.3).

use super::answer::Answer;
use super::call::{Call, Object};
use super::cursor::{self, Place};
use super::render::{Document, MAX_PAGE, MEMBER, Part, Render, Start};
use super::request::Query;
use super::store_error;
use crate::scim::{ResourceType, ScimError, Sort, parse};
use crate::store::ListQuery;

/// Largest number of resources in one answer; also the default of `count`.
pub(super) const MAX_RESULTS: u32 = 1000;

/// Answers with the resources of one type that a query selects.
pub(super) async fn one_type(call: &Call, of: ResourceType, query: &Query) -> Result<Answer, ScimError> {
    let page = Page::of(call, of.name(), query)?;
    let mut planned = page.planned(call, of, query).await?;
    if planned.0 == 0
        && let Some(filter) = &query.filter_with_plus
    {
        // A client that does not encode `+` would find nothing, and then create what exists already.
        let again = Query { filter: Some(filter.clone()), ..query.clone() };
        if let Ok(found) = page.planned(call, of, &again).await {
            planned = found;
        }
    }
    page.answer(call, planned.0, vec![planned.1]).await
}

/// Answers with users, then groups, each in the requested order. A filter on an attribute that one of the types lacks
/// matches none of that type.
pub(super) async fn all(call: Call, body: Object) -> Result<Answer, ScimError> {
    let query = Query::from_search(body.members)?;
    let page = Page { by_position: false, ..Page::of(&call, "all", &query)? };
    let mut unknown = None;
    let (mut total, users) = match page.planned(&call, ResourceType::User, &sortable(ResourceType::User, &query)?).await
    {
        Ok(planned) => planned,
        Err(error @ ScimError::InvalidFilter(_)) => {
            unknown = Some(error);
            let of = ResourceType::User;
            (0, Part { of, rows: Vec::new(), projection: query.projection(of) })
        }
        Err(error) => return Err(error),
    };
    let given = users.rows.len() as u64;
    let rest = Page { skip: page.skip.saturating_sub(total), count: page.count.saturating_sub(given), ..page.clone() };
    let mut parts = vec![users];
    match (rest.planned(&call, ResourceType::Group, &sortable(ResourceType::Group, &query)?).await, unknown) {
        (Ok((more, groups)), _) => {
            total = total.saturating_add(more);
            parts.push(groups);
        }
        (Err(ScimError::InvalidFilter(_)), None) => {}
        (Err(_), Some(error)) | (Err(error), None) => return Err(error),
    }
    page.answer(&call, total, parts).await
}

/// The query for one of two types: in the order of creation where only the other one has the attribute of the order.
fn sortable(of: ResourceType, query: &Query) -> Result<Query, ScimError> {
    let mut query = query.clone();
    if let Some(by) = &query.sort_by
        && let Err(error) = Sort::new(of, by, query.sort_order.as_deref())
    {
        let other = ResourceType::ALL.into_iter().any(|of| Sort::new(of, by, query.sort_order.as_deref()).is_ok());
        if !other {
            return Err(error);
        }
        query.sort_by = None;
    }
    Ok(query)
}

/// The requested page of a list.
#[derive(Debug, Clone)]
struct Page {
    /// Identifies the list to its cursors.
    list: String,
    /// Results before the page.
    skip: u64,
    /// Only results behind this position.
    after: Option<i64>,
    count: u64,
    /// With cursors instead of `startIndex`.
    cursor: bool,
    /// The next cursor names a position, which stays right when resources before it are deleted.
    by_position: bool,
}

impl Page {
    fn of(call: &Call, what: &str, query: &Query) -> Result<Self, ScimError> {
        let wanted = query.count.unwrap_or(i64::from(MAX_RESULTS));
        let count = u64::try_from(wanted).unwrap_or(0).min(u64::from(MAX_RESULTS));
        let order = (query.sort_by.as_deref(), query.sort_order.as_deref());
        let list = format!("{}\n{what}\n{:?}\n{order:?}", call.provider(), query.filter);
        let page = Self {
            list,
            skip: start_index(query) - 1,
            after: None,
            count,
            cursor: query.cursor.is_some(),
            by_position: query.sort_by.is_none(),
        };
        let Some(cursor) = query.cursor.as_deref() else { return Ok(page) };
        if wanted < 0 {
            return Err(ScimError::InvalidCount);
        }
        let place = match cursor {
            "" => Place::Skip(0),
            text => cursor::decode(text, &page.list, call.received_at())?,
        };
        Ok(match place {
            Place::Skip(skip) => Self { skip, ..page },
            Place::After(after) => Self { skip: 0, after: Some(after), ..page },
        })
    }

    /// `totalResults`, and the rows of the page. With a cursor it is one more than the page has, if there is one.
    async fn planned(&self, call: &Call, of: ResourceType, query: &Query) -> Result<(u64, Part), ScimError> {
        let filter = match query.filter.as_deref().map(str::trim) {
            None | Some("") => None,
            Some(text) => Some(parse::filter(text, &mut call.findings())?.resolved(of)?),
        };
        let sort = query.sort_by.as_deref().map(str::trim).filter(|by| !by.is_empty());
        let sort = sort.map(|by| Sort::new(of, by, query.sort_order.as_deref())).transpose()?;
        let wanted = ListQuery {
            filter,
            start_index: self.skip.saturating_add(1),
            count: if self.cursor && self.count > 0 { self.count + 1 } else { self.count },
            sort,
            after: self.after,
            base: call.base(),
        };
        let projection = query.projection(of);
        let planned = async {
            let mut plan = call.store().plan_list(of, call.provider(), &wanted).await?;
            if of == ResourceType::User && projection.requests_groups() {
                call.store().count_groups(call.provider(), &mut plan.rows, MAX_PAGE / MEMBER).await?;
            }
            Ok(plan)
        };
        let plan = planned.await.map_err(|error| store_error(&error))?;
        Ok((plan.total, Part { of, rows: plan.rows, projection }))
    }

    /// A list answer: `totalResults` and the resources, as many as one page may have.
    async fn answer(&self, call: &Call, total: u64, mut parts: Vec<Part>) -> Result<Answer, ScimError> {
        let planned: usize = parts.iter().map(|part| part.rows.len()).sum();
        let mut left = MAX_PAGE;
        let mut places = usize::try_from(self.count).unwrap_or(usize::MAX);
        let mut first = true;
        for part in &mut parts {
            part.rows.truncate(places);
            part.cut(&mut left, first);
            places -= part.rows.len();
            first &= part.rows.is_empty();
        }
        let given: usize = parts.iter().map(|part| part.rows.len()).sum();
        let start = if self.cursor {
            let last = parts.iter().rev().find_map(|part| part.rows.last());
            let place = match last {
                Some(last) if self.by_position => Place::After(last.position),
                _ => Place::Skip(self.skip.saturating_add(given as u64)),
            };
            let more = planned > given && given > 0;
            Start::Cursor(more.then(|| cursor::encode(place, &self.list, call.received_at())))
        } else {
            Start::Index(self.skip.saturating_add(1))
        };
        Ok(Answer::with(Render::new(call).content(Document::List { total, start, parts }).await?))
    }
}

/// `startIndex` as it counts, and as it is echoed: from 1.
fn start_index(query: &Query) -> u64 {
    query.start_index.and_then(|start| u64::try_from(start).ok()).unwrap_or(1).max(1)
}
