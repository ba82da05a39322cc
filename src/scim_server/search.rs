//! Lists and searches (RFC 7644 §3.4.2, §3.4.3).

use super::answer::Answer;
use super::call::{Call, Object};
use super::cursor::{self, Place};
use super::render::{Document, MAX_PAGE, MEMBER, Part, Render, Start};
use super::request::Query;
use super::store_error;
use crate::scim::{Home, Projection, ResourceType, ScimError, Sort, Work, parse};
use crate::store::{ListQuery, Match, PlannedRow};

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

/// Answers with resources of all types: in the requested order, otherwise type by type, each in the order of creation.
/// A filter on an attribute that a type lacks matches none of that type.
pub(super) async fn all(call: Call, body: Object) -> Result<Answer, ScimError> {
    let query = Query::from_search(body.members)?;
    let page = Page { by_position: false, ..Page::of(&call, "all", &query)? };
    let types = call.scim().types.all();
    let (total, parts) = match sort_by(&query) {
        Some(_) => page.merged(&call, &types, &query).await?,
        None => page.in_turn(&call, &types, &query).await?,
    };
    page.answer(&call, total, parts).await
}

/// The attribute of the order, if the query has one.
fn sort_by(query: &Query) -> Option<&str> {
    query.sort_by.as_deref().map(str::trim).filter(|by| !by.is_empty())
}

/// The results of those types whose attributes a filter names.
struct Known<T> {
    found: Vec<T>,
    unknown: Option<ScimError>,
}

impl<T> Known<T> {
    fn new() -> Self {
        Self { found: Vec::new(), unknown: None }
    }

    /// Adds the result of one type. Returns it, unless the type lacks an attribute of the filter.
    fn add(&mut self, result: Result<T, ScimError>) -> Result<Option<&mut T>, ScimError> {
        match result {
            Ok(found) => {
                self.found.push(found);
                Ok(self.found.last_mut())
            }
            Err(error @ ScimError::InvalidFilter(_)) => {
                self.unknown.get_or_insert(error);
                Ok(None)
            }
            Err(error) => Err(error),
        }
    }

    /// The results; the first refusal when no type has the attributes.
    fn all(self) -> Result<Vec<T>, ScimError> {
        match self.unknown {
            Some(error) if self.found.is_empty() => Err(error),
            _ => Ok(self.found),
        }
    }
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

    /// Number of rows to plan. With a cursor it is one more than the page has, if there is one.
    fn wanted(&self) -> u64 {
        if self.cursor && self.count > 0 { self.count + 1 } else { self.count }
    }

    /// The list of one type, of several `types` that are listed.
    fn list(
        &self,
        call: &Call,
        types: &[ResourceType],
        of: ResourceType,
        query: &Query,
    ) -> Result<ListQuery, ScimError> {
        let filter = match query.filter.as_deref().map(str::trim) {
            None | Some("") => None,
            Some(text) => Some(parse::filter(text, &mut call.findings())?.resolved(of)?),
        };
        let sort = sort_by(query).map(|by| Sort::among(types, of, by, query.sort_order.as_deref())).transpose()?;
        Ok(ListQuery {
            filter,
            start_index: self.skip.saturating_add(1),
            count: self.wanted(),
            sort,
            after: self.after,
            base: call.base(),
        })
    }

    /// `totalResults`, and the rows of the page.
    async fn planned(&self, call: &Call, of: ResourceType, query: &Query) -> Result<(u64, Part), ScimError> {
        let list = self.list(call, &[of], of, query)?;
        let plan = call.store().plan_list(of, call.provider(), &list).await.map_err(|error| store_error(&error))?;
        Ok((plan.total, part(call, of, plan.rows, query.projection(of)).await?))
    }

    /// As [`Page::planned`], of several types, one after the other.
    async fn in_turn(&self, call: &Call, types: &[ResourceType], query: &Query) -> Result<(u64, Vec<Part>), ScimError> {
        let (mut total, mut left) = (0_u64, self.wanted());
        let mut known = Known::new();
        for of in types {
            let rest = Self { skip: self.skip.saturating_sub(total), count: left, cursor: false, ..self.clone() };
            if let Some((found, part)) = known.add(rest.planned(call, *of, query).await)? {
                total = total.saturating_add(*found);
                left = left.saturating_sub(part.rows.len() as u64);
            }
        }
        Ok((total, known.all()?.into_iter().map(|(_, part)| part).collect()))
    }

    /// As [`Page::planned`], of several types in one order. Equal values are in the order of `types`, then of creation.
    async fn merged(&self, call: &Call, types: &[ResourceType], query: &Query) -> Result<(u64, Vec<Part>), ScimError> {
        let mut work = Work::of_a_scan();
        let mut known = Known::new();
        let mut order = None;
        for of in types {
            let sorted = async {
                let list = self.list(call, types, *of, query)?;
                let sorted = call.store().plan_sorted(*of, call.provider(), &list, &mut work).await;
                Ok((*of, list.sort, sorted.map_err(|error| store_error(&error))?))
            };
            if let Some((_, sort, _)) = known.add(sorted.await)? {
                order = sort.take();
            }
        }
        let matches = known.all()?.into_iter().flat_map(|(of, _, list)| list.into_iter().map(move |one| (of, one)));
        let mut matches: Vec<(ResourceType, Match)> = matches.collect();
        if let Some(order) = order {
            matches.sort_by(|(_, one), (_, other)| order.compare(&one.key, &other.key));
        }
        let total = matches.len() as u64;
        let (skip, wanted) = (usize::try_from(self.skip), usize::try_from(self.wanted()));
        let page = matches.into_iter().skip(skip.unwrap_or(usize::MAX)).take(wanted.unwrap_or(usize::MAX));
        let page: Vec<(ResourceType, PlannedRow)> = page.map(|(of, one)| (of, one.row)).collect();
        let mut parts = Vec::new();
        for run in page.chunk_by(|(one, _), (other, _)| one == other) {
            let Some((of, _)) = run.first() else { continue };
            let rows = run.iter().map(|(_, row)| *row).collect();
            parts.push(part(call, *of, rows, query.projection(*of)).await?);
        }
        Ok((total, parts))
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

/// Rows of one type, with what their members or groups weigh in an answer.
async fn part(
    call: &Call,
    of: ResourceType,
    mut rows: Vec<PlannedRow>,
    projection: Projection,
) -> Result<Part, ScimError> {
    if of.home() == Home::Users && projection.requests_groups() {
        let counted = call.store().count_groups(call.provider(), &mut rows, MAX_PAGE / MEMBER).await;
        counted.map_err(|error| store_error(&error))?;
    }
    Ok(Part { of, rows, projection })
}

/// `startIndex` as it counts, and as it is echoed: from 1.
fn start_index(query: &Query) -> u64 {
    query.start_index.and_then(|start| u64::try_from(start).ok()).unwrap_or(1).max(1)
}
