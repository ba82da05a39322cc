//! Lists of users and groups, planned before they are read.

use super::sqlite::list::{self, Narrowed};
use super::sqlite::scan::{self, Match, Scan};
use super::{ListPlan, ListQuery, Store, StoreError};
use crate::model::ProviderName;
use crate::scim::{ResourceType, Work};

impl Store {
    /// Plans a list: the users or groups in it, and their sizes. What no index answers is found by reading resources, a
    /// part at a time, so that look-ups of others are answered between the parts.
    ///
    /// # Errors
    /// [`StoreError::UnsupportedFilter`], [`StoreError::ListTooLarge`], [`StoreError::ListTooCostly`]; never a part of
    /// the results.
    pub(crate) async fn plan_list(
        &self,
        of: ResourceType,
        p: &ProviderName,
        q: &ListQuery,
    ) -> Result<ListPlan, StoreError> {
        let (name, query) = (p.clone(), q.clone());
        let candidates = match self.read(move |db| list::narrow(db, of, &name, &query)).await? {
            Narrowed::Answered(plan) => return Ok(plan),
            Narrowed::Candidates(candidates) => candidates,
        };
        let mut scan = Scan::new(of, p, q)?;
        let mut work = Work::of_a_scan();
        let mut matches: Vec<Match> = Vec::new();
        let mut rest = candidates.as_slice();
        while !rest.is_empty() {
            let part = rest[..rest.len().min(scan::PART)].to_vec();
            let (found, read, returned, spent) = self
                .read(move |db| {
                    let (found, read) = scan.part(db, &part, &mut work)?;
                    Ok((found, read, scan, work))
                })
                .await?;
            matches.extend(found);
            (scan, work) = (returned, spent);
            // A part ends early when its resources are large.
            rest = &rest[read..];
        }
        Ok(page(matches, q))
    }
}

/// The requested page of the resources that match.
fn page(mut matches: Vec<Match>, q: &ListQuery) -> ListPlan {
    let total = matches.len() as u64;
    if let Some(sort) = &q.sort {
        // The sort is stable: equal keys stay in the order of creation.
        matches.sort_by(|one, other| match one.key.cmp(&other.key) {
            order if sort.descending => order.reverse(),
            order => order,
        });
    }
    let skipped = usize::try_from(q.start_index.saturating_sub(1)).unwrap_or(usize::MAX);
    let count = usize::try_from(q.count).unwrap_or(usize::MAX);
    let after = q.after.unwrap_or(i64::MIN);
    let rows = matches.into_iter().map(|found| found.row).filter(|row| row.position > after);
    ListPlan { rows: rows.skip(skipped).take(count).collect(), total }
}
